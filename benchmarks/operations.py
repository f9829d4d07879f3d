"""The operations that are ours beside PyTorch's own: ratios of process time, interleaved in one process.

    python benchmarks/operations.py [--rounds 15] [--threads 1]

Shapes of the DARTS space at 8 channels and 32 pixels, batch 64, channels_last. Below 1: ours is the faster.
Depthwise k/s/d: kernel, stride, dilation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from msgdas.bench.rows import Row, machine, to_table, write_rows
from msgdas.ops import AvgPool3x3
from msgdas.ops.depthwise import DepthwiseConv2d

RESULTS = Path(__file__).parent / "results" / "operations.csv"
SHAPES = ((8, 32), (16, 16), (32, 8))  # channels, side
CONVOLUTIONS = ((3, 1, 1), (5, 1, 1), (3, 1, 2), (5, 1, 2), (3, 2, 1), (5, 2, 1), (3, 2, 2), (5, 2, 2))

Operation = Callable[[Tensor], Tensor]


def forward_and_backward(operation: Operation, x: Tensor, grad: Tensor) -> tuple[float, float]:
    """Process times; the backward is that of input and weights."""
    start = time.process_time()
    y = operation(x)
    middle = time.process_time()
    torch.autograd.backward(y, grad)
    return middle - start, time.process_time() - middle


def ratios(
    ours: Operation, theirs: Operation, channels: int, side: int, rounds: int
) -> tuple[list[float], list[float]]:
    """Of the forwards and of the backwards."""
    x = torch.randn(64, channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn_like(ours(x))
    found: tuple[list[float], list[float]] = [], []
    for turn in range(-2, rounds):  # the first ones warm up
        times = zip(found, forward_and_backward(ours, x, grad), forward_and_backward(theirs, x, grad), strict=True)
        for values, a, b in times:
            if turn >= 0:
                values.append(a / b)
    return found


def main() -> None:
    """Measure every operation at every shape, print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for channels, side in SHAPES:
        shape = f"{channels} × {side} px"
        pooling = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
        both = ratios(AvgPool3x3(), pooling, channels, side, args.rounds)
        rows += [Row(f"average pooling, {part}, {shape}", of) for part, of in zip(("fwd", "bwd"), both, strict=True)]
        for kernel, stride, dilation in CONVOLUTIONS:
            ours = DepthwiseConv2d(channels, kernel, stride, dilation)
            padding = dilation * (kernel // 2)
            plain = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, channels, bias=False)
            _, backward = ratios(ours, plain, channels, side, args.rounds)
            rows.append(Row(f"depthwise {kernel}/{stride}/{dilation}, bwd, {shape}", backward))
    write_rows(args.out, rows, {"batch": 64, "threads": args.threads} | machine("cpu"))
    Console(width=80, highlight=False).print(to_table(rows, "operations"))


if __name__ == "__main__":
    main()
