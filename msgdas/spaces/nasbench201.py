"""NAS-Bench-201 (Dong & Yang 2020, arXiv:2001.00326): a cell of four nodes and six edges, five operations per edge."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from msgdas.choice import MixedOp, Term, combine
from msgdas.errors import InputError, shown
from msgdas.genotype import Genotype
from msgdas.ops import DropBlockIdentity, Zero, relu_conv_bn
from msgdas.ops.conv import conv
from msgdas.ops.named import avg_pool_3x3
from msgdas.ops.partial import on_part
from msgdas.ops.statistics import recomputable
from msgdas.spaces.cell_graph import CellGraph

__all__ = ["EDGES", "OPERATIONS", "NasBench201", "from_string", "graphs", "network", "stages", "supernet", "to_string"]

EDGES = tuple((source, target) for target in range(1, 4) for source in range(target))
OPERATIONS: dict[str, Callable[[int, bool], nn.Module]] = {  # (channels, affine) → module, in the official order
    "none": lambda c, affine: Zero(),
    "skip_connect": lambda c, affine: DropBlockIdentity(),
    "nor_conv_1x1": lambda c, affine: relu_conv_bn(c, c, 1, affine=affine),
    "nor_conv_3x3": lambda c, affine: relu_conv_bn(c, c, 3, affine=affine),
    "avg_pool_3x3": lambda c, affine: avg_pool_3x3(),
}
EdgeFactory = Callable[[str, int], nn.Module]  # (choice name, channels) → module
Incoming = list[tuple[int, list[tuple[int, int]]]]  # (node, [(edge index, source node), …])


class Cell(nn.Module):
    """``node_t = Σ_{s<t} edge_{s→t}(node_s)``, from node 0, the input, to node 3, the output. Keeps the shape."""

    combine = staticmethod(combine)
    recompute = False  # see `recomputable`

    def __init__(self, channels: int, edge: EdgeFactory) -> None:
        super().__init__()
        self.edges = nn.ModuleList(edge(f"cell/{source}-{target}", channels) for source, target in EDGES)

    def forward(self, x: Tensor) -> Tensor:
        return recomputable(self, self.output, x)

    def output(self, x: Tensor) -> Tensor:
        """The output node."""
        nodes = {0: x}
        for target, incoming in self._incoming():
            terms = [Term(self.edges[i], nodes[source]) for i, source in incoming]
            nodes[target] = self.combine(terms) if terms else torch.zeros_like(x)
        return nodes[3]

    def _incoming(self) -> Incoming:
        """The edges that run, by target node in order.

        Edges that are ``none`` do not run. In training, neither do edges into a node that never reaches the output;
        evaluation computes every node, so that costs match the benchmark's table.
        """
        into: dict[int, list[tuple[int, int]]] = {3: []} if self.training else {1: [], 2: [], 3: []}
        for i, (source, target) in reversed(list(enumerate(EDGES))):
            if target in into and not _is_none(self.edges[i]):
                into[target].insert(0, (i, source))
                if source:
                    into.setdefault(source, [])
        return sorted(into.items())


def _is_none(edge: nn.Module) -> bool:
    """Whether an edge outputs only zeros and has no part in backward."""
    if not isinstance(edge, MixedOp):
        return isinstance(edge, Zero)
    if edge.gate is not None and (edge.gate.probe or edge.gate.added):
        return False
    return all(isinstance(edge.candidates[i], Zero) for i in edge.active())


class Reduction(nn.Module):
    """The benchmark's residual block between stages: halves the feature map and doubles the channels."""

    combine = staticmethod(combine)

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(relu_conv_bn(c_in, c_out, 3, 2), relu_conv_bn(c_out, c_out, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), conv(c_in, c_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 2 or x.shape[-2] % 2:  # strided convolutions round up, pooling rounds down
            x = nn.functional.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
        first, second = self.convs
        return self.combine([Term(self.shortcut, x), Term(second, first(x))])


class NasBench201(nn.Module):
    """The benchmark's network: a stem, stages of ``cells`` cells with residual reductions in between, a classifier.

    ``(B, in_channels, S, S) → (B, classes)``. `stages` adapts it to the image size.
    """

    space = "nasbench201"

    def __init__(
        self, edge: EdgeFactory, *, channels: int, cells: int, classes: int, in_channels: int, image_size: int
    ) -> None:
        super().__init__()
        halvings, count = stages(image_size)
        self.stem = _stem(in_channels, channels, halvings)
        layers: list[nn.Module] = []
        for stage in range(count):
            width = channels * 2**stage
            if stage:
                layers.append(Reduction(width // 2, width))
            layers += [Cell(width, edge) for _ in range(cells)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.head(self.layers(self.stem(x))))


def stages(image_size: int) -> tuple[int, int]:
    """Return the number of halvings in the stem and the number of stages for an image size.

    The stem halves larger images until they have at most 48 pixels. Every stage but the first halves the feature map.
    There are at most three stages, as in the benchmark, and no feature map is smaller than 4 × 4.

    Raises:
        InputError: the image is smaller than 4 pixels.

    Examples:
        >>> stages(8), stages(16), stages(32), stages(224)
        ((0, 2), (0, 3), (0, 3), (3, 3))
    """
    if image_size < 4:
        raise InputError(f"image size {image_size}: nasbench201 needs 4 pixels or more; enlarge with --image-size")
    halvings = 0
    while image_size > 48:
        image_size, halvings = (image_size + 1) // 2, halvings + 1
    return halvings, 1 + sum(image_size // 2**reduction >= 4 for reduction in (1, 2))


def _stem(in_channels: int, channels: int, halvings: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for halving in range(max(1, halvings)):
        stride = 2 if halvings else 1
        layers += [nn.ReLU()] if halving else []
        layers += [conv(in_channels, channels, 3, stride), nn.BatchNorm2d(channels)]
        in_channels = channels
    return nn.Sequential(*layers)


def supernet(
    *,
    channels: int = 8,
    cells: int = 1,
    classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    partial: int = 1,
) -> NasBench201:
    """The super-net. Every edge chooses between five operations, and all cells share the choices. BatchNorm in
    candidates is not affine.

    Args:
        partial: M; operations run on 1/M of the channels (`PartialChannels`).

    Raises:
        InputError: the image is smaller than 4 pixels, or ``partial`` does not divide the channels.

    Examples:
        >>> net = supernet(channels=4, cells=1)
        >>> [choice.labels for choice in net.modules() if isinstance(choice, MixedOp)][0]
        ('none', 'skip_connect', 'nor_conv_1x1', 'nor_conv_3x3', 'avg_pool_3x3')
    """

    def edge(name: str, width: int) -> nn.Module:
        return on_part(lambda c: MixedOp(name, {o: make(c, False) for o, make in OPERATIONS.items()}), width, partial)

    return NasBench201(
        edge, channels=channels, cells=cells, classes=classes, in_channels=in_channels, image_size=image_size
    )


def network(
    genotype: Genotype,
    *,
    channels: int = 16,
    cells: int = 5,
    classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
) -> NasBench201:
    """The benchmark's evaluation network of a genotype, newly initialised. Defaults: those of the benchmark's table.

    Raises:
        InputError: the genotype is not of this space, or the image is smaller than 4 pixels.

    Examples:
        >>> text = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
        >>> net = network(from_string(text), channels=4, cells=1)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def edge(name: str, width: int) -> nn.Module:
        (label,) = genotype[name]
        return nn.Identity() if label == "skip_connect" else OPERATIONS[label](width, True)

    to_string(genotype)  # raises for a genotype of another space
    return NasBench201(
        edge, channels=channels, cells=cells, classes=classes, in_channels=in_channels, image_size=image_size
    )


def to_string(genotype: Genotype) -> str:
    """The official form ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``.

    Raises:
        InputError: the genotype is not of this space.
    """
    kept = dict(genotype.choices)
    names = [f"cell/{source}-{target}" for source, target in EDGES]
    if sorted(kept) != sorted(names) or any(len(k) != 1 or k[0] not in OPERATIONS for k in kept.values()):
        raise InputError(
            f"genotype of space {shown(genotype.space)} is not a nasbench201 cell: it needs one of "
            f"{', '.join(OPERATIONS)} for each of {', '.join(names)}"
        )
    nodes = [[f"{kept[f'cell/{s}-{t}'][0]}~{s}" for s, t in EDGES if t == target] for target in range(1, 4)]
    return "+".join(f"|{'|'.join(node)}|" for node in nodes)


def from_string(text: str) -> Genotype:
    """Read the official form.

    Raises:
        InputError: the text does not have that form.
    """
    nodes = text.strip().split("+")
    found = [re.findall(r"\|([^|~]+)~(\d+)(?=\|)", node) for node in nodes]
    choices = {f"cell/{s}-{t}": op for t, node in enumerate(found, 1) for op, s in node}
    genotype = Genotype("nasbench201", choices)
    try:
        if to_string(genotype) == text.strip():
            return genotype
    except InputError:
        pass
    raise InputError(
        f"{shown(text)} is not a NAS-Bench-201 string: expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2| with op one of "
        f"{', '.join(OPERATIONS)}"
    )


def graphs(genotype: Genotype) -> list[CellGraph]:
    """Graphs to draw: the cell."""
    to_string(genotype)
    nodes = ("input", "1", "2", "output")
    edges = tuple((nodes[s], nodes[t], genotype[f"cell/{s}-{t}"][0]) for s, t in EDGES)
    return [CellGraph("cell", nodes, edges)]
