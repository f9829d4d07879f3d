"""Hypergradients from the losses of exclusive sub-graphs: which of them did better, and so what they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.search.gradients import AlphaStep
from msgdas.subgraph import SubGraph
from msgdas.supernet import select

__all__ = ["Exchange", "compare", "log_probs", "ranked", "refuse_one"]

MOMENTUM = 0.05  # of the mean advantages of `ranked`


def compare(step: AlphaStep) -> None:
    """The K losses against each other: the gradient of ``Σ_k (L_k − mean of the other losses) · log prob(s_k) / K``.

    A score-function estimate with a leave-one-out baseline, from K forwards without grad; what K *mutually exclusive*
    sub-graphs give for free. ``log prob(s) = Σ_c log softmax(a_c)[i_c]``. Draws without replacement make it a biased
    estimate of ``∇ E_p[L]``.

    Raises:
        InputError: fewer than two sub-graphs, or a sub-graph that is not a single path.
    """
    refuse_one(len(step.subgraphs), "compare")
    _reinforce(step, _advantages(_losses(step)))


def ranked(step: AlphaStep) -> None:
    """`compare` where each sub-graph is judged by what is usual for its place: its advantage over the others, less the
    running mean of that of the k-th sub-graphs before it.

    Of the assignment ``"rank"`` the first sub-graph is made of likely candidates, which the weights know best, and wins
    against the others whatever it is; `compare` takes that for a merit of each of its candidates, and the likeliest
    ones become certain before anything has been learned about them. Less what is usual there, only what makes this
    first sub-graph better than other first ones is left. It stays a biased estimate of ``∇ E_p[L]``: the first is a
    draw from ``softmax(a)``, but the losses that it is compared with are of what it left to the others.

    Raises:
        InputError: fewer than two sub-graphs, or a sub-graph that is not a single path.
    """
    refuse_one(len(step.subgraphs), "ranked")
    advantages_K = _advantages(_losses(step))
    usual_K = step.memory.get("advantages", advantages_K).to(advantages_K)
    step.memory["advantages"] = usual_K.lerp(advantages_K, MOMENTUM)
    _reinforce(step, advantages_K - usual_K)


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
        refuse_one(len(step.subgraphs), "exchange")
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
            terms.append(_surrogate(_advantages(losses), step.alphas[name].log_softmax(-1)[_index(picks, base)]))
        torch.stack(terms).mean().backward()  # type: ignore[no-untyped-call]


def _losses(step: AlphaStep) -> Tensor:
    """Of the sub-graphs, ``(K,)``, without grad."""
    with torch.no_grad():
        return torch.stack([_evaluate(step, subgraph) for subgraph in step.subgraphs])


def _advantages(losses_K: Tensor) -> Tensor:
    """``L_k − mean of the other losses``."""
    count = len(losses_K)
    return (losses_K - losses_K.mean()) * count / (count - 1)


def _surrogate(advantages_K: Tensor, log_probs_K: Tensor) -> Tensor:
    """``Σ_k advantage_k · log prob_k / K``, a scalar."""
    return (advantages_K.to(log_probs_K) * log_probs_K).mean()


def _reinforce(step: AlphaStep, advantages_K: Tensor) -> None:
    _surrogate(advantages_K, log_probs(step.alphas, step.subgraphs)).backward()  # type: ignore[no-untyped-call]


def refuse_one(k: int, gradient: str) -> None:
    """Raises:
    InputError: fewer than two sub-graphs.
    """
    if k < 2:
        raise InputError(f"gradient {gradient!r} needs two or more sub-graphs to compare: use k=2 or more, or 'probed'")


def _only(name: str, active: tuple[int, ...]) -> int:
    if len(active) != 1:
        raise InputError(
            f"log probability of a sub-graph that runs {len(active)} candidates at {name!r}: sample single paths"
        )
    return active[0]


def log_probs(alphas: Alphas, subgraphs: Sequence[SubGraph]) -> Tensor:
    """``Σ_c log softmax(a_c)[i_c]`` of single-path sub-graphs, ``(K,)``.

    Raises:
        InputError: several candidates run at a choice.
    """
    picks = [[_only(name, subgraph[name].active) for subgraph in subgraphs] for name in alphas.names]
    logits_CO = alphas.stack()
    return logits_CO.log_softmax(-1).gather(1, _index(picks, logits_CO)).sum(0)


def _index(picks: Sequence[Any], like: Tensor) -> Tensor:
    """On the device of ``like``, for which the host does not wait."""
    return torch.tensor(picks).to(like.device, non_blocking=True)


def _evaluate(step: AlphaStep, subgraph: SubGraph) -> Tensor:
    with select(step.net, subgraph):
        return step.objective()
