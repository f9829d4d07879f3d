"""The layer-wise space of ProxylessNAS (Cai et al. 2019, arXiv:1812.00332): an inverted residual, or none, for each
layer.

Six stages of MobileNetV2's kind; the kernel and the expansion of every layer are chosen, and whether it is there at
all.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from msgdas.choice import MixedOp
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.ops import DropBlockIdentity, InvertedResidual
from msgdas.spaces.cell_graph import CellGraph
from msgdas.spaces.layered import Layer, LayerNet, chains, fitted, layers

__all__ = [
    "BLOCKS",
    "PUBLISHED",
    "from_string",
    "graphs",
    "network",
    "network_size",
    "plan",
    "supernet",
    "to_string",
]

STRIDES = (2, 2, 2, 2, 1, 2, 1)  # of the stem and of each stage, for 224 pixels
WIDTHS = (32, 40, 80, 96, 192, 320)  # of the stages, for a stem of 32 channels
BLOCKS = {f"mb{e}_{k}x{k}": (k, e) for k in (3, 5, 7) for e in (3, 6)}  # label → kernel, expansion
SKIP = "skip_connect"
PUBLISHED = {
    "ProxylessNAS_mobile": "mb3_5x5,mb3_3x3,skip_connect,skip_connect/mb3_7x7,mb3_3x3,mb3_5x5,mb3_5x5/"
    "mb6_7x7,mb3_5x5,mb3_5x5,mb3_5x5/mb6_5x5,mb3_5x5,mb3_5x5,mb3_5x5/mb6_7x7,mb6_7x7,mb3_7x7,mb3_7x7/mb6_7x7",
}  # of the paper's networks the one of these widths; read from github.com/osmr/imgclsmob
FORM = "six stages such as mb3_3x3,skip_connect/mb6_5x5,mb3_7x7/…/mb6_3x3"


def plan(channels: int, cells: int, image_size: int) -> tuple[int, list[Layer]]:
    """Stride of the stem, and the searched layers.

    A stage has ``cells`` layers, the last one has one. Widths are in proportion to the stem's ``channels``, in
    multiples of 8. At 224 pixels the strides are the paper's; smaller images lose the first halvings: 224 → 7, 64 → 4,
    32 → 4.

    Raises:
        InputError: an image smaller than 4 pixels.
    """
    stem, *strides = fitted(STRIDES, image_size, "mbconv")
    widths = [_width(width * channels / 32) for width in WIDTHS]
    return stem, list(layers(_width(channels / 2), widths, strides, _depths(cells)))


def _depths(cells: int) -> list[int]:
    return [cells] * (len(WIDTHS) - 1) + [1]


def _width(channels: float) -> int:
    """MobileNet's rule: the nearest multiple of 8, but not 0, and no more than a tenth below."""
    width = max(8, int(channels + 4) // 8 * 8)
    return width + 8 if width < 0.9 * channels else width


def _net(
    operation: Callable[[Layer], nn.Module], channels: int, cells: int, classes: int, in_channels: int, image_size: int
) -> LayerNet:
    from torchvision.ops import Conv2dNormActivation  # here: importing torchvision takes a second

    stride, places = plan(channels, cells, image_size)
    stem = nn.Sequential(
        Conv2dNormActivation(in_channels, channels, 3, stride, activation_layer=nn.ReLU6),
        InvertedResidual(channels, places[0].c_in, 3, 1),
    )
    return LayerNet("mbconv", stem, places, operation, features=40 * channels, classes=classes, activation=nn.ReLU6)


def supernet(
    *, channels: int = 16, cells: int = 4, classes: int = 10, in_channels: int = 3, image_size: int = 32
) -> LayerNet:
    """The search network: every layer a choice of six inverted residuals, and ``skip_connect`` but for the first layer
    of a stage.

    Args:
        channels: of the stem; all widths are in proportion (see `plan`).
        cells: layers of a stage.
    """

    def operation(layer: Layer) -> MixedOp:
        candidates = {label: _block(label, layer) for label in BLOCKS}
        return MixedOp(layer.name, candidates if layer.first else candidates | {SKIP: DropBlockIdentity()})

    return _net(operation, channels, cells, classes, in_channels, image_size)


def network(
    genotype: Genotype,
    *,
    channels: int = 32,
    cells: int | None = None,
    classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
) -> LayerNet:
    """The network of a genotype, freshly initialised. Default: the widths of the paper.

    Args:
        cells: layers of a stage: those of the genotype, or an error.
    """
    depth = len(_stages(genotype)[0])
    if cells not in (None, depth):
        raise InputError(f"cells={cells}: this genotype has {depth} layers a stage, as its super-net had; leave it out")

    def operation(layer: Layer) -> nn.Module:
        (label,) = genotype[layer.name]
        return nn.Identity() if label == SKIP else _block(label, layer)

    return _net(operation, channels, depth, classes, in_channels, image_size)


def _block(label: str, layer: Layer) -> InvertedResidual:
    return InvertedResidual(layer.c_in, layer.c_out, *BLOCKS[label], layer.stride)


def network_size(image_size: int, genotype: Genotype | None = None) -> dict[str, int]:
    """Default channels and cells of the network: the paper's widths, the genotype's layers."""
    return {"channels": 32, "cells": len(_stages(genotype)[0]) if genotype else 4}


def to_string(genotype: Genotype) -> str:
    """The labels of the layers, with ``,`` between them and ``/`` between the stages.

    Raises:
        InputError: not an mbconv genotype.
    """
    return "/".join(",".join(stage) for stage in _stages(genotype))


def from_string(text: str) -> Genotype:
    """Reads that form, or the name of a published genotype.

    Raises:
        InputError: neither.
    """
    spelled = PUBLISHED.get(text.strip(), text)
    stages = [[label.strip() for label in stage.split(",")] for stage in spelled.split("/")]
    named = {f"stage{s}/{i}": label for s, stage in enumerate(stages, 1) for i, label in enumerate(stage, 1)}
    genotype = Genotype("mbconv", named)
    try:
        to_string(genotype)
    except InputError as error:
        raise InputError(f"{text!r} is no mbconv network ({error}): use {', '.join(PUBLISHED)} or {FORM}") from None
    return genotype


def _stages(genotype: Genotype) -> list[list[str]]:
    """The labels, stage by stage; an error says what is wrong."""
    kept = dict(genotype.choices)
    cells = sum(name.startswith("stage1/") for name in kept)
    names = [[f"stage{s}/{i}" for i in range(1, depth + 1)] for s, depth in enumerate(_depths(cells), 1)]
    if not cells or {*kept} != {name for stage in names for name in stage}:
        raise InputError("it must have the same number of layers in stages 1 to 5, and one in stage 6")
    for name, labels in kept.items():
        able = [*BLOCKS] if name.endswith("/1") else [*BLOCKS, SKIP]
        if len(labels) != 1 or labels[0] not in able:
            raise InputError(f"{name} is {'+'.join(labels)}, not one of {', '.join(able)}")
    return [[kept[name][0] for name in stage] for stage in names]


def graphs(genotype: Genotype) -> list[CellGraph]:
    """The stages as graphs to draw."""
    return chains(_stages(genotype))
