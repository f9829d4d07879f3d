"""Start a search from the result of an earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from msgdas.alphas import Alphas
from msgdas.errors import InputError, cut, wrong
from msgdas.runs import Run

__all__ = ["Prior"]

PROBABILITIES = TypeAdapter(
    dict[str, dict[str, Annotated[float, Field(ge=0, le=1)]]], config=ConfigDict(strict=True, allow_inf_nan=False)
)


@dataclass(frozen=True)
class Prior:
    """The probabilities of an earlier search, smoothed: ``p ← trust · p + (1 − trust) / O``.

    A shallow super-net quickly learns which operations are useful at all, but not what a deep network needs. A deep one
    trained with uniform sub-graphs learns slowly, because most of them are bad. So the deep search starts where the
    shallow one ended, and its warm-up draws from the prior instead of uniformly. Follows P-DARTS (Chen et al. 2019,
    arXiv:1904.12760), which deepens the network in stages and removes candidates; here no candidate is removed.

    Attributes:
        probabilities: choice name → label → probability.
        trust: weight of the prior, in [0, 1); the rest is spread evenly, so that every candidate stays possible.

    Raises:
        InputError: ``trust`` is out of range.
    """

    probabilities: Mapping[str, Mapping[str, float]]
    trust: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.trust < 1:
            raise InputError(f"trust={self.trust}: the weight of the prior, from 0 to below 1")

    @classmethod
    def read(cls, folder: Path, trust: float = 0.6) -> Prior:
        """Read the final probabilities from the run folder of a search.

        Raises:
            InputError: not a run folder, a damaged one, or the search has not finished.
        """
        records = Run.open(folder, lock=False).metrics()
        if not records or not (folder / "genotype.json").exists():
            way_out = f"finish it with 'msgdas search --out {folder} --resume'"
            raise InputError(f"prior '{folder}' has not finished: {way_out}")
        try:
            return cls(PROBABILITIES.validate_python(records[-1].get("alphas")), trust)
        except ValidationError as error:
            raise InputError(f"prior '{folder}' has damaged alphas ({wrong(error)}): give another --prior") from None

    @torch.no_grad()
    def begin(self, alphas: Alphas) -> None:
        """Set the logits to those of the smoothed probabilities.

        Raises:
            InputError: the prior has other choices or candidates.
        """
        for name in alphas.names:
            labels, known = alphas.labels[name], self.probabilities.get(name, {})
            if set(labels) != set(known):
                there = cut(", ".join(known)) if known else "nothing"
                raise InputError(f"the prior knows {there} at {name!r}, not {', '.join(labels)}")
            p = torch.tensor([known[label] for label in labels])
            alphas[name].copy_((self.trust * p + (1 - self.trust) / len(p)).log())
