"""What to compare: methods with options, and seeds, from texts such as ``msgdas:k=3,gdas`` and ``0-2``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from msgdas.errors import InputError
from msgdas.methods import METHODS

__all__ = ["Spec", "parse_methods", "parse_seeds"]

Options = Callable[[str], Collection[str]]
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Spec:
    """A method with options, ``METHOD:option=value:…``.

    Attributes:
        text: as it was given, and what the tables call it.
        options: by their names in Python.
    """

    text: str
    method: str
    options: tuple[tuple[str, str], ...]

    @property
    def folder(self) -> str:
        """A name for a folder."""
        return re.sub(r"[^\w.=+-]+", "-", self.text)

    def arguments(self) -> list[str]:
        """For ``msgdas search``."""
        return [f"--method={self.method}", *(f"--{_dashed(name)}={value}" for name, value in self.options)]


def parse_methods(text: str, options: Options) -> list[Spec]:
    """Methods from ``"msgdas:k=1,msgdas:k=3:drop=0,gdas"``.

    Args:
        options: gives the names of the options that a method takes here, as Python has them.

    Raises:
        InputError: a method or an option is not known, or a method is given twice.
    """
    specs = [_spec(part.strip(), options) for part in text.split(",") if part.strip()]
    if not specs:
        raise InputError(f"--methods {text!r}: name one or more of {', '.join(METHODS)}")
    names = [spec.folder for spec in specs]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InputError(f"--methods: {specs[place].text!r} is given twice: leave one out")
    return specs


def parse_seeds(text: str) -> list[int]:
    """Seeds from ``"3"``, ``"0-3"`` or ``"0,2,5"``.

    Raises:
        InputError: not of this form.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 <= high - low < MOST_SEEDS:
            raise InputError(f"--seeds {text!r}: give 3, 0-3 or 0,2,5")
        seeds += range(low, high + 1)
    return list(dict.fromkeys(seeds))


def _spec(text: str, options: Options) -> Spec:
    method, *given = text.split(":")
    if method not in METHODS:
        raise InputError(f"--methods {text!r}: method {method!r} is not known: use {', '.join(METHODS)}")
    known = list(map(_dashed, options(method)))
    return Spec(text, method, tuple(_option(text, method, option, known) for option in given))


def _option(text: str, method: str, option: str, known: Collection[str]) -> tuple[str, str]:
    name, equals, value = option.partition("=")
    name = name.strip().replace("_", "-")
    if not (equals and value.strip()):
        raise InputError(f"--methods {text!r}: {option!r} is not an option=value, such as k=3")
    if name not in known:
        raise InputError(f"--methods {text!r}: {name!r} is not an option of {method} here: use {', '.join(known)}")
    return name.replace("-", "_"), value.strip()


def _dashed(name: str) -> str:
    return name.replace("_", "-")
