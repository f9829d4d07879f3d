"""Your own operation as a candidate beside the library's: one factory that returns a module.

The answer is known: only the new operation can tell the classes of these images apart in one layer.

Run: python examples/own_op.py
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import msgdas
from msgdas.ops import relu_conv_bn, sep_conv


class MirrorProduct(nn.Module):
    """Each pixel times its mirror image's, ``(B, C, H, W) → (B, C, H, W)``; does not change its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.flip(-1)


def mirror(channels: int) -> nn.Module:
    """The factory, which is all a new operation needs. Its output has the same shape as the other candidates'."""
    return nn.Sequential(MirrorProduct(), nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))


def network(channels: int = 8) -> nn.Module:
    """``(B, 1, 8, 8) → (B, 2)`` with one choice."""
    candidates = {
        "skip_connect": nn.Identity(),
        "conv_3x3": relu_conv_bn(channels, channels, 3),
        "sep_conv_5x5": sep_conv(channels, 5),
        "mirror": mirror(channels),
    }
    return nn.Sequential(
        nn.Conv2d(1, channels, 1, bias=False),
        msgdas.MixedOp("operation", candidates),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 2),
    )


def batches(seed: int, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield noise images that equal their mirror image (class 1) or its negative (class 0), without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        noise = torch.randn(size, 1, 8, 8, generator=generator)
        labels = torch.randint(2, (size,), generator=generator)
        yield noise + noise.flip(-1) * (2 * labels - 1).view(-1, 1, 1, 1), labels


def main() -> None:
    torch.manual_seed(0)
    search = msgdas.Search(network(), msgdas.methods.msgdas(k=2), steps=200)
    train, valid = batches(seed=1), batches(seed=2)
    for _ in range(search.steps):
        search.step(next(train), next(valid))
    print(f"found: {search.derive()}")


if __name__ == "__main__":
    main()
