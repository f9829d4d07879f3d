"""Cells as graphs: what is refused."""

import pytest

from msgdas.spaces.cell_graph import CellGraph


def test_graph_names_what_is_wrong():
    with pytest.raises(ValueError, match="touches 'b', not one of its nodes"):
        CellGraph("cell", ("a",), (("a", "b", "conv"),))
    with pytest.raises(ValueError, match="node 'a' twice"):
        CellGraph("cell", ("a", "a"), ())
