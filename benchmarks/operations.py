"""The operations that are ours beside PyTorch's own: ratios of times, interleaved in one process.

    python benchmarks/operations.py [--rounds 15] [--threads 1 2] [--clock wall] [--native]

Shapes of the DARTS space at 8 channels and 32 pixels, and for BatchNorm of larger ones, batch 64, channels_last. Below
1: ours is the faster.
Depthwise k/s/d: kernel, stride, dilation; dense k/s, of as many channels in as out; image: dense 3/1 of three channels,
whose gradients are PyTorch's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from msgdas.bench.rows import Row, machine, to_table, write_rows
from msgdas.bench.speed import CLOCKS
from msgdas.fast.memory import keep_freed_memory
from msgdas.fast.native import native, use_native
from msgdas.ops import AvgPool2x2, AvgPool3x3, BatchNorm2d
from msgdas.fast.dense import DenseConv2d
from msgdas.fast.depthwise import DepthwiseConv2d

RESULTS = Path(__file__).parent / "results" / "operations.csv"
SHAPES = ((8, 32), (16, 16), (32, 8))  # channels, side
FOLDED = ((4, 32), (8, 32), (8, 16), (12, 32), (24, 32), (36, 32))  # that our BatchNorm takes
WIDER = ((16, 32), (16, 16), (32, 16), (32, 8), (64, 8))  # that the kernels take too
DENSE = ((1, 1), (3, 1), (3, 2))  # kernel, stride: that the kernels take
IMAGE = (8, 16, 24, 48)  # channels out
CONVOLUTIONS = ((3, 1, 1), (5, 1, 1), (3, 1, 2), (5, 1, 2), (3, 2, 1), (5, 2, 1), (3, 2, 2), (5, 2, 2))

Operation = Callable[[Tensor], Tensor]


def forward_and_backward(operation: Operation, x: Tensor, grad: Tensor, clock: str) -> tuple[float, float]:
    """Times; the backward is that of input and weights."""
    now = CLOCKS[clock]
    start = now()
    y = operation(x)
    middle = now()
    torch.autograd.backward(y, grad)
    return middle - start, now() - middle


def ratios(
    ours: Operation, theirs: Operation, channels: int, side: int, rounds: int, clock: str
) -> tuple[list[float], list[float]]:
    """Of the forwards and of the backwards."""
    x = torch.randn(64, channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn_like(ours(x))
    found: tuple[list[float], list[float]] = [], []
    for turn in range(-2, rounds):  # the first ones warm up
        both = (forward_and_backward(operation, x, grad, clock) for operation in (ours, theirs))
        for values, a, b in zip(found, *both, strict=True):
            if turn >= 0:
                values.append(a / b)
    return found


def measure(rounds: int, clock: str) -> Iterator[Row]:
    """Every operation at every shape."""
    for channels, side in FOLDED + (WIDER if native() else ()):
        both = ratios(BatchNorm2d(channels), nn.BatchNorm2d(channels), channels, side, rounds, clock)
        yield from _rows("BatchNorm", both, channels, side)
    for channels, side in SHAPES[:1] + WIDER if native() else ():
        for kernel, stride in DENSE:
            plain = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, bias=False)
            both = ratios(DenseConv2d(channels, channels, kernel, stride), plain, channels, side, rounds, clock)
            yield from _rows(f"dense {kernel}/{stride}", both, channels, side)
    for channels in IMAGE if native() else ():
        plain = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        both = ratios(DenseConv2d(3, channels, 3), plain, 3, 32, rounds, clock)
        yield next(_rows("image", both, channels, 32))
    for channels, side in SHAPES[:1] + WIDER[:3] if native() else ():
        both = ratios(AvgPool2x2(), nn.AvgPool2d(2), channels, side, rounds, clock)
        yield from _rows("halving", both, channels, side)
    for channels, side in SHAPES:
        pooling = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
        both = ratios(AvgPool3x3(), pooling, channels, side, rounds, clock)
        yield from _rows("pooling", both, channels, side)
        for kernel, stride, dilation in CONVOLUTIONS:
            depthwise = DepthwiseConv2d(channels, kernel, stride, dilation)
            padding = dilation * (kernel // 2)
            plain = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, channels, bias=False)
            both = ratios(depthwise, plain, channels, side, rounds, clock)
            yield from list(_rows(f"depthwise {kernel}/{stride}/{dilation}", both, channels, side))[1:]


def _rows(name: str, both: tuple[list[float], list[float]], channels: int, side: int) -> Iterator[Row]:
    threads = torch.get_num_threads()
    for part, values in zip(("fwd", "bwd"), both, strict=True):
        yield Row(f"{name}, {part}, {channels} × {side} px, threads {threads}", values)


def main() -> None:
    """Measure, print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--native", action="store_true", help="ours by compiled kernels")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of the process, on a busy machine")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    use_native(args.native)
    keep_freed_memory()  # as the command line does
    rows: list[Row] = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        rows += measure(args.rounds, args.clock)
    where = {"batch": 64, "clock": args.clock, "native": args.native} | machine("cpu")
    write_rows(args.out, rows, where)
    Console(width=80, highlight=False).print(to_table(rows, "operations"))


if __name__ == "__main__":
    main()
