"""A cell as a directed graph with an operation on every edge."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CellGraph"]


@dataclass(frozen=True)
class CellGraph:
    """A directed graph with an operation on every edge.

    Attributes:
        name: name of the cell, such as ``"normal"``.
        nodes: node names in order of computation, inputs first.
        edges: ``(from node, to node, operation label)``. Two edges may join the same nodes. Edges labelled ``""`` or
            ``"concat"`` have no operation.

    Raises:
        ValueError: a node name occurs twice, or an edge names an unknown node.
    """

    name: str
    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str, str], ...]

    def __post_init__(self) -> None:
        twice = sorted({node for node in self.nodes if self.nodes.count(node) > 1})
        if twice:
            raise ValueError(f"cell {self.name!r} names node {twice[0]!r} twice")
        for source, target, label in self.edges:
            for node in (source, target):
                if node not in self.nodes:
                    raise ValueError(f"cell {self.name!r}: edge {label!r} touches {node!r}, not one of its nodes")
