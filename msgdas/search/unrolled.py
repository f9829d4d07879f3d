"""DARTS's second-order hypergradient: through one virtual step of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from msgdas.choice import Choice
from msgdas.errors import InputError
from msgdas.search.gradients import AlphaStep, mean_backward
from msgdas.subgraph import SubGraph, cut
from msgdas.supernet import Places, select

__all__ = ["Unrolled"]

Objective = Callable[[], Tensor]


@dataclass(frozen=True)
class Unrolled:
    """``∂L_valid(w − ξ ∇_w L_train(w, a), a)/∂a`` (Liu et al. 2019, arXiv:1806.09055, eq. 6 to 8).

    ξ is the learning rate of the weights. The product with the mixed second derivative is a finite difference between
    the networks at ``w ± ε ∂L_valid/∂w'`` with ``ε = epsilon / ‖∂L_valid/∂w'‖``. Everything is computed for the gates
    and passed on to the alphas once, so it works with every sampler. With several sub-graphs L is their mean.

    Args:
        momentum: include the optimizer's momentum in the virtual step (DARTS's public code does).
        weight_decay: include its weight decay (DARTS's public code does).
        epsilon: length of the finite difference.
        exact: use double backward instead of finite differences; for tests and tiny networks, soft gates only.

    Raises:
        InputError: ``exact`` with hard gates, or with choices that recompute.
    """

    momentum: bool = True
    weight_decay: bool = True
    epsilon: float = 0.01
    exact: bool = False

    def __call__(self, step: AlphaStep) -> None:
        if step.train_objective is None or step.weight_optimizer is None:
            raise InputError("Unrolled needs the training batch's objective and the weight optimizer in its AlphaStep")
        leaves, push = cut(step.subgraphs)
        gates = [gate.weights for leaf in leaves for gate in leaf.values()]
        work = self._exact if self.exact else self._by_differences
        work(step, step.train_objective, step.weight_optimizer, leaves, gates)
        push()

    def _by_differences(
        self, step: AlphaStep, train: Objective, optimizer: Optimizer, leaves: list[SubGraph], gates: list[Tensor]
    ) -> None:
        weights = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        rate = optimizer.param_groups[0]["lr"]
        virtual = _backward(step, leaves, train, weights)
        with _moving(weights) as move:
            move(self._moves(weights, virtual, optimizer), -rate)
            found = _backward(step, leaves, step.objective, [*weights, *gates])
            towards, direct = found[: len(weights)], found[len(weights) :]
            reached = [g for g in towards if g is not None]
            epsilon = self.epsilon / nn.utils.get_total_norm(reached).clamp_min(1e-12)
            if reached:
                torch._foreach_mul_(reached, epsilon)
            move(towards, 1.0)
            ahead = _backward(step, leaves, train, gates)
            move(towards, -1.0)
            behind = _backward(step, leaves, train, gates)
        for gate, g, plus, minus in zip(gates, direct, ahead, behind, strict=True):
            if g is not None and plus is not None and minus is not None:
                g = g - (rate * (plus - minus) / (2 * epsilon)).to(g)
            gate.grad = g

    def _exact(
        self, step: AlphaStep, train: Objective, optimizer: Optimizer, leaves: list[SubGraph], gates: list[Tensor]
    ) -> None:
        if any(len(gate.active) == 1 for leaf in leaves for gate in leaf.values()):
            raise InputError(
                "exact=True needs gates that all candidates share: use the sampler Softmax, or exact=False"
            )
        if any(isinstance(module, Choice) and module.recompute for module in step.net.modules()):
            raise InputError("exact=True cannot recompute, the moved weights are gone by then: pass recompute=False")
        rate = optimizer.param_groups[0]["lr"]
        weights = {n: p for n, p in step.net.named_parameters() if p.requires_grad}
        loss = _mean(step.places, leaves, train)
        grads = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
        moves = self._moves(list(weights.values()), grads, optimizer)
        pairs = zip(weights.items(), moves, strict=True)
        moved = {f"net.{name}": p - rate * move for (name, p), move in pairs if move is not None}
        virtual = _Objective(step.net, step.objective)
        loss = _mean(step.places, leaves, lambda: functional_call(virtual, moved, ()))
        torch.autograd.backward(loss, inputs=gates)

    def _moves(
        self, weights: Sequence[Tensor], grads: Sequence[Tensor | None], optimizer: Optimizer
    ) -> list[Tensor | None]:
        """What the virtual step subtracts, divided by ξ; None for a weight that the loss does not reach."""
        moves = {p: grad for p, grad in zip(weights, grads, strict=True) if grad is not None}
        for group in optimizer.param_groups:
            those = [p for p in group["params"] if p in moves]
            if self.weight_decay:
                _add(moves, {p: p.detach() for p in those}, group["weight_decay"])
            if self.momentum:
                buffers = {p: optimizer.state.get(p, {}).get("momentum_buffer") for p in those}
                _add(
                    moves,
                    {p: buffer for p, buffer in buffers.items() if buffer is not None},
                    group.get("momentum", 0.0),
                )
        return [moves.get(p) for p in weights]


def _add(moves: dict[Tensor, Tensor], others: Mapping[Tensor, Tensor], by: float) -> None:
    """Add ``by · other`` to the moves of the same weights."""
    if others:
        sums = torch._foreach_add([moves[p] for p in others], list(others.values()), alpha=by)
        moves.update(zip(others, sums, strict=True))


class _Objective(nn.Module):
    """A closure over ``net`` as a module that contains it, so that `functional_call` reaches its weights."""

    def __init__(self, net: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.net, self.objective = net, objective

    def forward(self) -> Tensor:
        return self.objective()


def _mean(net: Places, leaves: list[SubGraph], objective: Objective) -> Tensor:
    losses = []
    for leaf in leaves:
        with select(net, leaf):
            losses.append(objective())
    return torch.stack(losses).mean()


def _backward(
    step: AlphaStep, leaves: list[SubGraph], objective: Objective, inputs: Sequence[Tensor]
) -> list[Tensor | None]:
    """Gradients of the mean objective with respect to ``inputs``; their ``.grad`` is None afterwards."""
    mean_backward(step.places, leaves, objective, inputs=[inputs for _ in leaves], scale=step.scale)
    found = [leaf.grad for leaf in inputs]
    for leaf in inputs:
        leaf.grad = None
    return found


@contextmanager
def _moving(weights: Sequence[Tensor]) -> Iterator[Callable[[Sequence[Tensor | None], float], None]]:
    """Gives a function ``(moves, by)`` that sets the weights to ``w + by · move``; restores them exactly on exit."""
    there = [w.detach() for w in weights]
    before = [w.clone() for w in there]

    def move(moves: Sequence[Tensor | None], by: float) -> None:
        torch._foreach_copy_(there, before)
        pairs = [(w, each) for w, each in zip(there, moves, strict=True) if each is not None]
        if pairs:
            torch._foreach_add_([w for w, _ in pairs], [each for _, each in pairs], alpha=by)

    try:
        yield move
    finally:
        torch._foreach_copy_(there, before)
