"""The one exception that a user's own input can cause, and how values look in a message."""

__all__ = ["InputError", "one_line", "shown"]

SHOWN = 200  # characters of a value in a message
LINE = 1000  # characters of a whole message


class InputError(ValueError):
    """Bad input: one line that names the thing, its value and the way out. The command line prints it and exits with
    2."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


def shown(value: str) -> str:
    """A value for a message of one line: quoted, and cut if it is long."""
    return repr(value) if len(value) <= SHOWN else f"{value[:SHOWN]!r}… ({len(value):,} characters)"


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
