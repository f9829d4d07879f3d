"""Decoded images are kept for the next command, and never in the place of others."""

import os
import stat

import pytest
import torch
from PIL import Image

from msgdas.data import cache, load_data
from msgdas.data.form import Form


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MSGDAS_CACHE", raising=False)
    monkeypatch.setattr(cache, "WORTH", 4)
    for label, name in enumerate(("a", "b")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("L", (8, 8), 100 * label + i).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture
def decoded(monkeypatch):
    """The numbers of files that were decoded."""
    counts = []
    decode_all = load_data.__globals__["read"].__globals__["decode_all"]

    def counted(paths, *arguments, **more):
        counts.append(len(paths))
        return decode_all(paths, *arguments, **more)

    monkeypatch.setattr("msgdas.data.read.decode_all", counted)
    return counts


def kept(tmp_path):
    return sorted((tmp_path / "cache/msgdas/decoded").glob("*"))


def test_the_second_time_nothing_is_decoded(folder, decoded, tmp_path):
    first = load_data(folder, mirror="off")
    assert sum(decoded) == 40
    second = load_data(folder, mirror="off")
    assert sum(decoded) == 40
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(first, part).pixels, getattr(second, part).pixels)
        assert torch.equal(getattr(first, part).labels, getattr(second, part).labels)
    assert len(kept(tmp_path)) == 3
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept(tmp_path))


def test_another_form_another_file_and_a_changed_one_are_decoded(folder, decoded):
    load_data(folder, mirror="off")
    load_data(folder, image_size=12, mirror="off")
    assert sum(decoded) == 80
    Image.new("L", (8, 8), 255).save(folder / "a/0.png")
    changed = load_data(folder, mirror="off")
    assert sum(decoded) > 80
    assert max(int(part.pixels.max()) for part in (changed.train, changed.val, changed.test)) == 255


def test_nothing_is_kept_that_is_bad_or_unwanted(folder, decoded, tmp_path, monkeypatch):
    monkeypatch.setenv("MSGDAS_CACHE", "0")
    load_data(folder, mirror="off")
    assert kept(tmp_path) == []
    monkeypatch.delenv("MSGDAS_CACHE")
    for path in folder.rglob("1[0-2].png"):
        path.write_bytes(b"bad")
    with pytest.warns(UserWarning, match="left out"):
        load_data(folder, mirror="off")
    with pytest.warns(UserWarning, match="left out"):
        load_data(folder, mirror="off")  # said again, not lost


def test_a_damaged_or_foreign_file_is_decoded_again(folder, decoded, tmp_path):
    load_data(folder, mirror="off")
    for path, content in zip(kept(tmp_path), (b"", b"\x93NUMPY damaged", path_of_another_shape(tmp_path)), strict=True):
        path.write_bytes(content)
    again = load_data(folder, mirror="off")
    assert sum(decoded) == 80
    assert len(again.train) + len(again.val) + len(again.test) == 40


def path_of_another_shape(tmp_path):
    import numpy as np

    np.save(tmp_path / "other.npy", np.zeros((1, 1, 8, 8), np.uint8))
    return (tmp_path / "other.npy").read_bytes()


def test_the_longest_unused_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MOST", 250)
    for i, name in enumerate("abc"):
        (tmp_path / f"{name}.npy").write_bytes(bytes(100))
        os.utime(tmp_path / f"{name}.npy", (i, i))
    cache._make_room(tmp_path, 100)
    assert [path.name for path in kept_in(tmp_path)] == ["c.npy"]


def kept_in(folder):
    return sorted(folder.glob("*.npy"))


def test_a_cache_that_cannot_be_written_is_no_error(folder, decoded, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(load_data(folder, mirror="off").train) > 0
    assert len(load_data(folder, mirror="off").train) > 0
    assert sum(decoded) == 80


def test_large_sets_are_not_kept(monkeypatch):
    monkeypatch.setattr(cache, "LARGEST", 10)
    monkeypatch.setattr(cache, "WORTH", 1)
    calls = []
    cache.decoded_once([("x", 0)], Form.square(1, 8), lambda: calls.append(1) or (torch.zeros(1), True))
    assert calls == [1]


def test_progress_is_told(folder, monkeypatch):
    seen = []
    load_data(folder, mirror="off", on_image=lambda done, total: seen.append((done, total)))
    assert [pair for pair in seen if pair[0] == pair[1]] == seen
    assert sum(total for _, total in seen) == 40
