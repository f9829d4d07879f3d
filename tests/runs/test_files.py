"""Files appear complete or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from disk import killed_after, names

from msgdas.runs import write_atomic, write_json


@pytest.mark.parametrize("data", [b"\x00new", "new é\n", b""])
def test_write_atomic_replaces_the_content_and_leaves_nothing_else(tmp_path: Path, data: bytes | str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write_atomic(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert names(tmp_path) == {"file"}


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_write_atomic_that_fails_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, where, killed_after(0, getattr(os, where)))
    with pytest.raises(OSError, match="injected"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_write_json_keeps_the_order_of_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": 1, "a": [0.5, None, "é"]})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert list(json.loads(text).items()) == [("b", 1), ("a", [0.5, None, "é"])]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object()])
def test_write_json_refuses_what_json_cannot_say(tmp_path: Path, bad: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "x.json", {"a": bad})
    assert names(tmp_path) == set()
