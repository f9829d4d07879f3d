"""Genotypes as values and as files."""

from __future__ import annotations

import json
import os

import pytest

from msgdas.errors import InputError
from msgdas.genotype import Cell, Genotype

CELL = Genotype("custom", {"b/0": "skip", "a": ("x", "y")})


def test_a_genotype_is_a_value():
    same = Genotype("custom", {"a": ["x", "y"], "b/0": ["skip"]})
    assert same == CELL
    assert len({CELL, same}) == 1
    assert Genotype("other", dict(CELL.choices)) != CELL
    assert Genotype("custom", {"a": ("y", "x"), "b/0": "skip"}) != CELL
    assert CELL["a"] == ("x", "y")
    assert CELL.share("skip") == 0.5
    with pytest.raises(AttributeError):
        CELL.space = "other"


def test_it_comes_back_from_json(tmp_path):
    path = tmp_path / "genotype.json"
    path.write_text(json.dumps(CELL.to_dict()))
    assert Genotype.read(path) == CELL


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"choices": {}}',
        b'{"space": "x"}',
        b'{"space": "x", "choices": {"c": []}}',
        b'{"space": "x", "choices": {"c": "a"}}',
        b'{"space": "x", "choices": {"c": [1]}}',
        b'{"space": 1, "choices": {"c": ["a"]}}',
        b'{"space": "x", "cells": [1]}',
        b'{"space": "x", "cells": {"normal": 3}}',
        b'{"space": "x", "cells": {"normal": {"nodes": [3], "concat": [2]}}}',
        b'{"space": "x", "cells": {"normal": {"nodes": [[["a", 1e999]]], "concat": [2]}}}',
        b'{"space": "x", "cells": {"normal": {"nodes": [[[["a"], 0]]], "concat": [2]}}}',
        b'{"space": "x", "cells": {"normal": {"nodes": [[["a", 0]]], "concat": 2}}}',
        b'{"space": "x", "cells": {"normal": {"nodes": [[["a", 0]]], "concat": [2, 2]}}}',
        b"[" * 100_000,
        b'{"space":' * 100_000,
        b'{"space": ' + b"1" * 5000 + b"}",
    ],
    ids=lambda text: text[:70].decode(errors="replace"),
)
def test_a_damaged_file_is_named(tmp_path, text):
    path = tmp_path / "genotype.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=r"genotype\.json' is damaged") as error:
        Genotype.read(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json' cannot be read"):
        Genotype.read(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    "given", [None, 3, [], {}, {"space": "x", "choices": {3: ["a"], "b": ["a"]}}, {"space": "x", "cells": {3: {}}}]
)
def test_values_of_any_type_are_no_genotype(given):
    with pytest.raises(InputError, match="not a genotype"):
        Genotype.from_dict(given)


@pytest.mark.parametrize("large", ["nodes", "inputs"])
def test_a_cell_that_would_take_all_memory_is_refused(large):
    edge = ("skip_connect", 0)
    nodes = ((edge,),) * 101 if large == "nodes" else ((edge,) * 101,)
    with pytest.raises(InputError, match="more than 100 nodes, or a node more inputs"):
        Cell(nodes, (2,))
    assert len(Cell(nodes[:100] if large == "nodes" else ((edge,) * 100,), (2,)).nodes) in (1, 100)


def test_only_a_regular_file_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match="is damaged: it is not a regular file"):
            Genotype.read(path)
