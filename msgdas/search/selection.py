"""Selection on validation: of architectures drawn from the final distribution, the best with the shared weights."""

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
    """An architecture from the distribution that the alphas stand for: the rule on alphas with Gumbel noise.

    For `argmax` that is a draw of each candidate with its probability ``softmax(a)`` (the Gumbel-max trick); for
    `top_edges` the operations are drawn so and the edges by their noisy strengths.
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
    """What the rule derives and ``samples`` draws, ranked by accuracy with the shared weights, the best first.

    For every method and every space. Of equals the likelier derived one stays before the draws.

    Args:
        batches: gives the validation batches, anew for each architecture; of mixed classes, as `validation_batches`.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = [derive(search.net, search.alphas, rule), *(draw(search, generator, rule) for _ in range(samples))]
    ranked = [Ranked(genotype, search.evaluate(genotype, batches())) for genotype in dict.fromkeys(drawn)]
    return sorted(ranked, key=lambda one: -one.accuracy)
