"""Write one offline HTML page per run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from msgdas.errors import one_line
from msgdas.report.graph import to_svg
from msgdas.report.numbers import compact, duration, number, percent, plain
from msgdas.report.records import Record, RunFiles, read_run_files
from msgdas.runs import write_atomic
from msgdas.spaces.cell_graph import CellGraph

__all__ = ["write_report"]

UNPRINTABLE = re.compile(r"[\0-\x09\x0b-\x1f\x7f\ud800-\udfff]")  # names may hold them, HTML may not
SEARCH_COLUMNS = {
    "epoch": "epoch",
    "phase": "phase",
    "train_loss": "train loss",
    "train_accuracy": "train acc.",
    "valid_loss": "valid. loss",
    "valid_accuracy": "valid. acc.",
    "derived_accuracy": "derived acc.",
    "supernet_loss": "super-net loss",
    "supernet_accuracy": "super-net acc.",
    "teacher_accuracy": "teacher acc.",
    "skip_share": "skip share",
    "tau": "tau",
    "drop": "drop",
    "lr": "lr",
    "seconds": "seconds",
}
TRAIN_COLUMNS = {
    "epoch": "epoch",
    "train_loss": "train loss",
    "train_accuracy": "train acc.",
    "val_loss": "val. loss",
    "val_accuracy": "val. acc.",
    "lr": "lr",
    "seconds": "seconds",
}
ACCURACIES = {
    "test_accuracy": "test accuracy",
    "top5_accuracy": "test accuracy, top 5",
    "mean_class_accuracy": "test accuracy, mean over classes",
    "val_accuracy": "validation accuracy",
}


def write_report(run_path: str | Path, graphs: Sequence[CellGraph] = ()) -> Path:
    """Write ``report.html`` into a run folder: one offline page without scripts. Replaces an older page.

    Args:
        run_path: the run folder. For anything missing (no retraining yet, interrupted, damaged), the page has a line.
        graphs: the cells that the search found, drawn in this order.

    Returns:
        The path of the page.

    Raises:
        InputError: ``run_path`` is not a folder or holds no run.
    """
    target = Path(run_path) / "report.html"
    page = _template().render(_context(read_run_files(run_path), graphs))
    write_atomic(target, UNPRINTABLE.sub(lambda found: one_line(found[0]), page))
    return target


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("msgdas.report", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)  # fmt: skip
    environment.filters |= {"percent": percent, "compact": compact, "plain": plain, "duration": duration}
    return environment.get_template("template.html")


# --- parts of the page ---


def _context(run: RunFiles, graphs: Sequence[CellGraph]) -> Record:
    settings = _object(run.config.get("settings"))
    return {
        "name": run.path.resolve().name,
        "settings": {name: _as_given(value) for name, value in settings.items() if value is not None},
        "search_parts": {n: _as_given(v) for n, v in _object(run.config.get("search")).items()},
        "images": _images(_object(run.config.get("dataset"))),
        "train_settings": {n: _as_given(v) for n, v in _object(run.train_config.get("settings")).items()},
        "versions": _object(run.config.get("versions")),
        "space": run.genotype.get("space") or settings.get("space"),
        "method": settings.get("method"),
        "data": settings.get("data"),
        "seed": settings.get("seed"),
        "genotype": _genotype(run),
        "ranked": [one for one in _list(run.genotype.get("ranked")) if isinstance(one, dict)],
        "accuracies": ACCURACIES,
        "result": run.result,
        "params": run.result.get("params", run.genotype.get("params")),
        "macs": run.result.get("macs", run.genotype.get("macs")),
        "problems": run.problems,
        "search_note": _search_note(run, settings),
        "train_note": _train_note(run),
        "searched": bool(run.metrics),
        "last": run.metrics[-1] if run.metrics else {},
        "cells": [(graph.name, Markup(to_svg(graph))) for graph in graphs],
        "figures": _figures(run),
        "per_class": _per_class(run.result),
        "confusion": _confusion(run.result),
        "search_table": _table(run.metrics, SEARCH_COLUMNS),
        "train_table": _table(run.train_metrics, TRAIN_COLUMNS),
        "search_seconds": _seconds(run.metrics),
    }


def _images(seen: Record) -> Record:
    """What the search made of the images: parts, size, augmentation."""
    mirror, form = _object(seen.get("mirror")), _object(seen.get("form"))
    found: Record = {name: seen[name] for name in ("train", "val", "test", "classes") if name in seen}
    if form:
        found["pixels"] = " × ".join(str(form.get(name)) for name in ("channels", "height", "width"))
        found["other shapes"] = form.get("resize")
        for name in ("integers", "floats"):
            if isinstance(form.get(name), list):
                found["values scaled to 8 bits"] = " to ".join(map(str, form[name]))
    if mirror:
        found["mirrored"] = f"{'yes' if mirror.get('on') else 'no'}: {mirror.get('why')}"
    return found


def _object(value: object) -> Record:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _as_given(value: object) -> str:
    """A setting as a user types it: no thousands separators, since it may be a seed."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else plain(value)


