"""What ``msgdas bench`` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgdas.compare.queue import QueueStopped, Task, base_memory, run_queue
from msgdas.compare.results import Found, read_found
from msgdas.compare.specs import Spec
from msgdas.compare.summary import (
    Part,
    epoch_rows,
    parts,
    percent,
    result_rows,
    seconds_text,
    to_csv,
    to_markdown,
    to_shown,
)
from msgdas.compare.tables import Table
from msgdas.errors import InputError
from msgdas.report.terminal import CountView
from msgdas.runs import write_atomic
from msgdas.spaces import find_space

__all__ = ["compare", "find_reference", "plan"]

NOT_COMPARED = {"out", "resume", "data_dir", "download"}  # settings that may differ when a search goes on
HEADER = f"{'done':>7} {'method':<27} {'seed':>4} {'table':>7} {'shared':>7} {'skips':>5} {'seconds':>9} {'MiB':>5}"


def plan(
    out: Path, specs: Sequence[Spec], seeds: Sequence[int], common: Sequence[str],
    parse: Callable[[list[str]], Mapping[str, Any]],
) -> list[Task]:  # fmt: skip
    """All searches, seed by seed, so that what is there early on can be compared.

    Args:
        common: arguments of ``msgdas search`` that all have. A method's own win, with the seed for ``{seed}`` in them.
        parse: gives the settings that arguments mean.
    """
    tasks = []
    for seed in seeds:
        for spec in specs:
            own = [argument.replace("{seed}", str(seed)) for argument in spec.arguments()]
            arguments = [*common, *own, f"--seed={seed}"]
            meant = parse(list(arguments))
            asked = {n: v for n, v in meant.items() if v not in (None, False) and n not in NOT_COMPARED}
            tasks.append(Task(spec, seed, out / spec.folder / f"seed-{seed}", arguments, asked))
    return tasks


def find_reference(text: str | None, space: str, table: Table | None) -> str | None:
    """The official text of a genotype to compare with, if one is asked for.

    Raises:
        InputError: it is none of the space, or not in the table.
    """
    if text is None:
        return None
    if table is None:
        raise InputError("--reference needs --table: the value of a genotype comes from there")
    genotype = str(find_space(space).from_string(text.removeprefix(f"{space}:")))
    table.value(genotype)
    return genotype


def compare(
    out: Path, space: str, tasks: Sequence[Task], *, view: CountView, jobs: int = 1, table: Table | None = None,
    reference: str | None = None,
) -> None:  # fmt: skip
    """Do the searches, then write and print what they found.

    Raises:
        InputError: some failed, or the table lacks what they found; the rest is written.
        QueueStopped: a signal came. What is finished is written.
    """
    told = _Told(view, table, len(tasks))
    try:
        failed = run_queue(out, tasks, jobs=jobs, on_end=told.end)
    except QueueStopped:
        _write(out, space, tasks, table, reference)
        raise
    for part in _write(out, space, tasks, table, reference):
        view.say("")
        view.console.print(to_shown(part))
    if any(task.done for task in tasks):
        view.say(f"\nwritten in {out}:")
        view.say(f"summary.md, results.csv, epochs.csv, skips.svg, skips.png{', plot.svg, plot.png' if table else ''}")
    if failed:
        task, line = failed[0]
        raise InputError(f"{len(failed)} of {len(tasks)} searches failed, first {_name(task)}: {line}")
    if table:
        _refuse_gaps(tasks, table)


class _Told:
    """A line of 80 columns for each search."""

    def __init__(self, view: CountView, table: Table | None, count: int) -> None:
        self._view, self._table, self._count, self._done = view, table, count, 0

    def end(self, task: Task, failure: str | None) -> None:
        if not self._done:
            self._view.say(HEADER)
        self._done += 1
        place = f"{self._done}/{self._count}"
        self._view.count(self._done, self._count)
        if failure is not None:
            text = f"{place:>7} {task.spec.text:<27.27} {task.seed:>4} failed: "
            self._view.say(f"{text}{failure:.{max(0, 79 - len(text))}}")
            return
        found = read_found(task)
        value = self._table.accuracy.get(found.text) if self._table else None
        memory = "–" if found.peak_memory_mib is None else f"{found.peak_memory_mib:.0f}"
        self._view.say(
            f"{place:>7} {task.spec.text:<27.27} {task.seed:>4} {'–' if value is None else f'{value:.2f}':>7} "
            f"{100 * found.derived_accuracy:>7.2f} {percent(found.skip_share):>5} {seconds_text(found.seconds):>9} "
            f"{memory:>5}"
        )


def _write(out: Path, space: str, tasks: Sequence[Task], table: Table | None, reference: str | None) -> list[Part]:
    from msgdas.compare.plot import draw, draw_skips  # here: it takes half a second

    found = _by_method(tasks)
    if not found:
        return []
    shown = parts(found, table, reference, base_memory(out))
    write_atomic(out / "epochs.csv", to_csv(epoch_rows(found, table)))
    write_atomic(out / "results.csv", to_csv(result_rows(found, table)))
    write_atomic(out / "summary.md", to_markdown(space, shown, _remarks(tasks, found)))
    plots = {"skips": draw_skips(found)}
    if table:
        plots["plot"] = draw(found, table, ("reference", table.value(reference)) if reference else None)
    for name, (svg, png) in plots.items():
        write_atomic(out / f"{name}.svg", svg)
        write_atomic(out / f"{name}.png", png)
    return shown


def _by_method(tasks: Sequence[Task]) -> dict[str, list[Found]]:
    found: dict[str, list[Found]] = {}
    for task in tasks:
        if task.done:
            found.setdefault(task.spec.text, []).append(read_found(task))
    order = list(dict.fromkeys(task.spec.text for task in tasks))
    return {name: found[name] for name in order if name in found}


def _remarks(tasks: Sequence[Task], found: Mapping[str, Sequence[Found]]) -> list[str]:
    """Settings that all share, how much is done, and what the searches ran on."""
    searches = [search for one in found.values() for search in one]
    shared = [name for name in tasks[0].asked if all(t.asked.get(name) == tasks[0].asked[name] for t in tasks)]
    given = [
        f"{name.replace('_', '-')} {tasks[0].asked[name]}" for name in shared if name not in ("space", "seed", "method")
    ]
    lines = [f"{len(searches)} of {len(tasks)} searches are done. All have: {', '.join(given)}."]
    for name in ("msgdas", "torch", "platform", "threads"):
        values = list(dict.fromkeys(str(search.versions.get(name)) for search in searches))
        if len(values) > 1:
            lines.append(f"The searches differ in {name}: {', '.join(values)}.")
    one = searches[0].versions
    lines.append(
        f"msgdas {one.get('msgdas')}, torch {one.get('torch')}, {one.get('platform')}, {one.get('cpus')} CPUs."
    )
    return lines


def _refuse_gaps(tasks: Sequence[Task], table: Table) -> None:
    """Raises:
    InputError: a genotype that an epoch or a search found is not in the table.
    """
    for task in tasks:
        found = read_found(task)
        for text in (found.text, *(record["genotype"] for record in found.records)):
            table.value(text)


def _name(task: Task) -> str:
    return f"{task.spec.text} seed {task.seed}"
