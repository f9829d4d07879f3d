"""The command ``msgdas bench speed`` as a function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from msgdas.bench import memory, speed
from msgdas.bench.rows import Earlier, write_rows
from msgdas.bench.setups import Contender, Setting
from msgdas.errors import InputError
from msgdas.report.terminal import CountView

__all__ = ["run"]


def run(
    setting: Setting, contenders: Sequence[Contender], *, rounds: int, clock: str = "wall",
    with_memory: bool = True, out: Path | None = None, before: Path | None = None, console: Console,
) -> bool:  # fmt: skip
    """Measure, write the result to ``out`` and print a table of 80 columns.

    Args:
        before: an earlier result to compare with; ratios that have grown are printed.

    Returns:
        Whether no ratio has grown; True without ``before``.

    Raises:
        InputError: a file cannot be read or written, or a method or setting is refused.
    """
    if out and out.is_dir():
        raise InputError(f"--out '{out}' is a folder: give a file")
    where = speed.where(setting, clock)
    earlier = Earlier.read(before, where) if before else None
    with CountView(console, "rounds") as view:
        times = speed.measure(setting, contenders, rounds=rounds, clock=clock, on_round=view.count)
    used: dict[str, list[float]] = {}
    if with_memory:
        with CountView(console, "processes") as view:
            used = memory.measure(setting, [memory.PLAIN, *contenders], on_process=view.count)
    rows = speed.to_rows(times, used, setting)
    if out:
        write_rows(out, rows, where)
    console.print(speed.to_table(rows, list(times), setting), width=80)
    return earlier.tell(rows, console) if earlier else True
