"""The one exception that a user's own input can cause."""

__all__ = ["InputError", "shown"]

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