def _genotype(run: RunFiles) -> str | None:
    """The genotype as text: the search's result, or that of the last epoch if the search has not ended."""
    genotype = run.genotype.get("string") or (run.metrics[-1].get("genotype") if run.metrics else None)
    if genotype is None and run.genotype:
        genotype = run.genotype.get("choices", run.genotype)
    return None if genotype is None else plain(genotype)


def _search_note(run: RunFiles, settings: Record) -> str | None:
    """What the folder lacks of the search, or ``None``."""
    if not run.metrics:
        return "No epoch of the search is recorded in this folder."
    done, planned = number(run.metrics[-1].get("epoch")), number(settings.get("epochs"))
    if done < planned:
        return (
            f"The search stopped after epoch {done:.0f} of {planned:.0f}: everything below is its state at that point."
        )
    return None if run.genotype else "The search wrote no genotype.json: the genotype is that of the last epoch."


def _train_note(run: RunFiles) -> str | None:
    """What the folder lacks of the retraining, or ``None``."""
    if not run.train_metrics and not run.result:
        return (
            "Not retrained yet, so there is no test accuracy: “msgdas train RUN” trains the found network from scratch."
        )
    if not run.result:
        return f"Retraining has no result yet: {len(run.train_metrics)} epochs recorded, not tested yet."
    return None if run.train_metrics else "The epochs of the retraining are not recorded in this folder."


def _seconds(records: Iterable[Record]) -> float:
    return max((s for s in (number(record.get("seconds")) for record in records) if math.isfinite(s)), default=math.nan)


def _figures(run: RunFiles) -> Record:
    from msgdas.report import plots  # lazy: matplotlib takes half a second to import

    figures: Record = {"alphas": []}
    if run.metrics:
        figures["alphas"] = [(title, Markup(plots.alphas(run.metrics, names))) for title, names in _groups(run.metrics)]
        figures["skip"] = Markup(plots.skip_share(run.metrics))
        figures["losses"] = Markup(plots.losses(run.metrics))
        figures["accuracies"] = Markup(plots.accuracies(run.metrics))
    if run.train_metrics:
        figures["retrain_losses"] = Markup(plots.retrain_losses(run.train_metrics))
        kept = run.result.get("best_epoch")
        figures["retrain_accuracies"] = Markup(plots.retrain_accuracies(run.train_metrics, kept))
    return figures


def _groups(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """Group choices by their name up to the last ``/`` (``normal/0-2``), if that makes a few large groups."""
    names = list(dict.fromkeys(name for record in records for name in _object(record.get("alphas"))))
    groups = [(title, list(members)) for title, members in groupby(names, lambda name: name.rpartition("/")[0])]
    few = 1 < len(groups) <= 4 and all(title and len(members) >= 4 for title, members in groups)
    return groups if few else [("", names)] if names else []


def _per_class(result: Record, most: int = 100) -> Record | None:
    """A title and accuracies by class; of many classes only the lowest."""
    accuracies = [(str(name), number(value)) for name, value in _object(result.get("per_class")).items()]
    known = [(name, value) for name, value in accuracies if not math.isnan(value)]
    if len(known) > most:
        lowest = sorted(known, key=lambda pair: pair[1])[:most]
        return {"title": f"test accuracy per class, the {most} lowest of {len(known):,}", "rows": lowest}
    return {"title": "test accuracy per class", "rows": known} if known else None


def _confusion(result: Record, most: int = 20) -> Record | None:
    """Counts with their fraction of the row, true class down; ``None`` if missing or too large for the page."""
    rows = result.get("confusion")
    if not isinstance(rows, list) or not 0 < len(rows) <= most:
        return None
    if not all(isinstance(row, list) and len(row) == len(rows) for row in rows):
        return None
    names = list(_object(result.get("per_class")))
    names = names if len(names) == len(rows) else [str(i) for i in range(len(rows))]
    return {"names": names, "rows": [_shares(row) for row in rows]}


def _shares(row: list[Any]) -> list[tuple[str, float]]:
    counts = [number(count) for count in row]
    total = math.fsum(c for c in counts if c > 0) or 1.0
    return [(plain(given), 0.0 if math.isnan(count) else count / total) for given, count in zip(row, counts)]


def _table(records: Sequence[Record], columns: dict[str, str]) -> Record | None:
    """Titles and rows of strings of those ``columns`` (``{key: title}``) that have any value."""
    kept = {key: title for key, title in columns.items() if any(record.get(key) is not None for record in records)}
    if not kept:
        return None
    return {
        "titles": list(kept.values()),
        "rows": [[_cell(key, record.get(key)) for key in kept] for record in records],
    }


def _cell(key: str, value: object) -> str:
    if key.endswith("accuracy") or key == "skip_share":
        return percent(value)
    if key == "seconds" and not math.isnan(number(value)):
        return f"{number(value):.1f}"
    return f"{value:.4g}" if isinstance(value, float) and not math.isnan(value) else plain(value)
