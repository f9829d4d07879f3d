"""What the spaces of layers share: a chain of layers in stages, with an operation chosen for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from msgdas.errors import InputError
from msgdas.spaces.cell_graph import CellGraph

__all__ = ["Layer", "LayerNet", "chains", "fitted", "layers"]

SMALLEST = 4  # pixels, of any map


class Layer(NamedTuple):
    """A layer whose operation is chosen.

    Attributes:
        name: ``"stage2/1"``: the first layer of the second stage.
        first: of its stage, where width and map change.
    """

    name: str
    first: bool
    c_in: int
    c_out: int
    stride: int


def layers(c_in: int, widths: Sequence[int], strides: Sequence[int], depths: Sequence[int]) -> Iterator[Layer]:
    """The layers of stages of these widths, strides (of their first layers) and numbers of layers."""
    for stage, (width, stride, depth) in enumerate(zip(widths, strides, depths, strict=True), 1):
        for i in range(depth):
            yield Layer(f"stage{stage}/{i + 1}", i == 0, c_in, width, stride if i == 0 else 1)
            c_in = width


def fitted(strides: Sequence[int], image_size: int, space: str) -> tuple[int, ...]:
    """``strides`` without the first of its halvings, so many that no map falls below 4 × 4; maps are halved upwards.

    Raises:
        InputError: an image smaller than 4 pixels.
    """
    if image_size < SMALLEST:
        raise InputError(f"image size {image_size}: {space} needs {SMALLEST} pixels or more; enlarge with --image-size")
    side, left_out = image_size, list(strides).count(2)
    while left_out and (side + 1) // 2 >= SMALLEST:
        side, left_out = (side + 1) // 2, left_out - 1
    kept = []
    for stride in strides:
        kept.append(1 if left_out else stride)
        left_out -= stride == 2 and left_out > 0
    return tuple(kept)


class LayerNet(nn.Module):
    """Stem, layers, 1 × 1 convolution, pooling, classifier: ``(B, in_channels, S, S) → (B, classes)``.

    Args:
        space: name of its space.
        stem: what comes before the layers.
        operation: layer → module.
        features: channels of the 1 × 1 convolution.
    """

    def __init__(
        self,
        space: str,
        stem: nn.Module,
        layers: Sequence[Layer],
        operation: Callable[[Layer], nn.Module],
        *,
        features: int,
        classes: int,
        activation: type[nn.Module],
    ) -> None:
        from torchvision.ops import Conv2dNormActivation  # here: it takes a second

        super().__init__()
        self.space, self.stem = space, stem
        self.layers = nn.Sequential(*map(operation, layers))
        mix = Conv2dNormActivation(layers[-1].c_out, features, 1, activation_layer=activation)
        self.head = nn.Sequential(mix, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.head(self.layers(self.stem(x))))


def chains(stages: Sequence[Sequence[str]]) -> list[CellGraph]:
    """A graph to draw for each stage: its operations, one after the other."""
    graphs = []
    for i, labels in enumerate(stages):
        nodes = (f"stage {i}" if i else "stem", *(f"layer {j}" for j in range(1, len(labels) + 1)))
        graphs.append(CellGraph(f"stage {i + 1}", nodes, tuple(zip(nodes, nodes[1:], labels))))
    return graphs
