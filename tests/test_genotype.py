"""Genotypes as values and as files."""

from __future__ import annotations

import json

import pytest

from msgdas.errors import InputError
from msgdas.genotype import Genotype

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
    ],
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
