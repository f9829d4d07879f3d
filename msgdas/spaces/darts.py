"""The DARTS space (Liu et al. 2019, arXiv:1806.09055): a normal and a reduction cell of four nodes, eight operations.

A network is a stem, a stack of cells and a classifier. Each cell takes the outputs of the two cells before it.
Reduction cells halve the feature map and double the channels.
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
from msgdas.ops.statistics import recomputable
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
    """How a network adapts to the image size; made by `plan`.

    Attributes:
        stem: strides of the stem's convolutions, one in the CIFAR form and three in the ImageNet form.
        reductions: indices of the reduction cells, from 0.
        last_map: side of the last feature map in pixels.
    """

    stem: tuple[int, ...]
    reductions: tuple[int, ...]
    last_map: int


def plan(image_size: int, cells: int, form: Form | None = None) -> Plan:
    """Adapt the networks of DARTS to an image size.

    The CIFAR form (default up to 48 pixels) keeps the image size in its stem. The ImageNet form (default above) halves
    it, rounding up, until it is at most 48, up to three times: 224 → 28. Reduction cells sit at one and two thirds of
    the depth. Behind a stem whose output is smaller than 16 pixels there is only one, in the middle, so that no feature
    map is smaller than 4 × 4.

    Raises:
        InputError: the image is smaller than 8 pixels, there are fewer than 3 cells, or the form is unknown.

    Examples:
        >>> plan(32, cells=20)
        Plan(stem=(1,), reductions=(6, 13), last_map=8)
    """
    if image_size < 8:
        raise InputError(f"image size {image_size}: darts needs 8 pixels or more; enlarge with --image-size")
    if cells < 3:
        raise InputError(f"cells={cells}: darts needs 3 or more, up to two of them reduction cells")
    form = form or ("cifar" if image_size <= 48 else "imagenet")
    if form not in FORMS:
        raise InputError(f"form {form!r}: use {' or '.join(FORMS)}")
    side, halvings = image_size, 0
    while form == "imagenet" and side > 48 and halvings < 3:
        side, halvings = (side + 1) // 2, halvings + 1
    stem = (1,) if form == "cifar" else tuple(2 if i < halvings else 1 for i in range(3))
    reductions = (cells // 3, 2 * cells // 3) if side >= 16 else (cells // 2,)
    for _ in reductions:
        side = (side + 1) // 2
    return Plan(stem, reductions, side)


def network_size(image_size: int, genotype: Genotype | None = None) -> dict[str, int]:
    """Default channels and cells of the evaluation network: the paper's for CIFAR and for ImageNet."""
    return {"channels": 36, "cells": 20} if image_size <= 48 else {"channels": 48, "cells": 14}


class CellModule(nn.Module):
    """A cell. States 0 and 1 are its two inputs, projected to ``channels`` channels; each node adds a state.

    Args:
        c_before, c_last: output channels of the cell before the last and of the last cell.
        halved: whether the last cell halved the feature map, so that the other input must be halved here.
        affine: whether the BatchNorm of the input projections is affine.
        nodes: modules ``[states] → state``.
        concat: indices of the states that are concatenated into the output.
    """

    recompute = False  # see `recomputable`

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
        return recomputable(self, self.output, s0, s1)

    def output(self, s0: Tensor, s1: Tensor) -> Tensor:
        """The concatenated states."""
        states = [self.before(s0), self.last(s1)]
        for node in self.nodes:
            states.append(node(states))
        return torch.cat([states[i] for i in self.concat], 1)


CellFactory = Callable[[str, int, int, int, bool], CellModule]  # (kind, c_before, c_last, channels, halved) → cell


class DartsNet(nn.Module):
    """Stem, cells, classifier: ``(B, in_channels, S, S) → (B, classes)``. `plan` adapts it to the image size.

    With an auxiliary head, it returns ``(logits, auxiliary logits)`` in training mode.
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
            raise InputError(
                f"channels={channels}: darts needs an even number, because skip connections of stride 2 split them"
            )
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
    """The auxiliary classifier of DARTS, at two thirds of the depth; used only by the training loss.

    Average pooling reduces a feature map of any side above 1 to 2 × 2 pixels.
    """

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
    """Two modules, which make the inputs of the first cell, and their output channels."""
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
    """The super-net: a choice of operations on every edge, shared by all cells of a kind.

    BatchNorm is not affine, and one follows each pooling. All edges into a node run; `top_edges` keeps two of them.
    """

    rule = staticmethod(top_edges)

    def __init__(self, cell: CellFactory, *, space: str, **settings: Any) -> None:
        super().__init__(cell, **settings)
        self.space = space

    def genotype(self, kept: Mapping[str, tuple[str, ...]]) -> Genotype:
        """The genotype of the labels that a rule keeps. A node that it does not decide keeps all edges."""
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
    """The super-net of DARTS. Default sizes: the paper's for CIFAR-10.

    Args:
        cells: number of cells, 3 or more.
        form: ``"cifar"`` or ``"imagenet"``. Default: by image size (see `plan`).
        space: name of the space, written into genotypes.
        candidates: operation labels for all edges, or a mapping from each edge (``"normal/0-2"``, …) to its labels.
        partial: M; operations run on 1/M of the channels (`PartialChannels`).
        searched_edges: make the edges into a node a searched choice, two of which are kept (PC-DARTS, ROME). Node 2,
            which has only two, weights them too.

    Raises:
        InputError: the image is smaller than 8 pixels, there are fewer than 3 cells, ``channels`` is odd, or
            ``partial`` does not divide it.

    Examples:
        >>> net = supernet(channels=4, cells=3, classes=10, partial=2)
        >>> net.rule.__name__
        'top_edges'
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
    """The evaluation network of a genotype, newly initialised. Default sizes: the paper's for CIFAR-10.

    A `StochasticDepth` with ``p = 0`` follows every operation except identities. The drop path of a recipe sets its p.

    Args:
        cells: number of cells, 3 or more.
        form: ``"cifar"`` or ``"imagenet"``. Default: by image size (see `plan`).
        auxiliary: add an auxiliary head.

    Raises:
        InputError: the genotype is not of this space, or a size is out of range (see `plan`).

    Examples:
        >>> net = network(from_string("DARTS_V2"), channels=4, cells=3)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    from torchvision.ops import StochasticDepth  # lazy: it takes a second

    to_string(genotype)  # raises for a genotype of another space

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
    """Graphs to draw: the normal and the reduction cell."""
    return [_graph(kind, genotype.cell(kind)) for kind in KINDS]


def _graph(kind: str, cell: Cell) -> CellGraph:
    states = ("before", "last", *(str(i) for i in range(2, 2 + len(cell.nodes))))
    edges = [
        (states[source], states[target], label) for target, node in enumerate(cell.nodes, 2) for label, source in node
    ]
    edges += [(states[i], "output", "concat") for i in cell.concat]
    return CellGraph(kind, (*states, "output"), tuple(edges))
