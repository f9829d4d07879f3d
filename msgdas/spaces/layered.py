"""Shared by the layer-wise spaces: a chain of layers in stages, each with a searched operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from msgdas.errors import InputError
from msgdas.spaces.cell_graph import CellGraph

__all__ = ["Layer", "LayerNet", "chains", "conv_norm", "fitted", "layers"]

SMALLEST = 4  # side of a feature map in pixels


class Layer(NamedTuple):
    """A layer whose operation is searched.

    Attributes:
        name: stage and layer, both from 1, such as ``"stage2/1"``.
        first: whether it is the first of its stage, where width and feature map size change.
    """

    name: str
    first: bool
    c_in: int
    c_out: int
    stride: int


def layers(c_in: int, widths: Sequence[int], strides: Sequence[int], depths: Sequence[int]) -> Iterator[Layer]:
    """Yield the layers of all stages.

    Args:
        c_in: input channels of the first layer.
        widths, strides, depths: per stage, its channels, the stride of its first layer and its number of layers.
    """
    for stage, (width, stride, depth) in enumerate(zip(widths, strides, depths, strict=True), 1):
        for i in range(depth):
            yield Layer(f"stage{stage}/{i + 1}", i == 0, c_in, width, stride if i == 0 else 1)
            c_in = width


def fitted(strides: Sequence[int], image_size: int, space: str) -> tuple[int, ...]:
    """Replace the first strides of 2 by 1 until no feature map is smaller than 4 × 4. Halving rounds up.

    Raises:
        InputError: the image is smaller than 4 pixels.
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
        space: name of the space.
        stem: module before the layers.
        operation: makes the module of a layer.
        features: output channels of the 1 × 1 convolution.
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
        super().__init__()
        self.space, self.stem = space, stem
        self.layers = nn.Sequential(*map(operation, layers))
        mix = conv_norm(layers[-1].c_out, features, 1, activation=activation)
        self.head = nn.Sequential(mix, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.head(self.layers(self.stem(x))))


def conv_norm(
    c_in: int, c_out: int, kernel: int, stride: int = 1, *, activation: type[nn.Module] = nn.ReLU
) -> nn.Module:
    """Convolution, BatchNorm and activation."""
    from torchvision.ops import Conv2dNormActivation  # lazy: it takes a second

    return Conv2dNormActivation(c_in, c_out, kernel, stride, activation_layer=activation)


def chains(stages: Sequence[Sequence[str]]) -> list[CellGraph]:
    """One graph to draw per stage: its operations in sequence."""
    graphs = []
    for i, labels in enumerate(stages):
        nodes = (f"stage {i}" if i else "stem", *(f"layer {j}" for j in range(1, len(labels) + 1)))
        graphs.append(CellGraph(f"stage {i + 1}", nodes, tuple(zip(nodes, nodes[1:], labels))))
    return graphs
