"""Draw a cell as SVG and as text, for any space."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from itertools import chain, pairwise
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from msgdas.report.palette import INK, KINDS, kind_of
from msgdas.spaces.cell_graph import CellGraph

__all__ = ["to_svg", "to_text"]


# --- SVG: dot lays out boxes and wires, we draw them ---

_FONT, _CHAR, _ARROW = 12.0, 7.0, 6.0  # px: text height, a generous mean character width, arrow length
_SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
Point = tuple[float, float]


class _Box(NamedTuple):
    """A laid-out box: centre and size in px, y down."""

    x: float
    y: float
    width: float
    height: float


class _Wire(NamedTuple):
    """A laid-out edge: ids of its ends, and its 3n + 1 Bézier points in px."""

    tail: str
    head: str
    points: list[Point]


def to_svg(graph: CellGraph) -> str:
    """Draw the cell from left to right, as an ``<svg>`` element for HTML without XML header, script, font or link.

    Operations are boxes on the wires, coloured by kind; ``none`` is grey and dashed. Sizes are in px; text is 12 px.
    """
    width, height, boxes, wires = _layout(graph)
    kinds = {f"e{i}": kind_of(label) for i, (_, _, label) in enumerate(graph.edges)}
    parts = chain(
        (_wire(wire, kinds) for wire in wires),
        (_node(boxes[f"n{i}"], name) for i, name in enumerate(graph.nodes)),
        (_operation(boxes[f"e{i}"], edge[2]) for i, edge in enumerate(graph.edges) if f"e{i}" in boxes),
    )
    return (
        f'<svg class="cell" role="img" xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="{_SANS}" font-size="{_FONT:.0f}" text-anchor="middle">'
        f"<title>{escape(graph.name)}</title>" + "".join(parts) + "</svg>"
    )


def _layout(graph: CellGraph, pad: float = 4.0) -> tuple[float, float, dict[str, _Box], list[_Wire]]:
    """Width, height, boxes by id, and wires, in px. Node i has the id ``n{i}``, the operation of edge i ``e{i}``."""
    import pygraphviz  # lazy: only pictures need it

    dot = pygraphviz.AGraph(directed=True, strict=False, rankdir="LR", nodesep="0.22", ranksep="0.36")
    dot.node_attr.update(shape="box", fixedsize="true", label="")
    dot.edge_attr.update(arrowhead="none", arrowsize=str(_ARROW / 10))
    number = {name: f"n{i}" for i, name in enumerate(graph.nodes)}
    for name, node in number.items():
        dot.add_node(node, width=_inches(max(30.0, len(name) * _CHAR + 18)), height=_inches(30))
    for i, (source, target, label) in enumerate(graph.edges):
        if kind_of(label) == "link":
            dot.add_edge(number[source], number[target], arrowhead="normal")
            continue
        dot.add_node(f"e{i}", width=_inches(len(label) * _CHAR + 16), height=_inches(22))
        dot.add_edge(number[source], f"e{i}", headport="w")
        dot.add_edge(f"e{i}", number[target], tailport="e", arrowhead="normal")
    inputs = [number[name] for name in graph.nodes if all(name != target for _, target, _ in graph.edges)]
    dot.add_subgraph(inputs, rank="same")
    for above, below in pairwise(inputs):
        dot.add_edge(above, below, style="invis")  # keeps the inputs in their order
    return _read_plain(dot.draw(format="plain", prog="dot").decode(), pad)


def _inches(px: float) -> str:
    return f"{px / 72:.4f}"


def _read_plain(text: str, pad: float) -> tuple[float, float, dict[str, _Box], list[_Wire]]:
    """Parse dot's ``plain`` format (inches, y up) into px with y down."""
    boxes: dict[str, _Box] = {}
    wires: list[_Wire] = []
    width = height = 0.0
    for words in map(str.split, text.splitlines()):
        if words[0] == "graph":
            width, height = (72 * float(word) for word in words[2:4])
        elif words[0] == "node":
            x, y, w, h = (72 * float(word) for word in words[2:6])
            boxes[words[1]] = _Box(x + pad, height - y + pad, w, h)
        elif words[0] == "edge" and "invis" not in words:
            flat = [72 * float(word) for word in words[4 : 4 + 2 * int(words[3])]]
            points = [(x + pad, height - y + pad) for x, y in zip(flat[::2], flat[1::2], strict=True)]
            wires.append(_Wire(words[1], words[2], points))
    return math.ceil(width + 2 * pad), math.ceil(height + 2 * pad), boxes, wires


def _wire(wire: _Wire, kinds: dict[str, str]) -> str:
    kind = kinds.get(wire.tail) or kinds.get(wire.head) or "link"
    colour = KINDS[kind].stroke
    dash = ' stroke-dasharray="4 3"' if kind == "none" else ""
    (x, y), *rest = wire.points
    curve = f"M{x:.1f} {y:.1f}C" + " ".join(f"{x:.1f} {y:.1f}" for x, y in rest)
    path = f'<path d="{curve}" fill="none" stroke="{colour}" stroke-width="1.4"{dash}/>'
    return path + (_arrow(wire.points[-2], wire.points[-1], colour) if wire.head.startswith("n") else "")


