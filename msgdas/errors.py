"""The one exception that a user's own input can cause, and how values look in a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["InputError", "cut", "one_line", "shown", "wrong"]

SHOWN = 200  # characters of a value in a message
LINE = 1000  # characters of a whole message


class InputError(ValueError):
    """Bad input: one line that names the thing, its value and the way out. The command line prints it and exits with
    2."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


def shown(value: object) -> str:
    """A value for a message of one line: a text quoted, anything else as Python writes it, and cut if it is long."""
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN else f"{value[:SHOWN]!r}… ({len(value):,} characters)"
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"


def cut(text: str) -> str:
    """A text for a message of one line, not quoted: what cannot be printed is escaped, and it is cut if it is long."""
    line = "".join(map(_printable, text[:SHOWN]))
    return line if len(text) <= SHOWN else f"{line}… ({len(text):,} characters)"


def wrong(error: ValidationError) -> str:
    """The first thing that a pydantic model found wrong, for a message of one line: its place, value and the rule."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{place} is missing"
    rule = first["msg"].removeprefix("Value error, ")
    return f"{cut(place)} {shown(first['input'])}: {rule}" if place else rule


def one_line(text: str) -> str:
    """``text`` as one line that any terminal shows: what cannot be printed (line ends, control characters, bytes that
    are not UTF-8) with backslashes, as Python writes it; the middle of more than 1,000 characters left out."""
    text = text if text.isprintable() else "".join(map(_printable, text))
    if len(text) <= LINE:
        return text
    end = LINE // 2 - 20
    return f"{text[:end]}… ({len(text) - 2 * end:,} characters) …{text[-end:]}"


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else repr(character)[1:-1]
