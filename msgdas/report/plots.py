"""Curves of a run as SVG elements for HTML. No pyplot, no state between calls, no embedded fonts."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from msgdas.report.numbers import number
from msgdas.report.palette import INK, MUTED, RULE, SERIES, kind_of, line_colours
from msgdas.report.records import Record, series

__all__ = ["accuracies", "alphas", "losses", "retrain_accuracies", "retrain_losses", "skip_share"]

STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e9edf1",
    "grid.linewidth": 1.0,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "text.color": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "legend.columnspacing": 1.6,
    "legend.borderaxespad": 0.0,
    "legend.borderpad": 0.0,
}
_SANS = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif"
_WIDE, _HALF = 980.0, 470.0  # px
_WARMUP = "#f1f4f7"


def losses(records: Sequence[Record]) -> str:
    """Loss per search epoch: of the weight steps (train half) and the alpha steps (validation half)."""
    lines = {"weights, train half": "train_loss", "alphas, validation half": "valid_loss"}
    return _curves("losses", records, lines, warmup=True)


def accuracies(records: Sequence[Record]) -> str:
    """Accuracy per search epoch of the derived sub-graph, and of a super-net that learns or teaches; warm-up shaded."""
    learns = any(r.get("supernet_accuracy") is not None for r in records)  # then the teacher is the same pass
    supernet = {"super-net": "supernet_accuracy"} if learns else {"super-net teacher": "teacher_accuracy"}
    lines = {"derived sub-graph": "derived_accuracy", **supernet}
    return _curves("accuracies", records, lines, warmup=True, percent=True)


def retrain_losses(records: Sequence[Record]) -> str:
    """Train and validation loss per epoch of retraining."""
    return _curves("retrain-losses", records, {"train": "train_loss", "validation": "val_loss"})


def retrain_accuracies(records: Sequence[Record], best_epoch: int | None = None) -> str:
    """Train and validation accuracy per epoch of retraining; ``best_epoch``, whose weights were kept, is marked."""
    lines = {"train": "train_accuracy", "validation": "val_accuracy"}
    mark = next((r for r in records if best_epoch is not None and r.get("epoch") == best_epoch), {})

    def draw(axes: Axes) -> list[Any]:
        place = number(mark.get("epoch")), number(mark.get("val_accuracy"))
        if any(map(math.isnan, place)):
            return []
        look: dict[str, Any] = {"marker": "o", "markersize": 6.5, "markerfacecolor": "white", "linestyle": "none"}
        look |= {
            "markeredgecolor": SERIES[1],
            "markeredgewidth": 1.8,
            "zorder": 5,
            "label": f"kept, epoch {best_epoch}",
        }
        return list(axes.plot(place[0], place[1], **look))

    return _curves("retrain-accuracies", records, lines, percent=True, extra=draw)


def skip_share(records: Sequence[Record]) -> str:
    """Fraction of skip connections in the derived cell per epoch, with a tick where the genotype changed."""
    with _figure(_WIDE, 170) as (figure, finish):
        axes = figure.add_axes(_inside(_WIDE, 170, top=34))
        epochs, share = _epochs(records), series(list(records), "skip_share")
        _axes(axes, epochs, percent=True)
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        shade = _shade_warmup(axes, records)
        axes.fill_between(epochs, share, color="#fdf1dc", linewidth=0)
        axes.plot(epochs, share, color="#d9850b", **_marker(epochs))
        changes = _changes(records, epochs)
        axes.vlines(changes, 0, 0.07, color=INK, linewidth=1.6)
        handles = [
            Line2D([], [], color="#d9850b", label="skip share of the derived cell"),
            Line2D([], [], color=INK, marker="|", markersize=8, mew=1.6, linestyle="none", label="genotype changed"),
            *shade,
        ]
        _legend(axes, handles)
        return finish("skip-share")


def alphas(records: Sequence[Record], names: Sequence[str] | None = None) -> str:
    """Probability of every candidate per epoch: a panel per choice, a line per candidate, one legend.

    A panel's title is its choice and, in its colour, the leading candidate of the last epoch.

    Args:
        records: records of epochs; ``"alphas"`` is ``{choice: {candidate: probability}}``.
        names: choices to draw, in this order; default: all.
    """
    shown = list(names if names is not None else _choices(records))
    candidates = _candidates(records, shown)
    colours = line_colours(candidates)
    columns = min(3 if len(shown) <= 9 else 4, max(1, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    legend_columns = _legend_columns(candidates)
    top = 16.0 + 18.0 * math.ceil(len(candidates) / legend_columns)
    panel = 148.0 if columns <= 3 else 116.0
    height = top + rows * panel + 30
    with _figure(_WIDE, height) as (figure, finish):
        grid = figure.add_gridspec(
            rows, columns, left=38 / _WIDE, right=1 - 6 / _WIDE, top=1 - (top + 22) / height, bottom=34 / height,
            wspace=0.12, hspace=0.42 if columns <= 3 else 0.52,
        )  # fmt: skip
        ceiling = _ceiling(records, shown)
        for place, name in enumerate(shown):
            axes = figure.add_subplot(grid[divmod(place, columns)])
            _alpha_panel(axes, records, name, colours, ceiling, panel_chars=int(_WIDE / columns / 6.6))
            axes.tick_params(labelleft=place % columns == 0, labelbottom=place + columns >= len(shown))
        handles = [Line2D([], [], color=colours[c], linestyle=_dash(c)) for c in candidates]
        figure.legend(handles, [_visible(c) for c in candidates], ncols=legend_columns, loc="upper left",
                      bbox_to_anchor=(38 / _WIDE, 1 - 4 / height), fontsize=10.5)  # fmt: skip
        return finish(f"alphas-{'-'.join(shown)}")


# --- panels and lines ---


def _curves(
    name: str, records: Sequence[Record], lines: dict[str, str], *, warmup: bool = False, percent: bool = False,
    extra: Callable[[Axes], list[Any]] = lambda axes: [],
) -> str:  # fmt: skip
    """One half-width panel. ``lines`` is ``{label: key}``; keys without any number are left out."""
    with _figure(_HALF, 260) as (figure, finish):
        axes = figure.add_axes(_inside(_HALF, 260, top=34))
        epochs = _epochs(records)
        _axes(axes, epochs, percent)
        handles: list[Any] = []
        for (label, key), colour in zip(lines.items(), SERIES):
            values = series(list(records), key)
            if not all(map(math.isnan, values)):
                handles += axes.plot(epochs, values, color=colour, label=label, **_marker(epochs))
        handles += extra(axes)
        _keep_inside(axes, percent)
        handles += _shade_warmup(axes, records) if warmup else []
        _legend(axes, handles)
        return finish(name)


def _alpha_panel(
    axes: Axes, records: Sequence[Record], name: str, colours: dict[str, str], ceiling: float, panel_chars: int
) -> None:
    epochs = _epochs(records)
    per_epoch = [_probabilities(record, name) for record in records]
    present = [c for c in colours if any(c in probabilities for probabilities in per_epoch)]
    last = next((probabilities for probabilities in reversed(per_epoch) if probabilities), {})
    leader = _leader(last)
    _axes(axes, epochs, percent=True, ticks=5, label=False)
    axes.set_ylim(0, ceiling)
    axes.yaxis.set_major_locator(MaxNLocator(5 if panel_chars > 40 else 3, steps=[1, 2, 2.5, 5, 10]))
    _shade_warmup(axes, records)
    for candidate in present:
        values = [number(probabilities.get(candidate)) for probabilities in per_epoch]
        wide = 2.0 if candidate == leader else 1.2
        axes.plot(epochs, values, color=colours[candidate], linestyle=_dash(candidate), linewidth=wide,
                  zorder=3 if candidate == leader else 2, **_marker(epochs))  # fmt: skip
    title = _short(name, panel_chars // 2)
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, pad=5)
    shown = _short(leader or "undecided", max(6, panel_chars - len(title) - 2))
    colour = MUTED if leader is None or kind_of(leader) == "none" else colours[leader]
    axes.set_title(shown, loc="right", fontsize=10.5, color=colour, pad=5)


def _leader(probabilities: Record, margin: float = 1e-3) -> str | None:
    """The candidate with the largest probability; ``None`` if the next one equals it, as in the warm-up."""
    ranked = sorted(probabilities, key=lambda c: _or(number(probabilities[c]), -1.0), reverse=True)
    if len(ranked) > 1 and not number(probabilities[ranked[0]]) - number(probabilities[ranked[1]]) > margin:
        return None
    return ranked[0] if ranked else None


def _axes(axes: Axes, epochs: Sequence[float], percent: bool, ticks: int = 8, label: bool = True) -> None:
    low, high = (epochs[0], epochs[-1]) if epochs else (0.0, 1.0)
    room = max(0.5, 0.015 * (high - low))
    axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if percent:
        axes.yaxis.set_major_formatter(lambda fraction, _: f"{100 * fraction:.4g}\u202f%")
    if label:
        axes.set_xlabel("epoch")


def _changes(records: Sequence[Record], epochs: Sequence[float]) -> list[float]:
    """The epochs whose genotype differs from that of the previous epoch."""
    genotypes = [record.get("genotype") for record in records]
    return [epoch for epoch, before, now in zip(epochs[1:], genotypes, genotypes[1:]) if before != now]


def _keep_inside(axes: Axes, percent: bool) -> None:
    """Add a margin above and below; accuracies stay between 0 and 100 %."""
    axes.margins(y=0.08)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0) if percent else low, min(high, 1.005) if percent else high)


def _shade_warmup(axes: Axes, records: Sequence[Record]) -> list[Patch]:
    """Shade the epochs whose phase is ``"warmup"``; return the legend's handles, empty without a warm-up."""
    warm = [number(record.get("epoch")) for record in records if record.get("phase") == "warmup"]
    if not warm:
        return []
    left, _ = axes.get_xlim()
    axes.axvspan(left, max(warm) + 0.5, color=_WARMUP, linewidth=0, zorder=0)
    return [Patch(facecolor="#e3e8ed", linewidth=0, label="warm-up")]


