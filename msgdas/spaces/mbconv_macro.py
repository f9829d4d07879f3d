"""NAS-Bench-Macro (Su et al. 2021, arXiv:2103.11922): eight layers, three operations, 6,561 tabulated networks."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from msgdas.choice import MixedOp
from msgdas.errors import InputError, shown
from msgdas.genotype import Genotype
from msgdas.ops import DropBlockIdentity, InvertedResidual, Projection
from msgdas.spaces.cell_graph import CellGraph
from msgdas.spaces.layered import Layer, LayerNet, chains, conv_norm, fitted, layers

__all__ = ["OPERATIONS", "from_string", "graphs", "network", "plan", "supernet", "to_string"]

DEPTHS = (2, 3, 3)
LAYERS = sum(DEPTHS)
NAMES = [layer.name for layer in layers(1, DEPTHS, DEPTHS, DEPTHS)]
OPERATIONS: dict[str, Callable[[int, int, int], nn.Module]] = {  # (c_in, c_out, stride) → module; digits 0, 1, 2
    "skip_connect": lambda c_in, c_out, stride: (
        DropBlockIdentity() if (c_in, stride) == (c_out, 1) else Projection(c_in, c_out, stride)
    ),
    "mb3_3x3": lambda c_in, c_out, stride: InvertedResidual(c_in, c_out, 3, 3, stride, activation=nn.ReLU),
    "mb6_5x5": lambda c_in, c_out, stride: InvertedResidual(c_in, c_out, 5, 6, stride, activation=nn.ReLU),
}


def plan(channels: int, image_size: int) -> tuple[int, list[Layer]]:
    """Return the number of halvings in the stem and the searched layers.

    The first layer of each of the three stages halves the feature map and doubles the width: 32 → 4, as in the
    benchmark. The stem halves larger images until they have at most 48 pixels. Smaller images skip the first halvings
    of the stages, so that no feature map is smaller than 4 × 4.

    Raises:
        InputError: the image is smaller than 4 pixels.
    """
    halvings = 0
    while image_size > 48:
        image_size, halvings = (image_size + 1) // 2, halvings + 1
    strides = fitted((2, 2, 2), image_size, "mbconv-macro")
    return halvings, list(layers(channels, [channels * 2**i for i in (1, 2, 3)], strides, DEPTHS))


def _net(
    operation: Callable[[Layer], nn.Module], channels: int, cells: int, classes: int, in_channels: int, image_size: int
) -> LayerNet:
    if cells != LAYERS:
        raise InputError(f"cells={cells}: mbconv-macro always has {LAYERS} layers; leave cells out")
    halvings, places = plan(channels, image_size)
    stem = nn.Sequential()
    for _ in range(max(1, halvings)):
        stem.append(conv_norm(in_channels, channels, 3, 2 if halvings else 1))
        in_channels = channels
    return LayerNet(
        "mbconv-macro", stem, places, operation, features=40 * channels, classes=classes, activation=nn.ReLU
    )


def supernet(
    *, channels: int = 16, cells: int = LAYERS, classes: int = 10, in_channels: int = 3, image_size: int = 32
) -> LayerNet:
    """The super-net. Every layer chooses between three operations.

    Args:
        channels: output channels of the stem; the stages have 2, 4 and 8 times as many.
        cells: number of layers, always 8.

    Raises:
        InputError: ``cells`` is not 8, or the image is smaller than 4 pixels.
    """

    def operation(layer: Layer) -> MixedOp:
        return MixedOp(layer.name, {o: make(layer.c_in, layer.c_out, layer.stride) for o, make in OPERATIONS.items()})

    return _net(operation, channels, cells, classes, in_channels, image_size)


def network(
    genotype: Genotype,
    *,
    channels: int = 32,
    cells: int = LAYERS,
    classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
) -> LayerNet:
    """The benchmark's network of a genotype, newly initialised. Defaults: those of the benchmark's table.

    Raises:
        InputError: the genotype is not of this space, ``cells`` is not 8, or the image is smaller than 4 pixels.
    """
    to_string(genotype)

    def operation(layer: Layer) -> nn.Module:
        module = OPERATIONS[genotype[layer.name][0]](layer.c_in, layer.c_out, layer.stride)
        return nn.Identity() if isinstance(module, DropBlockIdentity) else module

    return _net(operation, channels, cells, classes, in_channels, image_size)


def to_string(genotype: Genotype) -> str:
    """The official form, one digit per layer.

    0: identity (a 1 × 1 convolution in the first layer of a stage); 1: expansion 3, kernel 3; 2: expansion 6, kernel 5.

    Raises:
        InputError: the genotype is not of this space.
    """
    kept, labels = dict(genotype.choices), list(OPERATIONS)
    if sorted(kept) != sorted(NAMES) or any(len(k) != 1 or k[0] not in OPERATIONS for k in kept.values()):
        raise InputError(
            f"genotype of space {shown(genotype.space)} is not an mbconv-macro network: it needs one of "
            f"{', '.join(labels)} for each of {', '.join(NAMES)}"
        )
    return "".join(str(labels.index(kept[name][0])) for name in NAMES)


def from_string(text: str) -> Genotype:
    """Read the official form.

    Raises:
        InputError: the text does not have that form.
    """
    digits = text.strip()
    if len(digits) != LAYERS or not set(digits) <= {"0", "1", "2"}:
        raise InputError(f"{shown(text)} is not a NAS-Bench-Macro string: expected {LAYERS} digits 0, 1 or 2")
    return Genotype("mbconv-macro", {name: list(OPERATIONS)[int(d)] for name, d in zip(NAMES, digits, strict=True)})


def graphs(genotype: Genotype) -> list[CellGraph]:
    """Graphs to draw: one per stage."""
    to_string(genotype)
    kept = iter([genotype[name][0] for name in NAMES])
    return chains([[next(kept) for _ in range(depth)] for depth in DEPTHS])
