"""Hypergradients: how the loss reaches the architecture parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from msgdas.alphas import Alphas
from msgdas.subgraph import Others, SubGraph, cut, select

__all__ = [
    "AlphaStep",
    "Hypergradient",
    "Parts",
    "added",
    "first_order",
    "gather_gradients",
    "mean_backward",
    "probed",
]


@dataclass(frozen=True)
class Parts:
    """A loss as the sum over micro-batches. `mean_backward` runs them one by one, so only one graph is alive."""

    parts: Sequence[Callable[[], Tensor]]

    def __call__(self) -> Tensor:
        return torch.stack([part() for part in self.parts]).sum()


@dataclass(frozen=True)
class AlphaStep:
    """The input of a hypergradient.

    Attributes:
        net: the super-net. During an alpha step its forward passes do not update running statistics.
        alphas: the architecture parameters; the hypergradient accumulates into their ``.grad``.
        subgraphs: the K sub-graphs drawn for this step.
        objective: returns the loss of the currently selected sub-graph on the validation batch, a scalar.
        parallel: keep the K graphs and run one backward pass; same gradients.
        train_objective: like ``objective``, on the training batch of this step.
        weight_optimizer: the optimizer of the weights, at the learning rate of this step.
        generator: CPU generator for random draws.
        scale: factor of the losses in the backward pass (`LossScale`).
        memory: tensors that a hypergradient keeps from step to step, by name; saved with the search.
    """

    net: nn.Module
    alphas: Alphas
    subgraphs: list[SubGraph]
    objective: Callable[[], Tensor]
    parallel: bool = False
    train_objective: Callable[[], Tensor] | None = None
    weight_optimizer: Optimizer | None = None
    generator: torch.Generator | None = None
    scale: float = 1.0
    memory: dict[str, Tensor] = field(default_factory=dict)


Hypergradient = Callable[[AlphaStep], None]


def first_order(step: AlphaStep, *, others: Others | None = None) -> None:
    """``∂(Σ_k L_k / K)/∂a`` through the gates, the weights held fixed (Liu et al. 2019, arXiv:1806.09055, ξ = 0).

    Only the gradients of the gates are requested, so no weight gradient is computed. With hard gates, candidates that
    did not run get no gradient (*picked*), except those that the sampler probes. ``others`` gives all of them one: see
    `cut`.
    """
    leaves, push = cut(step.subgraphs, others=others)
    gates = [[gate.weights for gate in leaf.values()] for leaf in leaves]
    probing = any(gate.probe for leaf in leaves for gate in leaf.values())
    together = step.parallel and not probing  # candidates run in backward, under their own sub-graph's gates
    mean_backward(step.net, leaves, step.objective, parallel=together, inputs=gates, scale=step.scale)
    push()


def probed(step: AlphaStep) -> None:
    """`first_order` over all candidates: those that did not run are run in the backward pass, without gradients."""
    first_order(step, others="probed")


def added(step: AlphaStep) -> None:
    """`first_order` where the zero gate weights of candidates that did not run are added to the output.

    GDAS's public code does this in the NAS-Bench-201 cell (github.com/D-X-Y/AutoDL-Projects). Those candidates get
    ``∂L/∂w_j = ⟨∂L/∂y, 1⟩``, as if each returned ones everywhere.
    """
    first_order(step, others="added")


def mean_backward(
    net: nn.Module,
    subgraphs: Sequence[SubGraph],
    objective: Callable[[], Tensor],
    *,
    parallel: bool = False,
    inputs: Sequence[Sequence[Tensor]] | None = None,
    weights: Sequence[Tensor] = (),
    scale: float = 1.0,
) -> None:
    """Backward pass of the mean objective over ``subgraphs``: one graph alive at a time, or all with ``parallel``.

    Args:
        inputs: for each sub-graph the leaves that get a gradient; default: every parameter, and gates that are leaves.
        weights: parameters whose gradients are gathered between the backward passes (`gather_gradients`).
        scale: multiply the losses by this, and divide the gradients by it afterwards.
    """
    share = len(subgraphs) / scale

    def of(part: Callable[[], Tensor]) -> Tensor:
        return part() if share == 1 else part() / share

    if parallel:
        losses = []
        for subgraph in subgraphs:
            with select(net, subgraph):
                losses.append(of(objective))
        leaves = [leaf for each in inputs for leaf in each] if inputs else None
        torch.autograd.backward(torch.stack(losses).sum(), inputs=leaves)
    else:
        for k, subgraph in enumerate(subgraphs):
            with select(net, subgraph):
                for part in objective.parts if isinstance(objective, Parts) else [objective]:
                    gather_gradients(weights)
                    torch.autograd.backward(of(part), inputs=inputs[k] if inputs else None)
    if scale != 1:
        gates = (gate.weights for subgraph in subgraphs for gate in subgraph.values() if gate.weights.is_leaf)
        reached = chain.from_iterable(inputs) if inputs else chain(net.parameters(), gates)
        torch._foreach_div_([leaf.grad for leaf in dict.fromkeys(reached) if leaf.grad is not None], scale)


def gather_gradients(weights: Sequence[Tensor]) -> None:
    """Move them to one block of memory. Where a backward has left them they lie between the maps that it has freed, and
    the next one's maps find no room of their size there: on a CPU the peak of several paths would be 1.1 times that of
    one."""
    grads = {
        weight: weight.grad
        for weight in weights
        if weight.grad is not None and weight.device.type == "cpu" and weight.grad.layout == torch.strided
    }
    for dtype in {grad.dtype for grad in grads.values()}:
        those = {weight: grad for weight, grad in grads.items() if grad.dtype == dtype}
        block = torch.empty(sum(grad.numel() for grad in those.values()), dtype=dtype)
        parts = torch.split(block, [grad.numel() for grad in those.values()])
        places = [part.as_strided(g.shape, g.stride()) for part, g in zip(parts, those.values(), strict=True)]
        torch._foreach_copy_(places, list(those.values()))
        for weight, place in zip(those, places, strict=True):
            weight.grad = place