def _legend(axes: Axes, handles: list[Any]) -> None:
    if handles:
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.9, ncols=len(handles))


def _epochs(records: Sequence[Record]) -> list[float]:
    return [_or(number(record.get("epoch")), float(i)) for i, record in enumerate(records, 1)]


def _probabilities(record: Record, name: str) -> Record:
    alphas = record.get("alphas")
    choice = alphas.get(name) if isinstance(alphas, dict) else None
    return choice if isinstance(choice, dict) else {}


def _choices(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for r in records if isinstance(r.get("alphas"), dict) for name in r["alphas"]))


def _candidates(records: Sequence[Record], names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(c for name in names for record in records for c in _probabilities(record, name)))


def _ceiling(records: Sequence[Record], names: Sequence[str]) -> float:
    """Upper end of the shared y axis: the largest probability plus a margin, at most 1.03."""
    values = (number(p) for name in names for r in records for p in _probabilities(r, name).values())
    return min(1.03, 1.12 * max((p for p in values if not math.isnan(p)), default=1.0))


def _marker(epochs: Sequence[float]) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3.5} if len(epochs) <= 4 else {}


def _dash(candidate: str) -> Any:
    return (0, (3, 2)) if kind_of(candidate) == "none" else "-"


def _or(value: float, instead: float) -> float:
    return instead if math.isnan(value) else value


