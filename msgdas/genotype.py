"""The derived, discrete architecture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgdas.errors import InputError

__all__ = ["Genotype"]


@dataclass(frozen=True, init=False)
class Genotype:
    """What a search found: for each choice the candidates it keeps, and the space they belong to. Hashable.

    Attributes:
        space: name of the space, ``"custom"`` for a network of your own.
        choices: ``((choice name, (kept label, …)), …)``, sorted by name.
    """

    space: str
    choices: tuple[tuple[str, tuple[str, ...]], ...]

    def __init__(self, space: str, choices: Mapping[str, str | Sequence[str]]) -> None:
        kept = {name: (given,) if isinstance(given, str) else tuple(given) for name, given in choices.items()}
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "choices", tuple(sorted(kept.items())))

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return dict(self.choices)[name]

    def share(self, label: str) -> float:
        """The fraction of the choices that keep ``label`` (``"skip_connect"``: the skip share)."""
        return sum(label in kept for _, kept in self.choices) / max(1, len(self.choices))

    def __str__(self) -> str:
        """The official text of its space; without one, ``choice=kept, …``."""
        from msgdas.spaces import SPACES  # the spaces are made of genotypes

        if self.space in SPACES:
            return SPACES[self.space].to_string(self)
        return ", ".join(f"{name}={'+'.join(kept)}" for name, kept in self.choices)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"space": self.space, "choices": {name: list(kept) for name, kept in self.choices}}

    @classmethod
    def from_dict(cls, given: object) -> Genotype:
        """The reverse of `to_dict`.

        Raises:
            InputError: not of that form.
        """
        if not isinstance(given, dict) or not isinstance(given.get("space"), str):
            raise InputError('not a genotype: expected an object with "space" and "choices"')
        choices = given.get("choices")
        if not isinstance(choices, dict) or not all(
            isinstance(kept, list) and kept and all(isinstance(label, str) for label in kept)
            for kept in choices.values()
        ):
            raise InputError('not a genotype: "choices" must map each choice to a non-empty list of labels')
        return cls(given["space"], choices)

    @classmethod
    def read(cls, path: str | Path) -> Genotype:
        """From a JSON file.

        Raises:
            InputError: missing, damaged, or not a genotype; the line names the file.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise InputError(f"genotype {str(path)!r} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:  # InputError is a ValueError
            raise InputError(f"genotype {str(path)!r} is damaged: {error}") from None
