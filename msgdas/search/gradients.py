"""Hypergradients: how the loss reaches the architecture parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from msgdas.alphas import Alphas
from msgdas.subgraph import Others, SubGraph, cut
from msgdas.supernet import Places, all_choices, select

__all__ = [
    "AlphaStep",
    "Hypergradient",
    "Parts",
    "added",
    "first_order",
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
        places: `all_choices` of the net, which saves looking for them in every step.
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
    places: Places = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", self.places or all_choices(self.net))


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
    mean_backward(step.places, leaves, step.objective, parallel=together, inputs=gates, scale=step.scale)
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
    net: nn.Module | Places,
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
        net: the super-net, or its `all_choices`.
        inputs: for each sub-graph the leaves that get a gradient; default: every leaf.
        scale: multiply the losses by this, and divide the gradients by it afterwards: those of ``inputs``; by default
            those of ``weights`` and of the gates.
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
                    torch.autograd.backward(of(part), inputs=inputs[k] if inputs else None)
    if scale != 1:
        gates = (gate.weights for subgraph in subgraphs for gate in subgraph.values() if gate.weights.is_leaf)
        reached = chain.from_iterable(inputs) if inputs else chain(weights, gates)
        torch._foreach_div_([leaf.grad for leaf in dict.fromkeys(reached) if leaf.grad is not None], scale)
