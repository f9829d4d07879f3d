"""Statistics of a comparison, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msgdas.compare.tables import Table
from msgdas.genotype import Genotype

__all__ = ["Paired", "Spread", "agreement", "expected_best", "paired", "random_search", "spread"]

SIMULATIONS = 1000  # random searches


class Spread(NamedTuple):
    """Count, mean, sample standard deviation (NaN for one value), lowest and highest."""

    n: int
    mean: float
    std: float
    low: float
    high: float


class Paired(NamedTuple):
    """Number of common seeds, mean and standard deviation of the differences, and how often the first is ahead."""

    n: int
    mean: float
    std: float
    ahead: int


def spread(values: Sequence[float]) -> Spread | None:
    """Summarise one or more values; ``None`` for none."""
    if not values:
        return None
    std = stdev(values) if len(values) > 1 else math.nan
    return Spread(len(values), fmean(values), std, min(values), max(values))


def paired(first: Mapping[int, float], other: Mapping[int, float]) -> Paired | None:
    """Differences ``first - other`` by seed; ``None`` without a common seed."""
    differences = [value - other[seed] for seed, value in first.items() if seed in other]
    over = spread(differences)
    return over and Paired(over.n, over.mean, over.std, sum(one > 0 for one in differences))


def agreement(genotypes: Sequence[Genotype]) -> float:
    """Fraction of choices on which two genotypes agree, averaged over all pairs; NaN for fewer than two."""
    shares = []
    for a, b in combinations([genotype.decisions() for genotype in genotypes], 2):
        names = a.keys() | b.keys()
        shares.append(sum(a.get(name) == b.get(name) for name in names) / len(names))
    return fmean(shares) if shares else math.nan


def expected_best(values: Sequence[float], n: int) -> float:
    """Expected maximum of ``n`` of the ``N`` values drawn without replacement: ``Σ_i v_(i) C(i-1, n-1) / C(N, n)``."""
    ordered, total = sorted(values), len(values)
    n = min(n, total)
    share, mean = n / total, 0.0  # probability that the largest is drawn, then the next
    for i in range(total, n - 1, -1):
        mean += share * ordered[i - 1]
        share *= (i - n) / (i - 1) if i > 1 else 0.0
    return mean


def random_search(
    table: Table, seconds: Sequence[float], simulations: int = SIMULATIONS, seed: int = 0
) -> NDArray[np.float64]:
    """Best accuracy of simulated random searches after each of ``seconds``: ``(simulations, len(seconds))``.

    A search trains distinct genotypes of the table one after the other; each takes the table's training seconds. Until
    the first is trained, its accuracy counts already: picking a genotype takes no time.
    """
    rng = np.random.default_rng(seed)
    accuracy = np.array(list(table.accuracy.values()))
    cost = np.array([table.seconds[genotype] for genotype in table.accuracy])
    draws = min(len(cost), int(max(seconds) // max(cost.min(), 1e-9)) + 1)
    best = np.empty((simulations, len(seconds)))
    for row in best:
        drawn = rng.permutation(len(cost))[:draws]
        trained = np.searchsorted(np.cumsum(cost[drawn]), np.asarray(seconds), side="right")
        row[:] = np.maximum.accumulate(accuracy[drawn])[np.maximum(trained, 1) - 1]
    return best
