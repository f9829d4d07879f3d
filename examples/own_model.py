"""Your own network, searched with MSG-DAS: put a `MixedOp` wherever you are undecided and keep `forward` as it is.

Run: python examples/own_model.py
"""

import torch
from torch import Tensor, nn

import msgdas
from msgdas.ops import DropBlockIdentity


def conv(channels: int, kernel: int, dilation: int = 1) -> nn.Module:
    """Convolution, normalisation, ReLU (not in place, because a candidate must not change its input)."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


class SmallNet(nn.Module):
    """``(B, 1, 8, 8) → (B, 10)`` with two choices."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.first = msgdas.MixedOp(
            "first",
            {"skip_connect": DropBlockIdentity(), "conv1": conv(channels, 1), "conv3": conv(channels, 3)},
        )
        self.second = msgdas.MixedOp(
            "second",
            {"conv3": conv(channels, 3), "dilated": conv(channels, 3, 2), "pool": nn.AvgPool2d(3, 1, 1)},
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        logits: Tensor = self.head(self.second(x))
        return logits


def main() -> None:
    torch.manual_seed(0)
    data = msgdas.load_data("digits")
    net = SmallNet()
    search = msgdas.Search(net, msgdas.methods.msgdas(k=2))
    genotype = msgdas.fit(search, data, epochs=8)
    print(f"found: {genotype}")

    plain = msgdas.discretize(net, genotype)  # the found network with the super-net's weights; it contains no choices
    before, after = (sum(p.numel() for p in module.parameters()) for module in (net, plain))
    print(f"parameters: {before:,} in the super-net, {after:,} in the found network")

    result = msgdas.retrain(plain, data, msgdas.Recipe(epochs=3))  # continues from these weights
    print(f"test accuracy: {result['test_accuracy']:.3f}")


if __name__ == "__main__":
    main()
