"""The one exception that a user's own input can cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["InputError", "cut", "shown", "wrong"]

SHOWN = 200  # characters of a value in a message


class InputError(ValueError):
    """Bad input: one line that names the thing, its value and the way out. The command line prints it and exits with
    2."""


def shown(value: object) -> str:
    """A value for a message of one line: a text quoted, anything else as Python writes it, and cut if it is long."""
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN else f"{value[:SHOWN]!r}… ({len(value):,} characters)"
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"


def cut(text: str) -> str:
    """A text for a message of one line, not quoted: what cannot be printed is escaped, and it is cut if it is long."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:SHOWN])
    return line if len(text) <= SHOWN else f"{line}… ({len(text):,} characters)"


def wrong(error: ValidationError) -> str:
    """The first thing that a pydantic model found wrong, for a message of one line: its place, value and the rule."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{place} is missing"
    rule = first["msg"].removeprefix("Value error, ")
    return f"{cut(place)} {shown(first['input'])}: {rule}" if place else rule
