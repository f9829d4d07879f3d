"""The comparison as data frames, as Markdown and as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.table import Table as RichTable

from msgdas.compare.results import SKIP, SearchResult
from msgdas.compare.stats import agreement, expected_best, paired, random_search, spread
from msgdas.compare.tables import Table
from msgdas.report.numbers import NONE, duration, percent, short_seconds

__all__ = ["Part", "epochs_frame", "parts", "results_frame", "to_markdown", "to_rich"]

DRAWS = (1, 10, 100)
VERSIONS = ("msgdas", "python", "torch", "platform", "threads")
EPOCH = ("epoch", "phase", "seconds", "table_accuracy", "derived_accuracy", "valid_accuracy", "skip_share", "genotype")
Results = Mapping[str, Sequence[SearchResult]]  # by method


@dataclass(frozen=True)
class Part:
    """A table of the summary: title, column names, rows, and a note below."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def epochs_frame(results: Results, table: Table | None) -> pd.DataFrame:
    """A row per epoch of every search."""
    accuracy = table.accuracy if table else {}
    rows = [
        {"method": search.method, "seed": search.seed, "table_accuracy": accuracy.get(record["genotype"])} | record
        for searches in results.values()
        for search in searches
        for record in search.records
    ]
    return pd.DataFrame(rows, columns=["method", "seed", *EPOCH]).astype({"table_accuracy": float})


def results_frame(results: Results, table: Table | None) -> pd.DataFrame:
    """A row per search."""
    rows = [
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
        for searches in results.values()
        for search in searches
    ]
    return pd.DataFrame(rows).astype({"table_accuracy": float, "peak_memory_mib": "Int64", "threads": "Int64"})


# --- the summary ---


def parts(
    results: Results, table: Table | None, reference: str | None = None, base_mib: int | None = None
) -> list[Part]:
    """The tables of the summary. ``base_mib``: memory of a process before it searches."""
    frame = results_frame(results, table)
    frame["value"] = frame["table_accuracy"] if table else 100 * frame["derived_accuracy"]  # percent
    agree = {name: agreement([search.genotype for search in searches]) for name, searches in results.items()}
    tables = [_methods(frame, agree, "table %" if table else "shared weights %", base_mib)]
    if table:
        tables += [_against_first(frame), _comparison(frame, table, reference)]
    return [part for part in tables if part.rows]


def _methods(frame: pd.DataFrame, agree: Mapping[str, float], value: str, base_mib: int | None) -> Part:
    rows = [
        [
            name,
            str(len(group)),
            mean_std(group["value"].dropna()),
            two_digits(group["value"].min()),
            percent(agree[name], 0),
            percent(group["skip_share"].mean(), 0),
            short_seconds(group["seconds"].mean()),
            NONE if pd.isna(group["peak_memory_mib"].mean()) else f"{group['peak_memory_mib'].mean():.0f}",
        ]
        for name, group in frame.groupby("method", sort=False)
    ]
    note = (
        f"{value}: mean ± standard deviation over seeds, and the lowest. Agree: fraction of choices on which two seeds "
        f"agree. Skips: fraction of choices that keep '{SKIP}'. Seconds: of the search, without interruptions. MiB: "
        "peak memory of its process. All are means."
    )
    if base_mib:
        note += f" {base_mib:,} MiB of the memory are the program before it searches."
    if value != "table %":
        note += (
            " Shared weights: validation accuracy of the derived sub-graph inside its super-net; it does not tell what "
            "the network reaches when trained from scratch."
        )
    return Part("Methods", ["method", "seeds", value, "lowest", "agree", "skips", "seconds", "MiB"], rows, note)


def _against_first(frame: pd.DataFrame) -> Part:
    by_seed = {
        name: group.set_index("seed")["value"].dropna().to_dict() for name, group in frame.groupby("method", sort=False)
    }
    first, *others = by_seed
    pairs = {other: paired(by_seed[first], by_seed[other]) for other in others}
    rows = [
        [other, str(pair.n), f"{pair.mean:+.2f}{_std(pair.std)}", f"{pair.ahead} of {pair.n}"]
        for other, pair in pairs.items()
        if pair
    ]
    columns = [f"{first} against", "seeds", "difference", "ahead"]
    return Part("Paired by seed", columns, rows, "Points of table accuracy: the first method's minus the other's.")


def _comparison(frame: pd.DataFrame, table: Table, reference: str | None) -> Part:
    values = list(table.accuracy.values())
    rows = []
    if table.seconds:
        seconds = frame.groupby("method", sort=False)["seconds"].mean()
        best = random_search(table, list(seconds)).T
        rows += [
            [f"random search for {duration(s)}, as {name}", mean_std(one), two_digits(one.min())]
            for (name, s), one in zip(seconds.items(), best)
        ]
    rows += [[_draws(n), two_digits(expected_best(values, n)), NONE] for n in DRAWS if n <= len(values)]
    if reference is not None:
        rows.append(["reference", two_digits(table.value(reference)), NONE])
    best_one, best_value = table.best()
    rows.append(["best in the table", two_digits(best_value), NONE])
    note = f"From '{table.source}', {len(values):,} genotypes, column '{table.column}'. The best: `{best_one}`."
    if reference is not None:
        note += f" The reference: `{reference}`."
    if table.seconds:
        note += (
            " Random search: mean ± standard deviation and lowest of 1,000 simulations that train genotypes for the "
            "table's training seconds; until the first is trained, a random one counts. Those seconds were measured on "
            "the table's hardware, a GPU; the searches ran on this machine: equal seconds are not equal work."
        )
    return Part("For comparison", ["", "table %", "lowest"], rows, note)


def _draws(n: int) -> str:
    return "a random genotype, mean" if n == 1 else f"best of {n} random genotypes, mean"


def mean_std(values: Iterable[float]) -> str:
    """``"91.20 ± 0.31"``."""
    over = spread(list(values))
    return f"{over.mean:.2f}{_std(over.std)}" if over else NONE


def two_digits(value: float) -> str:
    """``"91.20"``."""
    return NONE if math.isnan(value) else f"{value:.2f}"


def _std(std: float) -> str:
    return "" if math.isnan(std) else f" ± {std:.2f}"


# --- as text ---


def to_markdown(space: str, tables: Sequence[Part], remarks: Sequence[str]) -> str:
    """The summary as one page."""
    lines = [f"# Comparison in {space}", "", *(f"{remark}\n" for remark in remarks)]
    for part in tables:
        lines += [f"## {part.title}", "", _line(part.columns), _line(["---"] * len(part.columns))]
        lines += [*(_line(row) for row in part.rows), "", part.note, ""]
    return "\n".join(lines).rstrip() + "\n"


def to_rich(part: Part) -> RichTable:
    """The table for a terminal of 80 columns."""
    table = RichTable(
        box=None, pad_edge=False, padding=(0, 1), title_justify="left", title=part.title, title_style="bold"
    )
    for place, name in enumerate(part.columns):
        left = place == 0
        table.add_column(name, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for row in part.rows:
        table.add_row(*row)
    return table


def _line(row: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', '&#124;').replace('~', '&#126;') for text in row)} |"
