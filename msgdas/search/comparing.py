"""Hypergradients that compare the losses of mutually exclusive sub-graphs (score-function estimates)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.search.gradients import AlphaStep, Hypergradient
from msgdas.subgraph import SubGraph
from msgdas.supernet import select

__all__ = ["Exchange", "compare", "compares", "log_probs", "ranked", "refuse_one"]

MOMENTUM = 0.05  # of the running mean in `ranked`


def compare(step: AlphaStep) -> None:
    """Compare the K losses: the gradient of ``Σ_k (L_k − mean of the other losses) · log prob(s_k) / K``.

    A score-function estimate with a leave-one-out baseline, from K forward passes without gradients, where
    ``log prob(s) = Σ_c log softmax(a_c)[i_c]``. Because sub-graphs are drawn without replacement, it is a biased
    estimate of ``∇ E_p[L]``.

    Raises:
        InputError: fewer than two sub-graphs, or a sub-graph that is not a single path.
    """
    refuse_one(len(step.subgraphs), "compare")
    _reinforce(step, _advantages(_losses(step)))


def ranked(step: AlphaStep) -> None:
    """`compare` with a baseline for each rank: the running mean of the advantages that the k-th sub-graphs had before.

    With the assignment ``"rank"``, the first sub-graph consists of likely candidates, which the shared weights know
    best, so it usually beats the others. `compare` credits its candidates with that, and the likeliest become certain
    before anything is learned about them. Subtracting the baseline leaves how much this first sub-graph beats the usual
    first one. The estimate of ``∇ E_p[L]`` stays biased: the first sub-graph is a draw from ``softmax(a)``, but it is
    compared with sub-graphs made of what it left over.

    Raises:
        InputError: fewer than two sub-graphs, or a sub-graph that is not a single path.
    """
    refuse_one(len(step.subgraphs), "ranked")
    advantages_K = _advantages(_losses(step))
    baseline_K = step.memory.get("advantages", advantages_K).to(advantages_K)
    step.memory["advantages"] = baseline_K.lerp(advantages_K, MOMENTUM)
    _reinforce(step, advantages_K - baseline_K)


@dataclass(frozen=True)
class Exchange:
    """`compare` one choice at a time: exchange the candidate at one choice and keep the rest of the sub-graph.

    The first sub-graph runs as drawn and then, for each of ``choices`` randomly drawn choices, with the candidate that
    each other sub-graph has there. These K losses differ in nothing else. The gradient is that of
    ``Σ_k (L_k − mean of the other losses) · log softmax(a_c)[i_k] / K``, averaged over the drawn choices c, from
    ``1 + choices · (K − 1)`` forward passes without gradients. Comparing whole sub-graphs is noisier, because they
    differ at every choice. With the assignment ``"rank"`` the first sub-graph is a draw from ``softmax(a)``, close to
    the architecture that is derived in the end.

    Args:
        choices: number of choices to exchange in each step.

    Raises:
        InputError: ``choices`` below 1; fewer than two sub-graphs, or one that is not a single path.
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
            terms.append(_surrogate(_advantages(losses), _wide(step.alphas[name]).log_softmax(-1)[_index(picks, base)]))
        torch.stack(terms).mean().backward()  # type: ignore[no-untyped-call]


def _losses(step: AlphaStep) -> Tensor:
    """The losses of the sub-graphs, ``(K,)``, without gradients."""
    with torch.no_grad():
        return torch.stack([_evaluate(step, subgraph) for subgraph in step.subgraphs])


def _advantages(losses_K: Tensor) -> Tensor:
    """``L_k − mean of the other losses``."""
    count, losses_K = len(losses_K), _wide(losses_K)
    return (losses_K - losses_K.mean()) * count / (count - 1)


def _wide(values: Tensor) -> Tensor:
    """In float64, where the device has it. The advantages sum to zero, so a candidate that no sub-graph picked has the
    gradient zero; rounded to float32 it is 1e-9, which Adam would scale up to a step."""
    return values if values.device.type == "mps" else values.double()


def _surrogate(advantages_K: Tensor, log_probs_K: Tensor) -> Tensor:
    """``Σ_k advantage_k · log prob_k / K``, a scalar."""
    return (advantages_K.to(log_probs_K) * log_probs_K).mean()


def _reinforce(step: AlphaStep, advantages_K: Tensor) -> None:
    _surrogate(advantages_K, log_probs(step.alphas, step.subgraphs)).backward()  # type: ignore[no-untyped-call]


def compares(hypergradient: Hypergradient | None) -> bool:
    """Whether a hypergradient compares the losses of sub-graphs."""
    return hypergradient in (compare, ranked) or isinstance(hypergradient, Exchange)


def refuse_one(k: int, gradient: str) -> None:
    """
    Raises:
        InputError: fewer than two sub-graphs, so nothing to compare.
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
    """Log-probabilities ``Σ_c log softmax(a_c)[i_c]`` of single-path sub-graphs, ``(K,)``.

    Raises:
        InputError: several candidates run at a choice.
    """
    picks = [[_only(name, subgraph[name].active) for subgraph in subgraphs] for name in alphas.names]
    logits_CO = _wide(alphas.stack())
    return logits_CO.log_softmax(-1).gather(1, _index(picks, logits_CO)).sum(0)


def _index(picks: Sequence[Any], like: Tensor) -> Tensor:
    """``picks`` as a tensor on the device of ``like``, without waiting for the device."""
    return torch.tensor(picks).to(like.device, non_blocking=True)


def _evaluate(step: AlphaStep, subgraph: SubGraph) -> Tensor:
    with select(step.places, subgraph):
        return step.objective()
