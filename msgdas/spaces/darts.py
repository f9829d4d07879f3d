"""The DARTS space (Liu et al. 2019, arXiv:1806.09055): a normal and a reduction cell of four nodes, eight operations.

A network is a stem, a stack of cells and a classifier. Each cell takes the outputs of the two before it; the reduction
cells halve the map and double the channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from msgdas.choice import MixedInput, MixedOp
from msgdas.derive import top_edges
from msgdas.discretize import KeptInputs
from msgdas.errors import InputError
from msgdas.genotype import Cell, Genotype
from msgdas.ops import DropBlockIdentity, FactorizedReduce, relu_conv_bn
from msgdas.ops.conv import conv
from msgdas.ops.named import OPERATIONS
from msgdas.ops.partial import on_part
from msgdas.spaces.cell_graph import CellGraph
from msgdas.spaces.darts_text import from_string, to_string

__all__ = [
    "CANDIDATES",
    "Candidates",
    "DartsNet",
    "Plan",
    "SuperNet",
    "from_string",
    "graphs",
    "network",
    "network_size",
    "plan",
    "supernet",
    "to_string",
]

NODES = 4
Form = Literal["cifar", "imagenet"]
FORMS = ("cifar", "imagenet")
CANDIDATES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)  # in the official order
Candidates = Sequence[str] | Mapping[str, Sequence[str]]
KINDS = ("normal", "reduce")


class Plan(NamedTuple):
    """How a network fits its images: see `plan`.

    Attributes:
        stem: strides of the stem's convolutions: one convolution in the CIFAR form, three in the ImageNet form.
        reductions: which cells are reduction cells, counted from 0.
        last_map: side of the last cells' map in pixels.
    """

    stem: tuple[int, ...]
    reductions: tuple[int, ...]
    last_map: int


def plan(image_size: int, cells: int, form: Form | None = None) -> Plan:
    """The networks of DARTS, for images of any size.

    The CIFAR form (up to 48 pixels) keeps the map in its stem. The ImageNet form (above) halves it, rounding up, until
    it is at most 48, three times at most: 224 → 28. The reduction cells stand at one and two thirds of the depth; a map
    under 16 pixels is halved once only, in the middle, so that no map falls below 4.

    Raises:
        InputError: images below 8 pixels, fewer than 3 cells, or an unknown form.
    """
    if image_size < 8:
        raise InputError(f"image size {image_size}: darts needs 8 pixels or more; enlarge with --image-size")
    if cells < 3:
        raise InputError(f"cells={cells}: darts needs 3 or more, of which up to two halve the map")
    form = form or ("cifar" if image_size <= 48 else "imagenet")
    if form not in FORMS:
        raise InputError(f"network {form!r}: use {' or '.join(FORMS)}")
    side, halvings = image_size, 0
    while form == "imagenet" and side > 48 and halvings < 3:
        side, halvings = (side + 1) // 2, halvings + 1
    stem = (1,) if form == "cifar" else tuple(2 if i < halvings else 1 for i in range(3))
    reductions = (cells // 3, 2 * cells // 3) if side >= 16 else (cells // 2,)
    for _ in reductions:
        side = (side + 1) // 2
    return Plan(stem, reductions, side)


def network_size(image_size: int, genotype: Genotype | None = None) -> dict[str, int]:
    """Default channels and cells of the evaluation network: those of the paper for CIFAR and for ImageNet."""
    return {"channels": 36, "cells": 20} if image_size <= 48 else {"channels": 48, "cells": 14}


class CellModule(nn.Module):
    """States 0 and 1 are the two inputs at ``channels`` channels; each node makes a further state of all so far.

    Args:
        c_before, c_last: channels of the last but one and of the last cell's output.
        halved: the last cell halved the map, so the output before it is to be halved here.
        nodes: modules ``[states] → state``.
        concat: the states whose concatenation is the output.
    """

    def __init__(
        self,
        c_before: int,
        c_last: int,
        channels: int,
        *,
        halved: bool,
        affine: bool,
        nodes: Iterable[nn.Module],
        concat: Sequence[int],
    ) -> None:
        super().__init__()
        self.before = (
            FactorizedReduce(c_before, channels, affine=affine)
            if halved
            else relu_conv_bn(c_before, channels, 1, affine=affine)
        )
        self.last = relu_conv_bn(c_last, channels, 1, affine=affine)
        self.nodes = nn.ModuleList(nodes)
        self.concat = tuple(concat)

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        states = [self.before(s0), self.last(s1)]
        for node in self.nodes:
            states.append(node(states))
        return torch.cat([states[i] for i in self.concat], 1)


CellFactory = Callable[[str, int, int, int, bool], CellModule]  # (kind, c_before, c_last, channels, halved) → cell


class DartsNet(nn.Module):
    """Stem, cells, classifier: ``(B, in_channels, S, S) → (B, classes)``. See `plan` for how it fits its images.

    With an auxiliary head it returns ``(logits, auxiliary logits)`` in training mode.
    """

    def __init__(
        self,
        cell: CellFactory,
        *,
        channels: int,
        cells: int,
        classes: int,
        in_channels: int,
        image_size: int,
        form: Form | None = None,
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        if channels % 2:
            raise InputError(f"channels={channels}: darts needs an even number, since its halving skips split them")
        stem, reductions, last_map = plan(image_size, cells, form)
        self.stem, self.stem1, c_last = _stem(in_channels, channels, stem)
        c_before, halved = c_last, stem[-1] == 2
        self.cells = nn.ModuleList()
        self.auxiliary: AuxiliaryHead | None = None
        self.auxiliary_after = 2 * cells // 3
        for i in range(cells):
            reduces = i in reductions
            channels *= 2 if reduces else 1
            made = cell(KINDS[reduces], c_before, c_last, channels, halved)
            c_before, c_last, halved = c_last, len(made.concat) * channels, reduces
            self.cells.append(made)
            if auxiliary and i == self.auxiliary_after:
                self.auxiliary = AuxiliaryHead(c_last, classes, last_map)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(c_last, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        s0 = self.stem(x)
        s1, auxiliary = self.stem1(s0), None
        for i, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1)
            if self.auxiliary is not None and self.training and i == self.auxiliary_after:
                auxiliary = self.auxiliary(s1)
        logits = self.classifier(self.pool(s1))
        return logits if auxiliary is None else (logits, auxiliary)


class AuxiliaryHead(nn.Sequential):
    """DARTS's classifier at two thirds of the depth, which the loss of a training includes. The average pooling leaves
    2 × 2 pixels of a map of any side above 1."""

    def __init__(self, channels: int, classes: int, side: int) -> None:
        kernel = min(5, side - 1)
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(kernel, side - kernel),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(768, classes),
        )


def _stem(in_channels: int, channels: int, strides: Sequence[int]) -> tuple[nn.Module, nn.Module, int]:
    """Two modules whose outputs are the inputs of the first cell, and their channels."""
    if len(strides) == 1:
        return _conv_bn(in_channels, 3 * channels, strides[0]), nn.Identity(), 3 * channels
    first = nn.Sequential(
        *_conv_bn(in_channels, channels // 2, strides[0]), nn.ReLU(), *_conv_bn(channels // 2, channels, strides[1])
    )
    return first, relu_conv_bn(channels, channels, 3, strides[2]), channels


def _conv_bn(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv(c_in, c_out, 3, stride), nn.BatchNorm2d(c_out))


# ------------------------------------------------------------------------- search


class SuperNet(DartsNet):
    """The search network: on every edge a choice of operations, shared by all cells of a kind; BatchNorm without
    affine, and one after each pooling. All edges into a node run; `top_edges` keeps two of them."""

    rule = staticmethod(top_edges)

    def __init__(self, cell: CellFactory, *, space: str, **settings: Any) -> None:
        super().__init__(cell, **settings)
        self.space = space

    def genotype(self, kept: Mapping[str, tuple[str, ...]]) -> Genotype:
        """The cells of what a rule keeps; of a node that it does not decide, all edges."""
        return Genotype(self.space, cells={kind: _cell_of(kind, kept) for kind in KINDS})


def supernet(
    *,
    channels: int = 16,
    cells: int = 8,
    classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    form: Form | None = None,
    space: str = "darts",
    candidates: Candidates = CANDIDATES,
    partial: int = 1,
    searched_edges: bool = False,
) -> SuperNet:
    """The search network of DARTS. Defaults: those of the paper for CIFAR-10.

    Args:
        space: name of the space that ``candidates`` make.
        candidates: labels of the operations on every edge, or those of each edge ``"normal/0-2"``, ….
        partial: M, of which the operations see one part of the channels (`PartialChannels`).
        searched_edges: the edges into a node are a choice too, of which two are kept (PC-DARTS, ROME); node 2 has two,
            which a softmax still weighs.
    """

    def edge(kind: str, source: int, target: int, width: int) -> nn.Module:
        stride, name = 2 if kind == "reduce" and source < 2 else 1, f"{kind}/{source}-{target}"
        labels = candidates[name] if isinstance(candidates, Mapping) else candidates
        return on_part(lambda c: MixedOp(name, {o: _candidate(o, c, stride) for o in labels}), width, partial, stride)

    def inputs(kind: str, target: int, width: int) -> MixedInput:
        edges = {str(source): edge(kind, source, target, width) for source in range(target)}
        return MixedInput(f"{kind}/{target}", edges, keep=2, searched=searched_edges)

    def cell(kind: str, c_before: int, c_last: int, width: int, halved: bool) -> CellModule:
        states = range(2, 2 + NODES)
        nodes = [inputs(kind, target, width) for target in states]
        return CellModule(c_before, c_last, width, halved=halved, affine=False, nodes=nodes, concat=states)

    return SuperNet(
        cell,
        space=space,
        channels=channels,
        cells=cells,
        classes=classes,
        in_channels=in_channels,
        image_size=image_size,
        form=form,
    )


def _candidate(label: str, channels: int, stride: int) -> nn.Module:
    if label == "skip_connect" and stride == 1:
        return DropBlockIdentity()
    operation = OPERATIONS[label](channels, stride, False)
    return nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False)) if "pool" in label else operation


def _cell_of(kind: str, kept: Mapping[str, tuple[str, ...]]) -> Cell:
    nodes = []
    for target in range(2, 2 + NODES):
        sources = sorted(map(int, kept.get(f"{kind}/{target}", map(str, range(target)))))
        nodes.append(tuple((kept[f"{kind}/{source}-{target}"][0], source) for source in sources))
    return Cell(tuple(nodes), tuple(range(2, 2 + NODES)))


# --------------------------------------------------------------------- evaluation


def network(
    genotype: Genotype,
    *,
    channels: int = 36,
    cells: int = 20,
    classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    form: Form | None = None,
    auxiliary: bool = False,
) -> DartsNet:
    """The evaluation network of a genotype, freshly initialised.

    Every operation but an identity is followed by a `StochasticDepth` with ``p = 0``: what a recipe's drop path sets.

    Args:
        cells: in all.
        form: ``"cifar"`` or ``"imagenet"``; default: by the image size (see `plan`).
        auxiliary: with an auxiliary head.
    """
    from torchvision.ops import StochasticDepth  # here: it takes a second

    to_string(genotype)  # a genotype of another space is one line here

    def edge(label: str, source: int, kind: str, width: int) -> nn.Module:
        stride = 2 if kind == "reduce" and source < 2 else 1
        operation = OPERATIONS[label](width, stride, True)
        return (
            operation if isinstance(operation, nn.Identity) else nn.Sequential(operation, StochasticDepth(0.0, "row"))
        )

    def cell(kind: str, c_before: int, c_last: int, width: int, halved: bool) -> CellModule:
        found = genotype.cell(kind)
        nodes = [
            KeptInputs([edge(label, source, kind, width) for label, source in kept], [source for _, source in kept])
            for kept in found.nodes
        ]
        return CellModule(c_before, c_last, width, halved=halved, affine=True, nodes=nodes, concat=found.concat)

    return DartsNet(
        cell,
        channels=channels,
        cells=cells,
        classes=classes,
        in_channels=in_channels,
        image_size=image_size,
        form=form,
        auxiliary=auxiliary,
    )


def graphs(genotype: Genotype) -> list[CellGraph]:
    """The normal and the reduction cell as graphs to draw."""
    return [_graph(kind, genotype.cell(kind)) for kind in KINDS]


def _graph(kind: str, cell: Cell) -> CellGraph:
    states = ("before", "last", *(str(i) for i in range(2, 2 + len(cell.nodes))))
    edges = [
        (states[source], states[target], label) for target, node in enumerate(cell.nodes, 2) for label, source in node
    ]
    edges += [(states[i], "output", "concat") for i in cell.concat]
    return CellGraph(kind, (*states, "output"), tuple(edges))