def _arrow(before: Point, end: Point, colour: str) -> str:
    """An arrow head at ``end`` that points in the direction of the curve."""
    dx, dy = end[0] - before[0], end[1] - before[1]
    norm = math.hypot(dx, dy) or 1.0
    dx, dy = dx / norm, dy / norm
    corners = (
        (end[0] + _ARROW * dx, end[1] + _ARROW * dy),
        (end[0] - 3 * dy, end[1] + 3 * dx),
        (end[0] + 3 * dy, end[1] - 3 * dx),
    )
    return f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in corners)}Z" fill="{colour}"/>'


def _node(box: _Box, name: str) -> str:
    return _rect(box, 8.0, f'fill="{INK}"') + _label(box, name, 'fill="#fff" font-weight="600"')


def _operation(box: _Box, label: str) -> str:
    kind = KINDS[kind_of(label)]
    dash = ' stroke-dasharray="4 3"' if kind_of(label) == "none" else ""
    ink = "#7b8794" if kind_of(label) == "none" else INK
    return _rect(box, 11.0, f'fill="{kind.fill}" stroke="{kind.stroke}"{dash}') + _label(box, label, f'fill="{ink}"')


def _rect(box: _Box, radius: float, look: str) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    size = f'width="{box.width:.1f}" height="{box.height:.1f}" rx="{radius:.0f}"'
    return f'<rect x="{left:.1f}" y="{top:.1f}" {size} {look}/>'


def _label(box: _Box, text: str, look: str) -> str:
    return f'<text x="{box.x:.1f}" y="{box.y + 0.35 * _FONT:.1f}" {look}>{escape(text)}</text>'


# --- text ---


def to_text(graph: CellGraph, width: int = 80) -> Text:
    """Draw the cell for a terminal: a line per edge, grouped by target node, in a box of at most ``width`` columns.

    Readable without colour; ``none`` edges are dotted and dim. Names that do not fit end in ``…``. ``.plain`` is the
    string.

    Raises:
        ValueError: ``width`` is below 32.
    """
    if width < 32:
        raise ValueError(f"width {width} is too narrow to draw a cell: at least 32 columns")
    rows = list(_rows(graph, width - 4))
    title = _fit(graph.name, min(_columns(graph.name), width - 6))
    inside = max([_columns(title) + 2, *(row.cell_len for row in rows)])
    lines = [Text(f"╭─ {title} " + "─" * (inside - _columns(title) - 1) + "╮")]
    lines += [Text("│ ") + row + Text(" " * (inside - row.cell_len) + " │") for row in rows]
    lines.append(Text("╰" + "─" * (inside + 2) + "╯"))
    return Text("\n").join(lines)


def _rows(graph: CellGraph, width: int) -> Iterator[Text]:
    """Yield the lines inside the box, each at most ``width`` columns."""
    named = min(max(map(_columns, graph.nodes), default=0), (width - 11) // 3)
    labels = [_columns(label) for _, _, label in graph.edges]
    label_width = min(max(labels, default=0), width - 2 * named - 11)
    computed = {target for _, target, _ in graph.edges}
    chained = False  # no blank line between nodes that have one edge each
    for i, node in enumerate(graph.nodes):
        entering = [(source, label) for source, target, label in graph.edges if target == node]
        if node not in computed:
            yield Text(_fit(node, named), style="bold").append("  input" if _feeds(graph, node) else "  unused", "dim")
            continue
        if i and not (chained and len(entering) == 1):
            yield Text()
        chained = len(entering) == 1
        yield from _node_rows(node, entering, named, label_width)


def _node_rows(node: str, entering: list[tuple[str, str]], named: int, label_width: int) -> Iterator[Text]:
    for i, (source, label) in enumerate(entering):
        only, last = len(entering) == 1, i == len(entering) - 1
        joint = "──" if only else "┬─" if i == 0 else "└─" if last else "├─"
        head = Text(_fit(node, named), style="bold") + Text(" ◀─") if i == 0 else Text(" " * (named + 3))
        yield head + Text(joint) + _edge(label, label_width) + Text(" " + _fit(source, named).rstrip())


def _edge(label: str, width: int) -> Text:
    """Label and the wire to the source, ``" label ────"``, in exactly ``width + 5`` columns."""
    kind = kind_of(label)
    wire = "┄" if kind == "none" else "─"
    if not _clean(label):
        return Text(wire * (width + 5))
    shown = _fit(label, min(_columns(label), width))
    return Text(f" {shown} ", KINDS[kind].style) + Text(
        wire * (width + 3 - _columns(shown)), "dim" if kind == "none" else ""
    )


def _feeds(graph: CellGraph, node: str) -> bool:
    return any(source == node for source, _, _ in graph.edges)


def _clean(name: str) -> str:
    """``name`` on one line."""
    return "".join(c if c.isprintable() else " " for c in name).strip()


def _columns(name: str) -> int:
    return cell_len(_clean(name))


def _fit(name: str, width: int) -> str:
    """Pad ``name`` to exactly ``width`` columns, or cut it with an ellipsis."""
    name = _clean(name)
    return set_cell_size(name, width) if cell_len(name) <= width else set_cell_size(name, width - 1) + "…"