def _short(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: max(1, chars - 1)] + "…"


def _visible(label: str) -> str:
    """matplotlib's legends omit labels that start with an underscore: put a zero-width space before it."""
    return "\u200b" + label if label.startswith("_") else label


def _legend_columns(labels: Sequence[str]) -> int:
    """Number of legend entries per row: as many as fit, in rows of equal length."""
    widest = max(map(len, labels), default=1) * 6.1 + 42
    most = max(1, min(len(labels), int((_WIDE - 38) / widest)))
    return math.ceil(len(labels) / math.ceil(len(labels) / most)) if labels else 1


# --- SVG ---


def _inside(width: float, height: float, top: float) -> tuple[float, float, float, float]:
    """Position of the axes in a figure of ``width`` x ``height`` px: (left, bottom, width, height) as fractions."""
    left, bottom, right = 44.0, 42.0, 8.0
    return left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Callable[[str], str]]]:
    """Yield a figure of ``width`` x ``height`` px in our style, and a function that returns it as an SVG element."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72), facecolor="none")
        FigureCanvasSVG(figure)

        def finish(name: str) -> str:
            matplotlib.rcParams["svg.hashsalt"] = name  # same input, same bytes; ids are unique within a page
            for axes in figure.axes:
                axes.patch.set_visible(False)
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
            return _compact(buffer.getvalue(), name)

        yield figure, finish


def _compact(svg: str, name: str) -> str:
    """Only the ``<svg>`` element: coordinates to 0.1 px, no unused ids, the reader's own font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r"(\d\.\d)\d+(?=[^<>]*>)", r"\1", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", _SANS, svg)
    svg = re.sub(r"<g>\s*</g>", "", re.sub(r"\n\s*", " ", svg))
    return svg.replace("<svg ", f'<svg class="plot" role="img" aria-label="{re.sub("[^a-z0-9]+", " ", name)}" ', 1)
