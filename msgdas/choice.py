"""Choices: the only thing a network must contain to be a super-net."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from msgdas.errors import InputError
from msgdas.fast.fused import Summand, fused_inner, fused_sum, fusible
from msgdas.ops.skip import Zero
from msgdas.fast.sums import dense, inner, plus
from msgdas.fast.weighted import alone, hooked, sharing, summand, weighted_norm, weighted_sum
from msgdas.ops.gated import autocast_again
from msgdas.ops.statistics import frozen_statistics, quiet

if TYPE_CHECKING:
    from msgdas.subgraph import Gate

__all__ = ["Choice", "MixedInput", "MixedOp", "all_choices", "choices", "is_zero", "node", "total"]


class Choice(nn.Module):
    """A named place in a network with named candidates, of which a selected :class:`Gate` says which run.

    Choices that share a name share their decision (DARTS's normal cells, for example).

    Args:
        name: of the decision; any non-empty text without ``"."`` (``"normal/0-2"``).
        candidates: the ``O`` candidate modules, as a mapping from label or a sequence (labels ``"0"``, ``"1"``, …).
        searched: whether the choice has architecture parameters of its own. One that has not runs every candidate.
    """

    keep = 1  # candidates in the derived network
    made = 0  # choices so far, of all networks

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
        self.recompute = False  # in backward what a mixture of several candidates keeps for it; set by `Search`
        Choice.made += 1

    def active(self) -> tuple[int, ...]:
        """The candidates that run now, by index."""
        if self.gate is not None:
            return self.gate.active
        if self.searched:
            raise InputError(
                f"choice {self.name!r} has no gate: run the network inside `with select(net, subgraph):`, "
                "with a sub-graph that decides it"
            )
        return tuple(range(len(self.labels)))

    def mix(self, inputs: Sequence[Tensor]) -> Tensor:
        """Sum of the active candidates, each on its own input, weighted by the gate."""
        if fusible(inputs[0]):
            return fused_sum(self.summands(inputs))
        active, gate = self.active(), self.gate
        if gate is not None and len(active) > 1:
            return self._weighted(inputs, gate)
        if gate is not None and _learns(gate):
            return self._through_gate(active[0], inputs, gate)
        running = self._running(active)
        return total([alone(self._candidate(i), inputs[i]) for i in running])  # a gate of exactly 1 costs nothing

    def summands(self, inputs: Sequence[Tensor]) -> list[Summand]:
        """What `mix` adds, for `fused_sum`."""
        active, gate = self.active(), self.gate
        if gate is not None and len(active) > 1:
            if self.recompute and torch.is_grad_enabled():
                return [Summand(self._weighted(inputs, gate))]
            return [summand(self._candidate(i), inputs[i], gate.weights, i) for i in self._running(active)]
        if gate is not None and _learns(gate):
            (i,) = active
            if gate.probe or gate.added:
                return [Summand(self._through_gate(i, inputs, gate))]
            return [summand(self._candidate(i), inputs[i], gate.weights, i)]
        return [each for i in self._running(active) for each in _summands(self._candidate(i), inputs[i])]

    def _candidate(self, i: int) -> nn.Module:
        return self._modules["candidates"]._modules[str(i)]  # type: ignore[union-attr,return-value]  # the quickest way

    def _running(self, active: Sequence[int]) -> Sequence[int]:
        """Those of the active candidates that are worth running: not `is_zero`, if others are left."""
        if len(active) == 1:
            return active
        return [i for i in active if not is_zero(self._candidate(i))] or active

    def _weighted(self, inputs: Sequence[Tensor], gate: Gate) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            result: Tensor = checkpoint(
                self._sum_alone,
                gate,
                *inputs,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), frozen_statistics(self)),
            )
        else:
            result = self._sum(gate, inputs)
        if result.requires_grad:
            result.register_hook(dense)  # type: ignore[no-untyped-call]
        return result

    def _sum_alone(self, gate: Gate, *inputs: Tensor) -> Tensor:
        with sharing():  # not with the cell, which has ended when this runs again
            return self._sum(gate, inputs)

    def _sum(self, gate: Gate, inputs: Sequence[Tensor]) -> Tensor:
        weights = gate.weights.unbind()
        running = self._running(gate.active)  # the gate of what is zero has the gradient 0
        return weighted_sum((self._candidate(i), inputs[i], weights[i]) for i in running)

    def _through_gate(self, i: int, inputs: Sequence[Tensor], gate: Gate) -> Tensor:
        candidate, x = self._candidate(i), inputs[i]
        if not gate.probe and not gate.added:
            normed = weighted_norm(candidate, x, gate.weights[i])
            if normed is not None:  # its backward has ⟨∂L/∂y, y⟩ already
                return normed
        probed = [inputs[j] for j in gate.probe]
        output: Tensor = _Gated.apply(gate.weights, alone(candidate, x), gate, self.candidates, *probed)
        return output

    def extra_repr(self) -> str:
        return f"{self.name!r}, {', '.join(self.labels)}"


class MixedOp(Choice):
    """One input, several operations: ``y = Σ_i w_i · o_i(x)`` over the active candidates."""

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate
        if gate is not None and len(gate.active) == 1 and not _learns(gate):
            return alone(self._candidate(gate.active[0]), x)  # what `mix` comes to, without its lists
        return self.mix([x] * len(self.labels))


class MixedInput(Choice):
    """A node of a DAG whose candidates are its incoming edges: ``y = Σ_i w_i · e_i(x_i)`` over the active ones.

    Args:
        keep: how many edges the derived network keeps (two of n in the DARTS space).
        searched: ``False`` (plain DARTS): all edges run during the search and have no architecture parameter;
            `derive` keeps the strongest ``keep``.
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


def all_choices(net: nn.Module) -> dict[str, list[Choice]]:
    """Every choice of ``net`` by name, searched or not; those that share a name must have the same labels."""
    found: dict[str, list[Choice]] = {}
    for module in net.modules():
        if isinstance(module, Choice):
            same = found.setdefault(module.name, [])
            if same and (same[0].labels, same[0].searched) != (module.labels, module.searched):
                raise InputError(
                    f"choices named {module.name!r} differ: {same[0].labels} and {module.labels}; give them two names"
                )
            same.append(module)
    return found


def choices(net: nn.Module) -> dict[str, list[Choice]]:
    """The choices of ``net`` that a search decides, by name, in the order of ``net.modules()``."""
    return {name: same for name, same in all_choices(net).items() if same[0].searched}


def is_zero(module: nn.Module) -> bool:
    """Whether it puts out zeros whatever its input, which nothing in backward asks for either: `Zero`, or a choice of
    which only such run."""
    if not isinstance(module, Choice):
        return isinstance(module, Zero)
    if module.gate is not None and (module.gate.probe or module.gate.added):
        return False
    return all(is_zero(module._candidate(i)) for i in module.active())


def node(modules: Sequence[nn.Module], xs: Sequence[Tensor]) -> Tensor:
    """``Σ module(x)``: what a node does with its edges, in the super-net and in what is derived from it."""
    if fusible(xs[0]):
        return fused_sum([each for module, x in zip(modules, xs, strict=True) for each in _summands(module, x)])
    return total([module(x) for module, x in zip(modules, xs, strict=True)])


def _summands(module: nn.Module, x: Tensor) -> list[Summand]:
    """What makes ``module(x)``."""
    if type(module) is MixedOp and not hooked(module):
        return module.summands([x] * len(module.labels))
    return [summand(module, x)]


def total(outputs: list[Tensor]) -> Tensor:
    """Their sum, in order."""
    result, *others = outputs
    for i, output in enumerate(others):
        result = plus(result, output) if i else result + output  # the first may be the input of others
    return result


class _Gated(torch.autograd.Function):
    """``w_i · y`` for a hard gate (``w_i`` is exactly 1, so forward is free) with the gradient of the gate weights.

    The picked candidate gets ``∂L/∂w_i = ⟨∂L/∂y, y⟩``. Those that the gate probes run forward without grad in backward,
    on the stored ``inputs``, and get ``∂L/∂w_j = ⟨∂L/∂y, o_j(x_j)⟩``: the exact straight-through gradient, at the
    activation memory of one path. Those whose weights count as added to the output get ``⟨∂L/∂y, 1⟩``. A Function and
    not a tensor hook, since an identity candidate returns its input itself, and a hook there would see the gradients of
    all its consumers.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, y: Tensor, gate: Gate, candidates: nn.ModuleList, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(y, *inputs)
        ctx.gate, ctx.candidates, ctx.weights_like = gate, candidates, (len(weights), weights.dtype, weights.device)
        if gate.probe:
            ctx.autocast = autocast_again(y.device.type)
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, *inputs = ctx.saved_tensors
        gates = None
        if ctx.needs_input_grad[0]:
            size, dtype, device = ctx.weights_like
            gates = torch.zeros(size, dtype=dtype, device=device)
            if ctx.gate.added:
                gates += grad.sum(dtype=torch.promote_types(grad.dtype, torch.float32))
            (picked,) = ctx.gate.active
            gates[picked] = 0.0 if isinstance(ctx.candidates[picked], Zero) else inner(grad, y)
            if ctx.gate.probe:
                with torch.no_grad(), quiet(ctx.candidates), ctx.autocast(), sharing():
                    for j, x in zip(ctx.gate.probe, inputs, strict=True):
                        candidate = ctx.candidates[j]
                        gates[j] = 0.0 if isinstance(candidate, Zero) else fused_inner(grad, summand(candidate, x))
        return gates, grad, None, None, *(None for _ in inputs)


def _learns(gate: Gate) -> bool:
    return gate.weights.requires_grad and torch.is_grad_enabled()
