"""The comparison as rows, as Markdown and as tables for a terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rich.table import Table as Shown

from msgdas.compare.results import SKIP, Found
from msgdas.compare.stats import agreement, expected_best, paired, random_search, spread
from msgdas.compare.tables import Table
from msgdas.report.numbers import duration

__all__ = ["Part", "epoch_rows", "parts", "result_rows", "to_csv", "to_markdown", "to_shown"]

DRAWS = (1, 10, 100)
NONE = "–"
VERSIONS = ("msgdas", "python", "torch", "platform", "threads")
Searches = Mapping[str, Sequence[Found]]


@dataclass(frozen=True)
class Part:
    """A table of the summary: a title, the names of its columns, its rows, and what is to be said about it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def epoch_rows(found: Searches, table: Table | None) -> list[dict[str, Any]]:
    """A row per epoch of every search."""
    kept = ("epoch", "phase", "seconds", "derived_accuracy", "valid_accuracy", "skip_share", "genotype")
    return [
        {"method": search.method, "seed": search.seed}
        | {name: record.get(name) for name in kept[:3]}
        | {"table_accuracy": table.accuracy.get(record["genotype"]) if table else None}
        | {name: record.get(name) for name in kept[3:]}
        for searches in found.values()
        for search in searches
        for record in search.records
    ]


def result_rows(found: Searches, table: Table | None) -> list[dict[str, Any]]:
    """A row per search."""
    return [
        {
            "method": search.method,
            "seed": search.seed,
            "table_accuracy": table.accuracy.get(search.text) if table else None,
            "seconds": search.seconds,
            "peak_memory_mib": search.peak_memory_mib,
            "skip_share": search.skip_share,
            "derived_accuracy": search.derived_accuracy,
            "epochs": len(search.records),
            "params": search.params,
            "macs": search.macs,
            "genotype": search.text,
            **{name: search.versions.get(name) for name in VERSIONS},
        }
        for searches in found.values()
        for search in searches
    ]


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lines of values; what is ``None`` is left empty."""
    text = io.StringIO()
    out = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    return text.getvalue()


# ----------------------------------------------------------------------- the summary


def parts(
    found: Searches, table: Table | None, reference: str | None = None, base_mib: int | None = None
) -> list[Part]:
    """The tables of a summary; ``base_mib``: memory of a process before it searches."""
    shown = [_methods(found, table, base_mib)]
    if table:
        shown += [_against_first(found, table), _comparison(found, table, reference)]
    return [part for part in shown if part.rows]


def _methods(found: Searches, table: Table | None, base_mib: int | None) -> Part:
    value = "table %" if table else "shared weights %"
    rows = []
    for name, searches in found.items():
        values = list(_values(searches, table).values())
        memory = [search.peak_memory_mib for search in searches if search.peak_memory_mib is not None]
        rows.append(
            [
                name,
                str(len(searches)),
                mean_std(values),
                f"{min(values):.2f}" if values else NONE,
                percent(agreement([search.genotype for search in searches])),
                percent(fmean(search.skip_share for search in searches)),
                seconds_text(fmean(search.seconds for search in searches)),
                f"{fmean(memory):.0f}" if memory else NONE,
            ]
        )
    note = (
        f"{value}: mean ± standard deviation over seeds, and the lowest. Agree: share of choices on which two seeds "
        f"agree. Skips: share of choices that keep '{SKIP}'. Seconds: of the search, interruptions not counted. MiB: "
        "peak memory of its process. All are means."
    )
    note += f" Of the memory {base_mib:,} MiB are the program, before it searches." if base_mib else ""
    if not table:
        note += (
            " Shared weights: accuracy of the found sub-graph inside its super-net, on validation images; no measure "
        )
        note += "of what it reaches when trained by itself."
    return Part("Methods", ["method", "seeds", value, "lowest", "agree", "skips", "seconds", "MiB"], rows, note)


def _against_first(found: Searches, table: Table) -> Part:
    first, *others = found
    rows = []
    for other in others:
        pair = paired(_values(found[first], table), _values(found[other], table))
        if pair:
            rows.append([other, str(pair.n), f"{pair.mean:+.2f}{_std(pair.std)}", f"{pair.ahead} of {pair.n}"])
    columns = [f"{first} against", "seeds", "difference", "ahead"]
    return Part("Paired by seed", columns, rows, "Points of table accuracy, the first method's minus the other's.")


def _comparison(found: Searches, table: Table, reference: str | None) -> Part:
    values = list(table.accuracy.values())
    rows = []
    if table.seconds:
        seconds = [fmean(search.seconds for search in searches) for searches in found.values()]
        best = random_search(table, seconds).T
        rows += [
            [f"random search for {duration(s)}, as {name}", mean_std(one), f"{one.min():.2f}"]
            for name, s, one in zip(found, seconds, best)
        ]
    draws = [n for n in DRAWS if n <= len(values)]
    rows += [[_draws(n), f"{expected_best(values, n):.2f}", NONE] for n in draws]
    if reference is not None:
        rows.append(["reference", f"{table.value(reference):.2f}", NONE])
    best_one, best_value = table.best()
    rows.append(["best in the table", f"{best_value:.2f}", NONE])
    note = f"From '{table.source}', {len(values):,} genotypes, column '{table.column}'. The best: `{best_one}`."
    if reference is not None:
        note += f" The reference: `{reference}`."
    if table.seconds:
        note += (
            " Random search: mean ± standard deviation and the lowest of 1,000 simulated runs that train genotypes for "
            "the table's training seconds; until the first is trained they hold a random one. Those seconds were "
            "measured on the table's hardware, a GPU; the searches ran on this machine: equal seconds are not equal "
            "work."
        )
    return Part("For comparison", ["", "table %", "lowest"], rows, note)


def _draws(n: int) -> str:
    return "a random genotype, mean" if n == 1 else f"best of {n} random genotypes, mean"


def _values(searches: Sequence[Found], table: Table | None) -> dict[int, float]:
    """Percent by seed: of the table, without one of the shared weights."""
    if table is None:
        return {search.seed: 100 * search.derived_accuracy for search in searches}
    return {search.seed: table.accuracy[search.text] for search in searches if search.text in table.accuracy}


def mean_std(values: Iterable[float]) -> str:
    found = spread(list(values))
    return f"{found.mean:.2f}{_std(found.std)}" if found else NONE


def percent(share: float) -> str:
    return NONE if math.isnan(share) else f"{100 * share:.0f} %"


def seconds_text(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _std(std: float) -> str:
    return "" if math.isnan(std) else f" ± {std:.2f}"


# ------------------------------------------------------------------------- as text


def to_markdown(space: str, shown: Sequence[Part], remarks: Sequence[str]) -> str:
    """One page."""
    lines = [f"# Comparison in {space}", "", *(f"{remark}\n" for remark in remarks)]
    for part in shown:
        lines += [f"## {part.title}", "", _line(part.columns), _line(["---"] * len(part.columns))]
        lines += [*(_line(row) for row in part.rows), "", part.note, ""]
    return "\n".join(lines).rstrip() + "\n"


def to_shown(part: Part) -> Shown:
    """For a terminal of 80 columns."""
    shown = Shown(box=None, pad_edge=False, padding=(0, 1), title_justify="left", title=part.title, title_style="bold")
    for place, name in enumerate(part.columns):
        left = place == 0
        shown.add_column(name, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for row in part.rows:
        shown.add_row(*row)
    return shown


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;').replace('~', '&#126;') for cell in cells)} |"
