"""The backward of `DepthwiseConv2d` beside that of ``nn.Conv2d``: ratios of process time, interleaved in one process.

    python benchmarks/depthwise.py [--rounds 15] [--threads 1]

Shapes of the DARTS space at 8 channels and 32 pixels, batch 64, channels_last. Below 1: ours is the faster. Writes
``results/depthwise.csv``.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from msgdas.ops.depthwise import DepthwiseConv2d
from msgdas.runs import versions, write_atomic

RESULTS = Path(__file__).parent / "results" / "depthwise.csv"
SHAPES = ((8, 32), (16, 16), (32, 8))  # channels, side
KINDS = (
    (3, 1, 1),
    (5, 1, 1),
    (3, 1, 2),
    (5, 1, 2),
    (3, 2, 1),
    (5, 2, 1),
    (3, 2, 2),
    (5, 2, 2),
)  # kernel, stride, dilation


def backward_seconds(conv: nn.Module, x: Tensor, grad: Tensor) -> float:
    """Process time of one backward, of input and weight."""
    y = conv(x)
    start = time.process_time()
    torch.autograd.backward(y, grad)
    return time.process_time() - start


def main() -> None:
    """Measure every kind at every shape, print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for channels, side in SHAPES:
        for kernel, stride, dilation in KINDS:
            ours = DepthwiseConv2d(channels, kernel, stride, dilation)
            padding = dilation * (kernel // 2)
            native = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, channels, bias=False)
            x = torch.randn(64, channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
            grad = torch.randn_like(ours(x))
            pairs = [
                (backward_seconds(ours, x, grad), backward_seconds(native, x, grad)) for _ in range(options.rounds + 2)
            ][2:]  # the first ones warm up
            ratio = statistics.median(a / b for a, b in pairs)
            rows.append(
                {"channels": channels, "side": side, "kernel": kernel, "stride": stride, "dilation": dilation}
                | {"ratio": f"{ratio:.3f}", "rounds": options.rounds, **versions()}
            )
            print(f"{channels} × {side} px, kernel {kernel}, stride {stride}, dilation {dilation}: {ratio:.2f}")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(RESULTS, text.getvalue())


if __name__ == "__main__":
    main()
