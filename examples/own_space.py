"""Your own search space: a function from sizes to a module with choices. The found network is trained from scratch.

Run: python examples/own_space.py
"""

import torch
from torch import Tensor, nn

import msgdas
from msgdas.ops import DropBlockIdentity, relu_conv_bn, sep_conv


class Residual(nn.Module):
    """``x + choice(x)``. With ``skip_connect``, a block only doubles its input, so depth is searched too."""

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        candidates = {
            "skip_connect": DropBlockIdentity(),
            "conv_1x1": relu_conv_bn(channels, channels, 1),
            "conv_3x3": relu_conv_bn(channels, channels, 3),
            "sep_conv_5x5": sep_conv(channels, 5),
        }
        self.choice = msgdas.MixedOp(name, candidates)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.choice(x)


def supernet(channels: int = 8, stages: int = 2, blocks: int = 2, classes: int = 10, in_channels: int = 1) -> nn.Module:
    """The space: ``(B, in_channels, H, W) → (B, classes)`` with a choice in every block of every stage.

    Give blocks the same name to make them share their decision.
    """
    layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)]
    for stage in range(stages):
        if stage:
            layers.append(relu_conv_bn(channels, 2 * channels, 3, stride=2))
            channels *= 2
        layers += [Residual(f"stage{stage}/block{block}", channels) for block in range(blocks)]
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def network(genotype: msgdas.Genotype, **sizes: int) -> nn.Module:
    """A found network of any size, newly initialised, without choices."""
    return msgdas.discretize(supernet(**sizes), genotype)


def main() -> None:
    torch.manual_seed(0)
    data = msgdas.load_data("digits")
    search = msgdas.Search(supernet(), msgdas.methods.msgdas(k=2))
    genotype = msgdas.fit(search, data, epochs=6)
    print(f"found: {genotype}")

    found = network(genotype, channels=16)  # searched with 8 channels, trained with 16
    print(f"choices left: {sum(isinstance(module, msgdas.Choice) for module in found.modules())}")
    result = msgdas.retrain(found, data, msgdas.Recipe(epochs=4))
    print(f"test accuracy: {result['test_accuracy']:.3f}")


if __name__ == "__main__":
    main()
