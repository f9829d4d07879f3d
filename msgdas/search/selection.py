"""Select the final architecture on validation data: draw several from the final distribution, keep the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import NamedTuple

import torch

from msgdas.derive import Rule, derive
from msgdas.genotype import Genotype
from msgdas.samplers._relax import gumbel_like
from msgdas.search.search import Batch, Search

__all__ = ["Ranked", "draw", "select_on_validation"]


class Ranked(NamedTuple):
    """An architecture and its accuracy (a fraction) with the shared weights."""

    genotype: Genotype
    accuracy: float


def draw(search: Search, generator: torch.Generator, rule: Rule | None = None) -> Genotype:
    """Draw an architecture from the distribution of the alphas: apply the rule to alphas with added Gumbel noise.

    With `argmax` this draws each candidate with its probability ``softmax(a)`` (the Gumbel-max trick). With `top_edges`
    operations are drawn that way and edges are ranked by their noisy strengths.
    """
    noisy = deepcopy(search.alphas).requires_grad_(False)
    for logits in noisy.logits.values():
        logits += gumbel_like(logits, generator)
    return derive(search.net, noisy, rule)


def select_on_validation(
    search: Search,
    batches: Callable[[], Iterable[Batch]],
    *,
    samples: int,
    seed: int = 0,
    rule: Rule | None = None,
) -> list[Ranked]:
    """Rank the derived architecture and ``samples`` random draws by their accuracy with the shared weights, best first.

    Works for every method and space. In a tie the derived architecture comes first.

    Args:
        batches: returns the validation batches; called once per architecture. Batches must mix the classes, as those of
            `validation_batches` do.
        samples: number of draws.
        seed: seed of the draws.
        rule: derivation rule; default: the network's own (see `derive`).
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = [derive(search.net, search.alphas, rule), *(draw(search, generator, rule) for _ in range(samples))]
    ranked = [Ranked(genotype, search.evaluate(genotype, batches())) for genotype in dict.fromkeys(drawn)]
    return sorted(ranked, key=lambda one: -one.accuracy)
