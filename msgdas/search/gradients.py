"""Hypergradients: how the loss reaches the architecture parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.subgraph import Others, SubGraph, cut, select

__all__ = [
    "AlphaStep",
    "Exchange",
    "Hypergradient",
    "added",
    "compare",
    "first_order",
    "log_prob",
    "mean_backward",
    "probed",
]


@dataclass(frozen=True)
class AlphaStep:
    """What a hypergradient works on.

    Attributes:
        net: the super-net; its forwards leave no trace during an alpha step.
        alphas: the architecture parameters, whose ``.grad`` the hypergradient accumulates into.
        subgraphs: the K sub-graphs drawn for this step.
        objective: the loss of the sub-graph selected at the moment on the validation batch, a scalar.
        parallel: keep the K graphs and walk them in one backward; same gradients.
        train_objective: the same on the training batch of this step.
        weight_optimizer: of the weights, at the learning rate of this step.
        generator: CPU generator of all that is drawn.
    """

    net: nn.Module
    alphas: Alphas
    subgraphs: list[SubGraph]
    objective: Callable[[], Tensor]
    parallel: bool = False
    train_objective: Callable[[], Tensor] | None = None
    weight_optimizer: Optimizer | None = None
    generator: torch.Generator | None = None


Hypergradient = Callable[[AlphaStep], None]


def first_order(step: AlphaStep, *, others: Others | None = None) -> None:
    """``∂(Σ_k L_k / K)/∂a`` through the gates, the weights held fixed (Liu et al. 2019, arXiv:1806.09055, ξ = 0).

    Only gate gradients are asked for, so no weight gradient is formed. With hard gates the candidates that did not
    run get none (*picked*) but those that the sampler has probed; ``others`` is for all of them: see `cut`.
    """
    leaves, push = cut(step.subgraphs, others=others)
    gates = [[gate.weights for gate in leaf.values()] for leaf in leaves]
    probing = any(gate.probe for leaf in leaves for gate in leaf.values())
    together = step.parallel and not probing  # candidates run in backward, under their own sub-graph's gates
    mean_backward(step.net, leaves, step.objective, parallel=together, inputs=gates)
    push()


def probed(step: AlphaStep) -> None:
    """`first_order` over all candidates: those that did not run are probed in backward, without grad."""
    first_order(step, others="probed")


def added(step: AlphaStep) -> None:
    """`first_order` where the zero weights of the candidates that did not run are added to the output.

    So GDAS's public code does it in the cell of NAS-Bench-201 (github.com/D-X-Y/AutoDL-Projects): those candidates get
    ``∂L/∂w_j = ⟨∂L/∂y, 1⟩``, as if each had put out a one everywhere.
    """
    first_order(step, others="added")


def compare(step: AlphaStep) -> None:
    """The K losses against each other: the gradient of ``Σ_k (L_k − mean of the other losses) · log prob(s_k) / K``.

    A score-function estimate with a leave-one-out baseline, from K forwards without grad; what K *mutually exclusive*
    sub-graphs give for free. ``log prob(s) = Σ_c log softmax(a_c)[i_c]``. Draws without replacement make it a biased
    estimate of ``∇ E_p[L]``.

    Raises:
        InputError: fewer than two sub-graphs, or a sub-graph that is not a single path.
    """
    _refuse_one(step, "compare")
    with torch.no_grad():
        losses_K = torch.stack([_evaluate(step, subgraph) for subgraph in step.subgraphs])
    log_probs_K = torch.stack([log_prob(step.alphas, subgraph) for subgraph in step.subgraphs])
    _compared(losses_K, log_probs_K).backward()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Exchange:
    """What the K candidates of a choice are worth in the same sub-graph: `compare`, one choice at a time.

    The first sub-graph runs as it was drawn and, for each of ``choices`` choices drawn at random, with the candidate
    that each other sub-graph has there: K losses that differ in nothing else. The gradient is that of
    ``Σ_k (L_k − mean of the other losses) · log softmax(a_c)[i_k] / K``, mean over the choices c, from
    ``1 + choices · (K − 1)`` forwards without grad. Whole sub-graphs that are compared differ at every choice, which is
    noise to each of them; and their other candidates are as unlikely as they themselves are exclusive. The first
    sub-graph of the assignment ``"rank"`` is a draw from ``softmax(a)``: the context that is derived in the end.

    Raises:
        InputError: fewer than two sub-graphs, or one that is not a single path.
    """

    choices: int = 2

    def __post_init__(self) -> None:
        if self.choices < 1:
            raise InputError(f"Exchange(choices={self.choices}): use 1 or more")

    def __call__(self, step: AlphaStep) -> None:
        _refuse_one(step, "exchange")
        first, *others = step.subgraphs
        names = step.alphas.names
        drawn = torch.randperm(len(names), generator=step.generator)[: self.choices].tolist()
        terms = []
        with torch.no_grad():
            base = _evaluate(step, first)
        for name in (names[c] for c in drawn):
            with torch.no_grad():
                swapped = [SubGraph({**first, name: other[name]}) for other in others]
                losses = torch.stack([base, *(_evaluate(step, subgraph) for subgraph in swapped)])
            picks = [_only(name, subgraph[name].active) for subgraph in step.subgraphs]
            terms.append(_compared(losses, step.alphas[name].log_softmax(-1)[picks]))
        torch.stack(terms).mean().backward()  # type: ignore[no-untyped-call]


def _compared(losses_K: Tensor, log_probs_K: Tensor) -> Tensor:
    """``Σ_k (L_k − mean of the other losses) · log prob_k / K``, a scalar."""
    count = len(losses_K)
    advantages_K = (losses_K - losses_K.mean()) * count / (count - 1)
    return (advantages_K.to(log_probs_K) * log_probs_K).mean()


def _refuse_one(step: AlphaStep, gradient: str) -> None:
    if len(step.subgraphs) < 2:
        raise InputError(f"gradient {gradient!r} needs two or more sub-graphs to compare: use k=2 or more, or 'probed'")


def _only(name: str, active: tuple[int, ...]) -> int:
    if len(active) != 1:
        raise InputError(
            f"log probability of a sub-graph that runs {len(active)} candidates at {name!r}: sample single paths"
        )
    return active[0]


def log_prob(alphas: Alphas, subgraph: SubGraph) -> Tensor:
    """``Σ_c log softmax(a_c)[i_c]`` of a single-path sub-graph, a scalar.

    Raises:
        InputError: several candidates run at a choice.
    """
    picks = [_only(name, subgraph[name].active) for name in alphas.names]
    logits_CO = alphas.stack()
    index_C1 = torch.tensor(picks, device=logits_CO.device)[:, None]
    return logits_CO.log_softmax(-1).gather(1, index_C1).sum()


def mean_backward(
    net: nn.Module,
    subgraphs: Sequence[SubGraph],
    objective: Callable[[], Tensor],
    *,
    parallel: bool = False,
    inputs: Sequence[Sequence[Tensor]] | None = None,
) -> None:
    """Backward of the mean objective of ``subgraphs``, one path alive at a time, or all ``parallel``.

    Args:
        inputs: per sub-graph the leaves that get a gradient; default: every parameter.
    """
    if not parallel:
        for k, subgraph in enumerate(subgraphs):
            with select(net, subgraph):
                torch.autograd.backward(objective() / len(subgraphs), inputs=inputs[k] if inputs else None)
        return
    losses = []
    for subgraph in subgraphs:
        with select(net, subgraph):
            losses.append(objective() / len(subgraphs))
    leaves = [leaf for each in inputs for leaf in each] if inputs else None
    torch.autograd.backward(torch.stack(losses).sum(), inputs=leaves)


def _evaluate(step: AlphaStep, subgraph: SubGraph) -> Tensor:
    with select(step.net, subgraph):
        return step.objective()
