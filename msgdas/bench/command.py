"""What ``msgdas bench speed`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from msgdas.bench import memory, speed
from msgdas.bench.rows import Earlier, write_rows
from msgdas.bench.setups import Method, Setting
from msgdas.errors import InputError
from msgdas.report.terminal import CountView

__all__ = ["run"]


def run(
    setting: Setting, methods: Sequence[Method], *, rounds: int, clock: str = "wall",
    with_memory: bool = True, out: Path | None = None, before: Path | None = None, console: Console,
) -> bool:  # fmt: skip
    """Measure, write ``out``, print a table of 80 columns and, with an earlier result ``before``, what has grown.

    Returns:
        Whether nothing has.

    Raises:
        InputError: a file cannot be read or written, or a method or setting is refused.
    """
    if out and out.is_dir():
        raise InputError(f"--out '{out}' is a folder: give a file")
    where = speed.where(setting, clock)
    earlier = Earlier.read(before, where) if before else None
    with CountView(console, "rounds") as view:
        times = speed.measure(setting, methods, rounds=rounds, clock=clock, on_round=view.count)
    used: dict[str, list[float]] = {}
    if with_memory:
        with CountView(console, "processes") as view:
            used = memory.measure(setting, [memory.PLAIN, *methods], on_process=view.count)
    rows = speed.to_rows(times, used, setting)
    if out:
        write_rows(out, rows, where)
    console.print(speed.to_table(rows, list(times), setting), width=80)
    return earlier.tell(rows, console) if earlier else True
