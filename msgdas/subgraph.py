"""Gates and sub-graphs: what runs, and how much of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from msgdas.choice import Choice, all_choices
from msgdas.errors import InputError

if TYPE_CHECKING:
    from msgdas.alphas import Alphas

__all__ = ["Gate", "Others", "SubGraph", "cut", "full", "select"]

Others = Literal["probed", "added"]


@dataclass(frozen=True)
class Gate:
    """Which candidates of one choice run, and the differentiable weights of all of them.

    Attributes:
        active: indices of the candidates that run.
        weights: ``(O,)`` float tensor; for a single path exactly one-hot.
        probe: candidates that do not run, but are run in backward, without grad, for the gradient of their weights.
        added: the zero weights of the candidates that do not run count as added to the output, and get a gradient by
            it (GDAS's public code).
    """

    active: tuple[int, ...]
    weights: Tensor
    probe: tuple[int, ...] = ()
    added: bool = False


class SubGraph(Mapping[str, Gate]):
    """One sub-graph of a super-net: an immutable mapping from choice name to :class:`Gate`."""

    def __init__(self, gates: Mapping[str, Gate]) -> None:
        self._gates = MappingProxyType(dict(gates))

    def __getitem__(self, name: str) -> Gate:
        return self._gates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._gates)

    def __len__(self) -> int:
        return len(self._gates)

    def __repr__(self) -> str:
        return f"SubGraph({', '.join(f'{name}: {gate.active}' for name, gate in self.items())})"


@contextmanager
def select(net: nn.Module, subgraph: Mapping[str, Gate]) -> Iterator[nn.Module]:
    """Inside, ``net`` runs ``subgraph``. Keep forward *and* backward inside: probing runs candidates in backward.

    A choice without a gate may only lie inside an edge that does not run.

    Raises:
        InputError: the sub-graph has a gate for what is no choice of the network.
    """
    places = _places(net)
    for name in subgraph:
        if name not in places:
            raise InputError(f"sub-graph has a gate for {name!r}, which is no choice of the network")
    before = [(choice, choice.gate) for same in places.values() for choice in same]
    for name, same in places.items():
        gate = subgraph.get(name)
        for choice in same:
            choice.__dict__["gate"] = gate  # nn.Module's own way takes ten times as long
    try:
        yield net
    finally:
        for choice, gate_before in before:
            choice.__dict__["gate"] = gate_before


_PLACES: WeakKeyDictionary[nn.Module, tuple[int, dict[str, list[ReferenceType[Choice]]]]] = WeakKeyDictionary()


def _places(net: nn.Module) -> dict[str, list[Choice]]:
    """Every choice of ``net`` by name. They are looked for again once a choice has been made anywhere: a walk over all
    modules for every sub-graph of every step takes longer than a small layer."""
    made, kept = _PLACES.get(net, (-1, {}))
    if made != Choice.made:
        kept = {name: [ref(choice) for choice in same] for name, same in all_choices(net).items()}
        _PLACES[net] = Choice.made, kept
    return {name: [choice for each in same if (choice := each()) is not None] for name, same in kept.items()}


def cut(subgraphs: Sequence[SubGraph], *, others: Others | None = None) -> tuple[list[SubGraph], Callable[[], None]]:
    """Gate weights as leaves, and a function that hands the leaves' gradients on to the alphas, once.

    This is what makes K sub-graphs cost the activations of one: each runs forward and backward on its leaves, then
    ``push()`` walks the sampler's graph a single time. The result is the gradient of the summed losses.

    Args:
        others: how the candidates that do not run get a gradient: by a straight-through one of those that are
            ``"probed"``, all of them, or as weights ``"added"`` to the output; default: as the gates say.
    """
    leaves = [SubGraph({name: _leaf(gate, others) for name, gate in subgraph.items()}) for subgraph in subgraphs]

    def push() -> None:
        pairs = [
            (gate.weights, leaf[name].weights.grad)
            for subgraph, leaf in zip(subgraphs, leaves, strict=True)
            for name, gate in subgraph.items()
            if gate.weights.requires_grad and leaf[name].weights.grad is not None  # autograd reads a missing one as 1
        ]
        if pairs:
            weights, grads = zip(*pairs, strict=True)
            torch.autograd.backward(weights, grads)

    return leaves, push


def _leaf(gate: Gate, others: Others | None) -> Gate:
    leaf = replace(gate, weights=gate.weights.detach().requires_grad_())
    if others == "probed":
        return replace(leaf, probe=tuple(i for i in range(len(gate.weights)) if i not in gate.active))
    return replace(leaf, added=True) if others == "added" else leaf


def full(alphas: Alphas) -> SubGraph:
    """The whole super-net, every candidate weighted with its probability ``softmax(a)``."""
    probabilities = alphas.probabilities()
    return SubGraph({name: Gate(tuple(range(len(p))), p) for name, p in probabilities.items()})
