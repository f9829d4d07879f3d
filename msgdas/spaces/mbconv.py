"""The layer-wise space of ProxylessNAS (Cai et al. 2019, arXiv:1812.00332).

Six stages as in MobileNetV2. Every layer is an inverted residual of searched kernel size and expansion, or is skipped.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from msgdas.choice import MixedOp
from msgdas.errors import InputError, shown
from msgdas.genotype import Genotype
from msgdas.ops import DropBlockIdentity, InvertedResidual
from msgdas.spaces.cell_graph import CellGraph
from msgdas.spaces.layered import Layer, LayerNet, chains, conv_norm, fitted, layers

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

STRIDES = (2, 2, 2, 2, 1, 2, 1)  # of the stem and of each stage, at 224 pixels
WIDTHS = (32, 40, 80, 96, 192, 320)  # of the stages, for a stem of 32 channels
BLOCKS = {f"mb{e}_{k}x{k}": (k, e) for k in (3, 5, 7) for e in (3, 6)}  # label → kernel, expansion
SKIP = "skip_connect"
PUBLISHED = {
    "ProxylessNAS_mobile": "mb3_5x5,mb3_3x3,skip_connect,skip_connect/mb3_7x7,mb3_3x3,mb3_5x5,mb3_5x5/"
    "mb6_7x7,mb3_5x5,mb3_5x5,mb3_5x5/mb6_5x5,mb3_5x5,mb3_5x5,mb3_5x5/mb6_7x7,mb6_7x7,mb3_7x7,mb3_7x7/mb6_7x7",
}  # the paper's only network of these widths; from github.com/osmr/imgclsmob
FORM = "six stages such as mb3_3x3,skip_connect/mb6_5x5,mb3_7x7/…/mb6_3x3"


def plan(channels: int, cells: int, image_size: int) -> tuple[int, list[Layer]]:
    """Return the stride of the stem and the searched layers.

    Every stage has ``cells`` layers, except the last, which has one. Widths scale with ``channels``, rounded to
    multiples of 8. At 224 pixels the strides are those of the paper; smaller images skip the first halvings. Side of
    the last feature map: 224 → 7, 64 → 4, 32 → 4.

    Args:
        channels: output channels of the stem's convolution.

    Raises:
        InputError: the image is smaller than 4 pixels.
    """
    stem, *strides = fitted(STRIDES, image_size, "mbconv")
    widths = [_width(width * channels / 32) for width in WIDTHS]
    return stem, list(layers(_width(channels / 2), widths, strides, _depths(cells)))


def _depths(cells: int) -> list[int]:
    return [cells] * (len(WIDTHS) - 1) + [1]


def _width(channels: float) -> int:
    """MobileNet's rule: the nearest multiple of 8, at least 8 and at least 0.9 · ``channels``."""
    width = max(8, int(channels + 4) // 8 * 8)
    return width + 8 if width < 0.9 * channels else width


def _net(
    operation: Callable[[Layer], nn.Module], channels: int, cells: int, classes: int, in_channels: int, image_size: int
) -> LayerNet:
    stride, places = plan(channels, cells, image_size)
    stem = nn.Sequential(
        conv_norm(in_channels, channels, 3, stride, activation=nn.ReLU6),
        InvertedResidual(channels, places[0].c_in, 3, 1),
    )
    return LayerNet("mbconv", stem, places, operation, features=40 * channels, classes=classes, activation=nn.ReLU6)


def supernet(
    *, channels: int = 16, cells: int = 4, classes: int = 10, in_channels: int = 3, image_size: int = 32
) -> LayerNet:
    """The super-net. Every layer chooses between six inverted residuals and, except the first of a stage,
    ``skip_connect``.

    Args:
        channels: output channels of the stem's convolution; all widths scale with it (see `plan`).
        cells: layers per stage.

    Raises:
        InputError: the image is smaller than 4 pixels.
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
    """The evaluation network of a genotype, newly initialised. Default widths: those of the paper.

    Args:
        cells: layers per stage. The genotype fixes it; leave it out.

    Raises:
        InputError: the genotype is not of this space, or ``cells`` contradicts it.
    """
    depth = len(_stages(genotype)[0])
    if cells not in (None, depth):
        raise InputError(f"cells={cells}: this genotype has {depth} layers per stage; leave cells out")

    def operation(layer: Layer) -> nn.Module:
        (label,) = genotype[layer.name]
        return nn.Identity() if label == SKIP else _block(label, layer)

    return _net(operation, channels, depth, classes, in_channels, image_size)


def _block(label: str, layer: Layer) -> InvertedResidual:
    return InvertedResidual(layer.c_in, layer.c_out, *BLOCKS[label], layer.stride)


def network_size(image_size: int, genotype: Genotype | None = None) -> dict[str, int]:
    """Default channels and cells of the evaluation network: the paper's widths, the genotype's layers per stage."""
    return {"channels": 32, "cells": len(_stages(genotype)[0]) if genotype else 4}


def to_string(genotype: Genotype) -> str:
    """The labels of the layers, separated by ``,`` within a stage and ``/`` between stages.

    Raises:
        InputError: the genotype is not of this space.
    """
    return "/".join(",".join(stage) for stage in _stages(genotype))


def from_string(text: str) -> Genotype:
    """Read that form or the name of a published genotype.

    Raises:
        InputError: the text is neither.
    """
    spelled = PUBLISHED.get(text.strip(), text)
    stages = [[label.strip() for label in stage.split(",")] for stage in spelled.split("/")]
    named = {f"stage{s}/{i}": label for s, stage in enumerate(stages, 1) for i, label in enumerate(stage, 1)}
    genotype = Genotype("mbconv", named)
    try:
        to_string(genotype)
    except InputError as error:
        raise InputError(
            f"{shown(text)} is not an mbconv genotype ({error}): use {', '.join(PUBLISHED)} or {FORM}"
        ) from None
    return genotype


def _stages(genotype: Genotype) -> list[list[str]]:
    """The labels by stage.

    Raises:
        InputError: the genotype is not of this space.
    """
    kept = dict(genotype.choices)
    cells = sum(name.startswith("stage1/") for name in kept)
    names = [[f"stage{s}/{i}" for i in range(1, depth + 1)] for s, depth in enumerate(_depths(cells), 1)]
    if not cells or {*kept} != {name for stage in names for name in stage}:
        raise InputError("stages 1 to 5 need the same number of layers, and stage 6 needs one")
    for name, labels in kept.items():
        allowed = [*BLOCKS] if name.endswith("/1") else [*BLOCKS, SKIP]
        if len(labels) != 1 or labels[0] not in allowed:
            raise InputError(f"{name} is {shown('+'.join(labels))}, not one of {', '.join(allowed)}")
    return [[kept[name][0] for name in stage] for stage in names]


def graphs(genotype: Genotype) -> list[CellGraph]:
    """Graphs to draw: one per stage."""
    return chains(_stages(genotype))
