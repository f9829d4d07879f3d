"""Plot the results of searches over time and over epochs, as SVG and PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from msgdas.compare.results import SearchResult
from msgdas.compare.stats import random_search
from msgdas.compare.tables import Table
from msgdas.report.palette import INK, MUTED, SERIES
from msgdas.report.plots import STYLE

__all__ = ["draw", "draw_skips"]

COLOURS = (*SERIES, "#6d4bb5", "#c2528b", "#0f7c86", "#8f9a1f", "#8a2f5f")
LINES = ("-", "--", ":")
TRAINED = 20  # trained genotypes that the curve of random search covers
SIMULATIONS = 300  # of random search, for its curve


def draw(
    results: Mapping[str, Sequence[SearchResult]], table: Table, reference: tuple[str, float] | None = None
) -> tuple[bytes, bytes]:
    """Table accuracy over seconds: a line per method, the mean over seeds, in a band from lowest to highest.

    Lines are thin during the warm-up.

    Args:
        results: finished searches by method.
        reference: name and accuracy of a horizontal line.

    Returns:
        SVG and PNG.
    """
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "bench"}):
        figure = Figure(figsize=(9.2, 5.2), layout="constrained", facecolor="white")
        axes = FigureCanvasAgg(figure).figure.add_subplot()
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:,g}")
        curves = [_curve(searches, table) for searches in results.values()]
        for (name, searches), curve, look in zip(results.items(), curves, _looks(len(results))):
            _line(axes, curve, searches, name, *look)
        ends = [curve[0][-1] for curve in curves if len(curve[0])]
        starts = [curve[0][0] for curve in curves if len(curve[0])]
        if table.seconds and ends:
            _random(axes, table, min(starts), max(ends))
        _level(axes, table.best()[1], "best in the table", INK)
        if reference:
            _level(axes, reference[1], reference[0], MUTED)
        axes.set_ylim(*_limits([value for curve in curves for value in curve[1:].ravel()], table, reference))
        axes.set_xlabel("seconds: of a search on this machine; of random search, training seconds in the table")
        axes.set_ylabel(f"accuracy in the table ({table.column}), %")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9.5)
        return _saved(figure, "svg"), _saved(figure, "png")


def draw_skips(results: Mapping[str, Sequence[SearchResult]]) -> tuple[bytes, bytes]:
    """Fraction of skip connections in the derived network over epochs, from the end of the warm-up on.

    A line per method, the mean over seeds, in a band from lowest to highest.

    Returns:
        SVG and PNG.
    """
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "bench"}):
        figure = Figure(figsize=(9.2, 4.4), layout="constrained", facecolor="white")
        axes = FigureCanvasAgg(figure).figure.add_subplot()
        for (name, searches), (colour, line) in zip(results.items(), _looks(len(results))):
            length = min(len(search.records) for search in searches)
            first = max(0, _warm(searches, length) - 1)
            epochs = np.arange(first, length) + 1
            shares = 100 * np.array([[r["skip_share"] for r in s.records[first:length]] for s in searches])
            axes.fill_between(epochs, shares.min(0), shares.max(0), color=colour, alpha=0.14, linewidth=0)
            label = _label(name, searches)
            axes.plot(epochs, shares.mean(0), color=colour, linestyle=line, label=label, marker="o", markersize=3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("skip connections in the derived network, %")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9.5)
        return _saved(figure, "svg"), _saved(figure, "png")


def _warm(searches: Sequence[SearchResult], length: int) -> int:
    """Number of warm-up epochs."""
    return sum(record.get("phase") == "warmup" for record in searches[0].records[:length])


def _label(name: str, searches: Sequence[SearchResult]) -> str:
    return f"{name}, {len(searches)} seed{'s' if len(searches) > 1 else ''}"


def _curve(searches: Sequence[SearchResult], table: Table) -> Any:
    """``(4, epochs)``: seconds, mean, lowest and highest accuracy of the epochs that all searches completed."""
    epochs = min(len(search.records) for search in searches)
    seconds = np.array([[record["seconds"] for record in search.records[:epochs]] for search in searches])
    values = np.array([[table.accuracy.get(r["genotype"], math.nan) for r in s.records[:epochs]] for s in searches])
    return np.stack([np.maximum(seconds.mean(0), 1e-3), values.mean(0), values.min(0), values.max(0)])


def _line(axes: Axes, curve: Any, searches: Sequence[SearchResult], name: str, colour: str, line: str) -> None:
    seconds, mean, low, high = curve
    first = min(max(0, _warm(searches, len(seconds)) - 1), len(seconds) - 1)
    axes.plot(seconds[: first + 1], mean[: first + 1], color=colour, linewidth=0.8, alpha=0.6)
    axes.fill_between(seconds[first:], low[first:], high[first:], color=colour, alpha=0.14, linewidth=0)
    axes.plot(seconds[first:], mean[first:], color=colour, linestyle=line, label=_label(name, searches), zorder=3)
    axes.plot(seconds[-1:], mean[-1:], color=colour, marker="o", markersize=5, zorder=4)


def _random(axes: Axes, table: Table, start: float, end: float) -> None:
    end = max(end, TRAINED * float(np.mean(list(table.seconds.values()))))
    seconds = np.geomspace(start, end, 160)
    mean = random_search(table, list(seconds), SIMULATIONS).mean(0)
    axes.plot(seconds, mean, color=MUTED, linestyle=(0, (4, 2)), label="random search, mean", zorder=2)


def _level(axes: Axes, value: float, name: str, colour: str) -> None:
    text = name if len(name) <= 26 else f"{name[:25]}…"
    axes.axhline(value, color=colour, linewidth=1, linestyle=(0, (1, 2)), label=f"{text}, {value:.2f}", zorder=1)


def _limits(values: Sequence[float], table: Table, reference: tuple[str, float] | None) -> tuple[float, float]:
    """y limits: from the lowest value drawn, or the table's mean, to the best in the table."""
    levels = [*values, table.best()[1], float(np.mean(list(table.accuracy.values()))), *(reference or ())[1:]]
    low, high = np.nanmin(levels), np.nanmax(levels)
    room = 0.05 * max(high - low, 0.1)
    return float(low - room), float(high + room)


def _looks(count: int) -> list[tuple[str, str]]:
    """Colour and line style of each method; after the last colour they repeat with dashes."""
    return [(COLOURS[i % len(COLOURS)], LINES[i // len(COLOURS) % len(LINES)]) for i in range(count)]


def _saved(figure: Figure, form: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=130, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()
