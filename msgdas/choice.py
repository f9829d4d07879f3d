"""Choices: the only thing a network must contain to be a super-net."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from msgdas.errors import InputError
from msgdas.ops.gated import gated, inner
from msgdas.ops.statistics import recomputable
from msgdas.subgraph import Gate

__all__ = ["Choice", "MixedInput", "MixedOp", "Term", "combine"]


class Term(NamedTuple):
    """One summand of a node: ``weight · module(x)``, or ``module(x)`` without a weight."""

    module: nn.Module
    x: Tensor
    weight: Tensor | None = None


def combine(terms: Sequence[Term]) -> Tensor:
    """``Σ weight · module(x)``. Whatever sums outputs calls it as its method, so that it can be replaced."""
    outputs = [module(x) if weight is None else weight * module(x) for module, x, weight in terms]
    return sum(outputs[1:], start=outputs[0])


class Choice(nn.Module):
    """A named place in a network with named candidates. A selected :class:`Gate` says which of them run.

    Choices that share a name share their decision (DARTS's normal cells, for example).

    Args:
        name: any non-empty text without ``"."`` (``"normal/0-2"``).
        candidates: the ``O`` candidate modules: a mapping from label to module, or a sequence (labels ``"0"``, ``"1"``,
            …).
        searched: whether the choice has architecture parameters of its own. Without them, every candidate runs.
    """

    keep = 1  # how many candidates the derived network keeps
    combine = staticmethod(combine)
    inner = staticmethod(inner)

    def __init__(
        self, name: str, candidates: Mapping[str, nn.Module] | Iterable[nn.Module], *, searched: bool = True
    ) -> None:
        super().__init__()
        if not name or "." in name:
            raise InputError(f"choice name {name!r}: use a non-empty name without '.', such as 'cell/0-1'")
        if not isinstance(candidates, Mapping):
            candidates = {str(i): module for i, module in enumerate(candidates)}
        if not candidates:
            raise InputError(f"choice {name!r} has no candidates: give it at least one module")
        self.name = name
        self.labels = tuple(candidates)
        self.candidates = nn.ModuleList(candidates.values())
        self.searched = searched and len(self.labels) > 1
        self.gate: Gate | None = None  # set by `select`
        self.recompute = False  # run a mixture again in backward instead of keeping its activations; set by `Search`

    def active(self) -> tuple[int, ...]:
        """Indices of the candidates that run now."""
        if self.gate is not None:
            return self.gate.active
        if self.searched:
            raise InputError(
                f"choice {self.name!r} has no gate: run the network inside `with select(net, subgraph):`, "
                "with a sub-graph that decides it"
            )
        return tuple(range(len(self.labels)))

    def terms(self, inputs: Sequence[Tensor]) -> list[Term]:
        """The active candidates, each with its input and its weight.

        A single path whose gate learns nothing has no weight: it is exactly 1.
        """
        active, gate = self.active(), self.gate
        if gate is None or (len(active) == 1 and not gate.learns):
            return [Term(self.candidates[i], inputs[i]) for i in active]
        weights = gate.weights.unbind()
        return [Term(self.candidates[i], inputs[i], weights[i]) for i in active]

    def mix(self, inputs: Sequence[Tensor]) -> Tensor:
        """``Σ_i w_i · o_i(x_i)`` over the active candidates."""
        gate = self.gate
        if gate is not None and gate.learns and (gate.probe or gate.added):
            return self._gated(inputs, gate)
        terms = self.terms(inputs)
        return self.combine(terms) if len(terms) == 1 else self._recomputable(terms)

    def _recomputable(self, terms: Sequence[Term]) -> Tensor:
        """The sum of a mixture, run again in backward while ``recompute`` is set.

        Inputs are arguments of their own, each once: inside the terms they would stay in memory when the cell is
        recomputed too, and candidates of one input must still see one tensor.
        """
        place = {x: i for i, x in enumerate(dict.fromkeys(x for _, x, _ in terms))}
        rows = [(module, place[x], weight) for module, x, weight in terms]

        def combined(*inputs: Tensor) -> Tensor:
            return self.combine([Term(module, inputs[i], weight) for module, i, weight in rows])

        return recomputable(self, combined, *place)

    def _gated(self, inputs: Sequence[Tensor], gate: Gate) -> Tensor:
        """The one active candidate, with gradients for the weights of candidates that do not run."""

        def run(i: int, x: Tensor) -> Tensor:
            return self.combine([Term(self.candidates[i], x)])

        (picked,) = gate.active
        y, probed = run(picked, inputs[picked]), {j: inputs[j] for j in gate.probe}
        return gated(self, gate.weights, y, picked, run, probed, added=gate.added, inner=self.inner)

    def extra_repr(self) -> str:
        return f"{self.name!r}, {', '.join(self.labels)}"


class MixedOp(Choice):
    """One input, several operations: ``y = Σ_i w_i · o_i(x)`` over the active candidates."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mix([x] * len(self.labels))


class MixedInput(Choice):
    """A node of a DAG whose candidates are its incoming edges: ``y = Σ_i w_i · e_i(x_i)`` over the active ones.

    Args:
        keep: how many edges the derived network keeps (two of n in the DARTS space).
        searched: ``False`` (plain DARTS): all edges run during the search and have no architecture parameter; `derive`
            keeps the strongest ``keep``.
    """

    def __init__(
        self,
        name: str,
        candidates: Mapping[str, nn.Module] | Iterable[nn.Module],
        *,
        keep: int = 2,
        searched: bool = False,
    ) -> None:
        super().__init__(name, candidates, searched=searched)
        self.keep = min(keep, len(self.labels))

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        if len(xs) != len(self.labels):
            raise InputError(
                f"choice {self.name!r} has {len(self.labels)} incoming edges and was given {len(xs)} inputs"
            )
        return self.mix(xs)
