"""The command ``msgdas bench SPACE``: compare methods over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from msgdas.compare.queue import Task, base_memory, run_queue
from msgdas.compare.results import SearchResult, read_result
from msgdas.compare.specs import Spec
from msgdas.compare.tables import Table
from msgdas.errors import InputError
from msgdas.report.numbers import NONE, percent, short_seconds
from msgdas.report.terminal import CountView
from msgdas.runs import Stopped, write_atomic
from msgdas.spaces import find_space

__all__ = ["compare", "find_reference", "make_tasks"]

NOT_COMPARED = {"out", "resume", "data_dir", "download"}  # settings that may differ when a search is resumed
HEADER = f"{'done':>7} {'method':<27} {'seed':>4} {'table':>7} {'shared':>7} {'skips':>5} {'seconds':>9} {'MiB':>5}"


def make_tasks(
    out: Path, specs: Sequence[Spec], seeds: Sequence[int], common: Sequence[str],
    parse: Callable[[list[str]], Mapping[str, Any]],
) -> list[Task]:  # fmt: skip
    """All searches of a comparison, seed by seed, so that the first results can be compared early.

    Args:
        out: the folder of all run folders.
        common: arguments of ``msgdas search`` for all. A method's own override them; ``{seed}`` in them is replaced.
        parse: returns the settings that arguments give.
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
    """The official text of the genotype to compare with; ``None`` if ``text`` is.

    Raises:
        InputError: it is not a genotype of the space, or not in the table.
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
    """Run the searches, then write and print the comparison.

    Args:
        jobs: number of searches at a time.
        reference: text of a genotype to compare with, from `find_reference`.

    Raises:
        InputError: searches failed, or the table lacks genotypes they found; the rest is written.
        Stopped: a signal arrived; the same command goes on. The finished searches are compared.
    """
    progress = _Progress(view, table, len(tasks))
    try:
        try:
            failed = run_queue(out, tasks, jobs=jobs, on_end=progress.end)
        except Stopped:
            _write(out, space, tasks, table, reference)
            raise
        tables = _write(out, space, tasks, table, reference)
    except Stopped as stopped:
        stopped.again = "the same command"
        raise
    for printed in tables:
        view.say("")
        view.console.print(printed)
    if any(task.done for task in tasks):
        view.say(f"\nwritten in {out}:")
        view.say(f"summary.md, results.csv, epochs.csv, skips.svg, skips.png{', plot.svg, plot.png' if table else ''}")
    if failed:
        task, line = failed[0]
        raise InputError(f"{len(failed)} of {len(tasks)} searches failed, first {_name(task)}: {line}")
    if table:
        _refuse_gaps(tasks, table)


class _Progress:
    """Prints a line of 80 columns for each search that ends."""

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
        result = read_result(task)
        value = self._table.accuracy.get(result.text) if self._table else None
        seconds = short_seconds(result.seconds)
        memory = NONE if result.peak_memory_mib is None else f"{result.peak_memory_mib:.0f}"
        self._view.say(
            f"{place:>7} {task.spec.text:<27.27} {task.seed:>4} {NONE if value is None else f'{value:.2f}':>7} "
            f"{100 * result.derived_accuracy:>7.2f} {percent(result.skip_share, 0):>5} {seconds:>9} {memory:>5}"
        )


def _write(
    out: Path, space: str, tasks: Sequence[Task], table: Table | None, reference: str | None
) -> list[RenderableType]:
    """Write the comparison of the finished searches to ``out``; return its tables for a terminal."""
    from msgdas.compare import summary  # lazy: pandas and matplotlib take over a second
    from msgdas.compare.plot import draw, draw_skips

    results = _by_method(tasks)
    if not results:
        return []
    parts = summary.parts(results, table, reference, base_memory(out))
    frames = {"epochs": summary.epochs_frame(results, table), "results": summary.results_frame(results, table)}
    for name, frame in frames.items():
        write_atomic(out / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_atomic(out / "summary.md", summary.to_markdown(space, parts, _remarks(tasks, results)))
    plots = {"skips": draw_skips(results)}
    if table:
        plots["plot"] = draw(results, table, ("reference", table.value(reference)) if reference else None)
    for name, (svg, png) in plots.items():
        write_atomic(out / f"{name}.svg", svg)
        write_atomic(out / f"{name}.png", png)
    return [summary.to_rich(part) for part in parts]


def _by_method(tasks: Sequence[Task]) -> dict[str, list[SearchResult]]:
    """Results of the finished searches, in the order of the methods."""
    by_method: dict[str, list[SearchResult]] = {task.spec.text: [] for task in tasks}
    for task in tasks:
        if task.done:
            by_method[task.spec.text].append(read_result(task))
    return {name: results for name, results in by_method.items() if results}


def _remarks(tasks: Sequence[Task], results: Mapping[str, Sequence[SearchResult]]) -> list[str]:
    """How many searches are done, the settings that all share, and the versions and platform they ran on."""
    searches = [search for one in results.values() for search in one]
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
    """Raise if the table lacks a genotype that a search or one of its epochs found.

    Raises:
        InputError: it does.
    """
    for task in tasks:
        result = read_result(task)
        for text in (result.text, *(record["genotype"] for record in result.records)):
            table.value(text)


def _name(task: Task) -> str:
    return f"{task.spec.text} seed {task.seed}"
