"""Messages are one line that a terminal shows, however odd or long the values."""

import pytest

from msgdas.errors import LINE, InputError, one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain é 图", "plain é 图"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31m\0", r"\x1b[31m\x00"),
        ("caf\udce9", r"caf\xe9"),
        ("\u202ereversed\u2028", r"\u202ereversed\u2028"),
    ],
)
def test_what_cannot_be_printed_is_written_with_backslashes(text, line):
    assert one_line(text) == line
    assert str(InputError(text)) == line


@pytest.mark.parametrize("length", [LINE, LINE + 1, 10_000])
def test_a_long_message_keeps_its_start_and_its_way_out(length):
    line = str(InputError(f"what {'x' * (length - 14)}: way out"))
    assert line.startswith("what x")
    assert line.endswith("x: way out")
    assert len(line) <= LINE
    assert ("characters" in line) == (length > LINE)
    assert one_line(line) == line
