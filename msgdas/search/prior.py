"""Where the alphas begin: at what an earlier search has learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.runs import Run

__all__ = ["Prior"]


@dataclass(frozen=True)
class Prior:
    """The probabilities of an earlier search, smoothed: ``p ← trust · p + (1 − trust) / O``.

    A shallow super-net learns fast which operations are of use at all, and cannot know what a deep network needs; a
    deep one with uniform sub-graphs hardly learns, since most of them are bad. So the deep search begins where the
    shallow one ended: its warm-up draws from the prior, not uniformly. After P-DARTS (Chen et al. 2019,
    arXiv:1904.12760), which grows the depth and strikes candidates; nothing is struck here.

    Attributes:
        probabilities: choice name → label → probability.
        trust: in [0, 1); the rest is spread evenly, so that nothing is out of reach.

    Raises:
        InputError: ``trust`` is out of range.
    """

    probabilities: Mapping[str, Mapping[str, float]]
    trust: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.trust < 1:
            raise InputError(f"trust={self.trust}: how much of the prior is kept, 0 to below 1")

    @classmethod
    def read(cls, folder: Path, trust: float = 0.6) -> Prior:
        """Of a finished search.

        Raises:
            InputError: no run, one that is not finished, or a damaged one.
        """
        records = Run.open(folder, lock=False).metrics()
        if not records or not (folder / "genotype.json").exists():
            raise InputError(f"prior '{folder}' has not ended: finish it with 'msgdas search --out {folder} --resume'")
        return cls(records[-1]["alphas"], trust)

    @torch.no_grad()
    def begin(self, alphas: Alphas) -> None:
        """Set the logits.

        Raises:
            InputError: the prior is of other choices or candidates.
        """
        for name in alphas.names:
            labels, known = alphas.labels[name], self.probabilities.get(name, {})
            if set(labels) != set(known):
                raise InputError(
                    f"the prior knows {', '.join(known) or 'nothing'} at {name!r}, not {', '.join(labels)}"
                )
            p = torch.tensor([known[label] for label in labels])
            alphas[name].copy_((self.trust * p + (1 - self.trust) / len(p)).log())
