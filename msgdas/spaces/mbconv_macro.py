"""NAS-Bench-Macro (Su et al. 2021, arXiv:2103.11922): eight layers of three operations, all 6,561 networks in a
table."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from msgdas.choice import MixedOp
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.ops import DropBlockIdentity, InvertedResidual, Projection
from msgdas.spaces.cell_graph import CellGraph
from msgdas.spaces.layered import Layer, LayerNet, chains, fitted, layers

__all__ = ["OPERATIONS", "from_string", "graphs", "network", "plan", "supernet", "to_string"]

DEPTHS = (2, 3, 3)
LAYERS = sum(DEPTHS)
NAMES = [layer.name for layer in layers(1, DEPTHS, DEPTHS, DEPTHS)]
OPERATIONS: dict[str, Callable[[int, int, int], nn.Module]] = {  # (c_in, c_out, stride) → module; "0", "1", "2"
    "skip_connect": lambda c_in, c_out, stride: (
        DropBlockIdentity() if (c_in, stride) == (c_out, 1) else Projection(c_in, c_out, stride)
    ),
    "mb3_3x3": lambda c_in, c_out, stride: InvertedResidual(c_in, c_out, 3, 3, stride, activation=nn.ReLU),
    "mb6_5x5": lambda c_in, c_out, stride: InvertedResidual(c_in, c_out, 5, 6, stride, activation=nn.ReLU),
}


def plan(channels: int, image_size: int) -> tuple[int, list[Layer]]:
    """Halvings in the stem, and the searched layers.

    The first layer of each of the three stages halves the map and doubles the width: 32 → 4, as in the benchmark. The
    stem halves images above 48 pixels until they are not; smaller ones lose the first halvings of the stages, so that
    no map falls below 4.

    Raises:
        InputError: an image smaller than 4 pixels.
    """
    halvings = 0
    while image_size > 48:
        image_size, halvings = (image_size + 1) // 2, halvings + 1
    strides = fitted((2, 2, 2), image_size, "mbconv-macro")
    return halvings, list(layers(channels, [channels * 2**i for i in (1, 2, 3)], strides, DEPTHS))


def _net(
    operation: Callable[[Layer], nn.Module], channels: int, cells: int, classes: int, in_channels: int, image_size: int
) -> LayerNet:
    from torchvision.ops import Conv2dNormActivation  # here: importing torchvision takes a second

    if cells != LAYERS:
        raise InputError(f"cells={cells}: mbconv-macro has {LAYERS} layers, always; leave it out")
    halvings, places = plan(channels, image_size)
    stem = nn.Sequential()
    for _ in range(max(1, halvings)):
        stem.append(Conv2dNormActivation(in_channels, channels, 3, 2 if halvings else 1))
        in_channels = channels
    return LayerNet(
        "mbconv-macro", stem, places, operation, features=40 * channels, classes=classes, activation=nn.ReLU
    )


def supernet(
    *, channels: int = 16, cells: int = LAYERS, classes: int = 10, in_channels: int = 3, image_size: int = 32
) -> LayerNet:
    """The search network: every layer a choice of three operations.

    Args:
        channels: of the stem; the stages have 2, 4 and 8 times as many.
        cells: layers; 8, or an error.
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
    """The benchmark's network of a genotype, freshly initialised. Defaults: those of the table."""
    to_string(genotype)

    def operation(layer: Layer) -> nn.Module:
        module = OPERATIONS[genotype[layer.name][0]](layer.c_in, layer.c_out, layer.stride)
        return nn.Identity() if isinstance(module, DropBlockIdentity) else module

    return _net(operation, channels, cells, classes, in_channels, image_size)


def to_string(genotype: Genotype) -> str:
    """The official form, a digit per layer: 0 identity (in the first layer of a stage a 1 × 1 convolution), 1 expansion
    3 with kernel 3, 2 expansion 6 with kernel 5.

    Raises:
        InputError: not an mbconv-macro genotype.
    """
    kept, labels = dict(genotype.choices), list(OPERATIONS)
    if sorted(kept) != sorted(NAMES) or any(len(k) != 1 or k[0] not in OPERATIONS for k in kept.values()):
        raise InputError(
            f"genotype of space {genotype.space!r} is no mbconv-macro network: it needs one of {', '.join(labels)} "
            f"for each of {', '.join(NAMES)}"
        )
    return "".join(str(labels.index(kept[name][0])) for name in NAMES)


def from_string(text: str) -> Genotype:
    """Reads that form.

    Raises:
        InputError: not of that form.
    """
    digits = text.strip()
    if len(digits) != LAYERS or not set(digits) <= {"0", "1", "2"}:
        raise InputError(f"{text!r} is no NAS-Bench-Macro string: expected {LAYERS} digits of 0, 1 and 2")
    return Genotype("mbconv-macro", {name: list(OPERATIONS)[int(d)] for name, d in zip(NAMES, digits, strict=True)})


def graphs(genotype: Genotype) -> list[CellGraph]:
    """The stages as graphs to draw."""
    to_string(genotype)
    kept = iter([genotype[name][0] for name in NAMES])
    return chains([[next(kept) for _ in range(depth)] for depth in DEPTHS])
