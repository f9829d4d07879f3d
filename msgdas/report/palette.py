"""Colours of cells and curves: an operation has the same hue everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["INK", "KINDS", "MUTED", "SERIES", "Kind", "kind_of", "line_colours"]

INK, MUTED, RULE = "#1f2933", "#7b8794", "#d5dbe1"
SERIES = ("#2563a8", "#d2691e", "#2f855a")
"""Colours of the first, second and third curve that is no operation."""


class Kind(NamedTuple):
    """How one kind of operation looks.

    Attributes:
        fill, stroke: CSS colours of its box in a cell.
        lines: colours of its curves, from dark to light.
        style: rich style of its label in a terminal.
    """

    fill: str
    stroke: str
    lines: tuple[str, ...]
    style: str


KINDS = {
    "conv": Kind("#e6f0fb", "#3b7cc4", ("#1f5fa8", "#4a97e0", "#6d4bb5", "#a277d8", "#173f6b", "#8fb8d9"), "bold blue"),
    "pool": Kind("#e5f5ec", "#3d9970", ("#2f855a", "#5fb387", "#1c5138"), "green"),
    "skip": Kind("#fdf1dc", "#cc8a1d", ("#d9850b", "#a15c07"), "yellow"),
    "none": Kind("#f6f7f8", "#a9b3bd", ("#9aa5b1",), "dim"),
    "other": Kind("#f9e8f0", "#c2528b", ("#c2528b", "#8a2f5f", "#e39ac0", "#5b6b12", "#a3b32b", "#0f7c86"), "magenta"),
    "link": Kind("#ffffff", "#a9b3bd", ("#9aa5b1",), "dim"),
}


def kind_of(label: str) -> str:
    """The kind of an operation by its label: a key of `KINDS`.

    ``""`` and ``"concat"`` are ``"link"``, a wire without an operation, as from a cell's nodes to its output.
    """
    name = label.lower()
    if name in ("", "concat"):
        return "link"
    if name in ("none", "zero", "zeroize"):
        return "none"
    if "skip" in name or "identity" in name:
        return "skip"
    if name.startswith("mb"):  # an inverted residual, such as mb6_5x5
        return "conv"
    return next((kind for kind in ("pool", "conv") if kind in name), "other")


def line_colours(labels: Iterable[str]) -> dict[str, str]:
    """A colour per label, in the hue of its kind. If a kind runs out of colours, they repeat."""
    used: dict[str, int] = {}
    colours = {}
    for label in labels:
        kind = kind_of(label)
        lines = KINDS[kind].lines
        colours[label] = lines[used.get(kind, 0) % len(lines)]
        used[kind] = used.get(kind, 0) + 1
    return colours
