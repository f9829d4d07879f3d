"""Gates and sub-graphs: which candidates run, and with which weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Gate", "Others", "SubGraph", "cut"]

Others = Literal["probed", "added"]


@dataclass(frozen=True)
class Gate:
    """Which candidates of one choice run, and the differentiable weights of all of them.

    Attributes:
        active: indices of the candidates that run.
        weights: ``(O,)`` float tensor; exactly one-hot for a single path.
        probe: candidates that do not run in forward; backward runs them, without grad, for the gradient of their
            weights.
        added: treat the zero weights of the candidates that do not run as added to the output, and give them that
            gradient (GDAS's public code).
    """

    active: tuple[int, ...]
    weights: Tensor
    probe: tuple[int, ...] = ()
    added: bool = False

    @property
    def learns(self) -> bool:
        """Whether a forward pass now records a gradient for the weights."""
        return self.weights.requires_grad and torch.is_grad_enabled()


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


def cut(subgraphs: Sequence[SubGraph], *, others: Others | None = None) -> tuple[list[SubGraph], Callable[[], None]]:
    """Detach the gate weights as leaves; the second result pushes the leaves' gradients on to the alphas.

    This is why K sub-graphs cost the activations of one: each runs forward and backward on its own leaves, then
    ``push()`` walks the sampler's graph once. The result is the gradient of the summed losses.

    Args:
        others: how candidates that do not run get a gradient. ``"probed"``: the straight-through gradient of each,
            from running it in backward. ``"added"``: as weights added to the output. Default: what each gate says.
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
