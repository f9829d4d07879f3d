"""The numbers of a comparison, as functions of lists."""

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

RUNS = 1000  # simulated random searches


class Spread(NamedTuple):
    """``std``: of the sample, NaN for one value."""

    n: int
    mean: float
    std: float
    low: float
    high: float


class Paired(NamedTuple):
    """Differences over common seeds, and in how many of them the first is ahead."""

    n: int
    mean: float
    std: float
    ahead: int


def spread(values: Sequence[float]) -> Spread | None:
    """Of one value or more; ``None`` of none."""
    if not values:
        return None
    std = stdev(values) if len(values) > 1 else math.nan
    return Spread(len(values), fmean(values), std, min(values), max(values))


def paired(first: Mapping[int, float], other: Mapping[int, float]) -> Paired | None:
    """``first - other`` by seed; ``None`` without a common seed."""
    differences = [value - other[seed] for seed, value in first.items() if seed in other]
    found = spread(differences)
    return found and Paired(found.n, found.mean, found.std, sum(one > 0 for one in differences))


def agreement(genotypes: Sequence[Genotype]) -> float:
    """The share of choices on which two of the genotypes agree, mean over all pairs; NaN for fewer than two."""
    shares = []
    for a, b in combinations([genotype.decisions() for genotype in genotypes], 2):
        names = a.keys() | b.keys()
        shares.append(sum(a.get(name) == b.get(name) for name in names) / len(names))
    return fmean(shares) if shares else math.nan


def expected_best(values: Sequence[float], n: int) -> float:
    """The mean of the best of ``n`` different values drawn at random: ``Σ_i v_(i) C(i-1, n-1) / C(N, n)``."""
    ordered, total = sorted(values), len(values)
    n = min(n, total)
    share, mean = n / total, 0.0  # the chance that the largest is drawn, and so on downwards
    for i in range(total, n - 1, -1):
        mean += share * ordered[i - 1]
        share *= (i - n) / (i - 1) if i > 1 else 0.0
    return mean


def random_search(table: Table, seconds: Sequence[float], runs: int = RUNS, seed: int = 0) -> NDArray[np.float64]:
    """The best that simulated random searches know after so many seconds: ``(runs, len(seconds))``.

    A search trains different genotypes of the table one after the other, for the table's training seconds. Until the
    first is trained it holds that one: to pick a genotype takes no time.
    """
    rng = np.random.default_rng(seed)
    accuracy = np.array(list(table.accuracy.values()))
    cost = np.array([table.seconds[genotype] for genotype in table.accuracy])
    draws = min(len(cost), int(max(seconds) // max(cost.min(), 1e-9)) + 1)
    best = np.empty((runs, len(seconds)))
    for run in range(runs):
        drawn = rng.permutation(len(cost))[:draws]
        trained = np.searchsorted(np.cumsum(cost[drawn]), np.asarray(seconds), side="right")
        best[run] = np.maximum.accumulate(accuracy[drawn])[np.maximum(trained, 1) - 1]
    return best
