"""Files appear complete or not at all."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disk import killed_after, names

from msgdas.errors import InputError
from msgdas.runs import told, write_atomic, write_json
from msgdas.runs.files import append, remove_leftovers


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


def test_names_that_are_no_utf_8_come_back_from_json(tmp_path: Path) -> None:
    names = ["caf\udce9", "\\\udce9\udcff", "a\nb\x1b\0", "\ud800"]
    write_json(tmp_path / "x.json", {name: name for name in names})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {name: name for name in names}
    assert '"caf\\udce9"' in text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EROFS])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failed_write_names_the_file_and_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number), *args[:1])

    monkeypatch.setattr(os, where, refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as failed:
        write_atomic(path, b"new")
    assert told(failed.value) == f"'{path}': {os.strerror(number)}"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_a_name_as_long_as_names_can_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_append_repairs_what_a_killed_process_left(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append(path, b"1\n")
    path.write_bytes(b"1\n2")
    append(path, b"3\n")
    assert path.read_bytes() == b"1\n3\n"
    with pytest.raises(InputError, match="is a folder"):
        append(tmp_path, b"4\n")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object()])
def test_write_json_refuses_what_json_cannot_say(tmp_path: Path, bad: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "x.json", {"a": bad})
    assert names(tmp_path) == set()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))  # a socket's path may have about 100 characters


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "a pipe"),
        (_socket, "a socket"),
        (os.mkdir, "a folder"),
        (lambda path: path.symlink_to(path.parent / "elsewhere"), "a symbolic link"),
    ],
)
def test_only_a_regular_file_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "out"
    make(path)
    before = path.lstat()
    with pytest.raises(InputError, match=kind):
        write_atomic(path, b"new")
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert names(tmp_path) == {"out"}


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(InputError, match="'/dev/null' is a device"):
        write_atomic("/dev/null", b"new")


def test_leftovers_of_dead_processes_alone_are_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    tail = "0123456789abcdef" * 2
    kept = {".notes.tmp", "file.tmp", f".x.json.{os.getppid()}-{tail}.tmp", f".x.{tail}.txt"}
    removed = {f".x.json.{dead.pid}-{tail}.tmp", f".x.json.{os.getpid()}-{tail}.tmp", f".x.json.{tail}.tmp"}
    for name in kept | removed:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == kept
