"""What to compare: methods with options, and seeds, from the texts of the command line."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from msgdas.errors import InputError
from msgdas.jobs.commands import METHOD_OPTIONS, SEARCH_OPTIONS
from msgdas.methods import METHODS

__all__ = ["Spec", "parse_methods", "parse_seeds"]

OF_RUN = ("prior", "trust", "epochs", "warmup", "channels", "cells", "batch_size", "samples", "images")
OPTIONS = (*METHOD_OPTIONS, *SEARCH_OPTIONS, *OF_RUN)
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


def parse_methods(text: str) -> list[Spec]:
    """``"msgdas:k=1,msgdas:k=3:drop=0,gdas"``.

    Raises:
        InputError: a method or an option is not known, or one is given twice.
    """
    specs = [_spec(part.strip()) for part in text.split(",") if part.strip()]
    if not specs:
        raise InputError(f"--methods {text!r}: name one or more of {', '.join(METHODS)}")
    names = [spec.folder for spec in specs]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InputError(f"--methods: {specs[place].text!r} is there twice: leave one out")
    return specs


def parse_seeds(text: str) -> list[int]:
    """``"3"``, ``"0-3"`` or ``"0,2,5"``.

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


def _spec(text: str) -> Spec:
    method, *options = text.split(":")
    if method not in METHODS:
        raise InputError(f"--methods {text!r}: method {method!r} is not known: use {', '.join(METHODS)}")
    return Spec(text, method, tuple(_option(text, method, option) for option in options))


def _option(text: str, method: str, option: str) -> tuple[str, str]:
    name, equals, value = option.partition("=")
    name = name.strip().replace("-", "_")
    own = set(METHOD_OPTIONS) & set(inspect.signature(METHODS[method]).parameters)
    known = [_dashed(one) for one in OPTIONS if one in own or one not in METHOD_OPTIONS]
    if not (equals and value.strip()):
        raise InputError(f"--methods {text!r}: {option!r} is no option=value, such as k=3")
    if _dashed(name) not in known:
        raise InputError(f"--methods {text!r}: {name!r} is no option of {method} here: use {', '.join(known)}")
    return name, value.strip()


def _dashed(name: str) -> str:
    return name.replace("_", "-")
