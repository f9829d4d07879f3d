"""Cells as pictures and as text."""

import re
from xml.etree import ElementTree

import pytest

from msgdas.report import to_svg, to_text
from msgdas.spaces.cell_graph import CellGraph

NODES = ("node 0", "node 1", "node 2", "node 3")
EDGES = (
    ("node 0", "node 1", "nor_conv_3x3"),
    ("node 0", "node 2", "avg_pool_3x3"),
    ("node 1", "node 2", "skip_connect"),
    ("node 0", "node 3", "none"),
    ("node 2", "node 3", "nor_conv_1x1"),
)
CELL = CellGraph("cell", NODES, EDGES)
WIRED = CellGraph("normal", ("in", "a", "out"), (("in", "a", "sep"), ("in", "a", "sep"), ("a", "out", "")))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_svg_holds_every_node_and_every_operation():
    assert sorted(texts(to_svg(CELL))) == sorted([*NODES, *(label for _, _, label in EDGES)])


def test_svg_is_ready_for_html():
    svg = to_svg(CELL)
    assert svg.startswith("<svg ")
    assert svg.endswith("</svg>")
    assert not re.search(r"href|@import|<script|url\(", svg)


def test_svg_keeps_every_box_inside_the_picture():
    root = ElementTree.fromstring(to_svg(CELL))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, w, h = (float(rect.get(key, "nan")) for key in ("x", "y", "width", "height"))
        assert min(x, y) >= 0
        assert x + w <= width
        assert y + h <= height


def test_svg_dashes_none_and_only_none():
    assert to_svg(CELL).count("stroke-dasharray") == 3  # the box and the wires on both its sides
    assert "stroke-dasharray" not in to_svg(WIRED)


def test_svg_draws_parallel_edges_and_bare_wires():
    svg = to_svg(WIRED)
    assert texts(svg).count("sep") == 2
    assert "" not in texts(svg)
    assert svg.count('fill="none"') == 5  # two wires per operation, one without


@pytest.mark.parametrize("name", ["<b>", "a & b", '"quoted"', "back\\N slash", "ünïcode"])
def test_svg_takes_any_name_as_it_is(name):
    assert sorted(texts(to_svg(CellGraph(name, (name, "y"), ((name, "y", name),))))) == sorted([name, name, "y"])


def test_svg_is_the_same_every_time():
    assert to_svg(CELL) == to_svg(CELL)


def test_cell_without_edges_is_drawn():
    assert texts(to_svg(CellGraph("empty", ("only",), ()))) == ["only"]
    assert "only" in to_text(CellGraph("empty", ("only",), ())).plain


def test_text_names_everything():
    text = to_text(CELL).plain
    for source, _, label in EDGES:
        assert re.search(rf"{label} .*{source}", text)
    assert "node 1 ◀" in text
    assert "┄" in text


def test_text_is_grouped_by_target():
    lines = to_text(CELL).plain.splitlines()
    start = next(i for i, line in enumerate(lines) if "node 3 ◀─┬─ none" in line)
    assert "└─ nor_conv_1x1" in lines[start + 1]


def test_text_dims_none():
    text = to_text(CELL)
    assert any(span.style == "dim" and "none" in text.plain[span.start : span.end] for span in text.spans)


@pytest.mark.parametrize("width", [32, 60, 80])
@pytest.mark.parametrize("size", [1, 30, 200])
@pytest.mark.parametrize("letter", ["x", "層"])
def test_text_fits(width, size, letter):
    from rich.cells import cell_len

    long = letter * size
    graph = CellGraph(long, (long, f"{long}2"), ((long, f"{long}2", f"conv{long}"), (long, f"{long}2", "none")))
    widths = {cell_len(line) for line in to_text(graph, width).plain.splitlines()}
    assert len(widths) == 1
    assert max(widths) <= width


def test_text_refuses_no_room():
    with pytest.raises(ValueError, match="at least 32"):
        to_text(CELL, 10)
