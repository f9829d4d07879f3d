"""benchmarks/data_path.py runs, its result is complete, and what it compares is the same work; benchmarks/peers.py says
what is wrong with a checkout."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
TINY = ["--images", "16", "--batch", "4", "--batches", "2", "--rounds", "1"]


def load(name, monkeypatch):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data_path(monkeypatch):
    return load("data_path", monkeypatch)


@pytest.fixture
def peers(monkeypatch):
    return load("peers", monkeypatch)


def refused(script, arguments, capsys):
    """The one line that a script says before it ends with 2."""
    assert script.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


# ---------------------------------------------------------------------- data_path


def test_data_path_writes_a_complete_csv(data_path, tmp_path, capsys):
    out = tmp_path / "new" / "result.csv"
    assert data_path.main([*TINY, "--out", str(out)]) == 0

    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows) == 10
    for text in ("", ", cutout"):
        assert float(by_name[f"8 ours / PIL{text}"]["target"]) == 1 / 8
        assert by_name[f"- images, ours{text}"]["unit"] == "images/s"
    for row in rows:
        assert 0 < float(row["q1"]) <= float(row["value"]) <= float(row["q3"])
        assert (row["batch"], row["images"], row["threads"]) == ("4", "16", "1")
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    assert [line for line in printed if line.startswith(tuple(by_name))] == printed[2:]  # after title and head


@pytest.mark.parametrize("cutout", [0, 16])
def test_the_paths_give_batches_of_the_same_kind(data_path, cutout):
    images = data_path.random_images(8)
    batches = {name: next(iter(of(0))) for name, of in data_path.paths(images, 4, cutout).items()}
    assert set(batches) == {"ours", "PIL", "JPEG"}
    for x, labels in batches.values():
        assert (x.shape, x.dtype) == ((4, 3, 32, 32), torch.float32)
        assert (labels.shape, labels.dtype) == ((4,), torch.int64)
        assert x.abs().max() < 3


def test_of_one_grey_image_all_paths_make_the_same(data_path):
    """Up to cropping and flipping, which one colour does not show but at the border."""
    pixels = torch.full((4, 3, 32, 32), 128, dtype=torch.uint8)
    images = data_path.Images(pixels, torch.zeros(4, dtype=torch.int64))
    middle = [next(iter(of(0)))[0][:, :, 8:24, 8:24] for of in data_path.paths(images, 4, 0).values()]
    for other in middle[1:]:
        torch.testing.assert_close(middle[0].contiguous(), other.contiguous(), atol=0.03, rtol=0)


@pytest.mark.parametrize("bad", [["--batch", "17"], ["--batch", "0"], ["--rounds", "0"], ["--batches", "0"]])
def test_sizes_that_cannot_be_measured_are_one_line(data_path, bad, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert "--batch" in refused(data_path, [*TINY, *bad, "--out", str(out)], capsys)
    assert not out.exists()


# -------------------------------------------------------------------------- peers


def test_peers_needs_something_to_compare_with(peers, capsys):
    assert "give --darts DIR, --autodl DIR, or both" in refused(peers, [], capsys)


@pytest.mark.parametrize(("option", "repository"), [("--darts", "quark0/darts"), ("--autodl", "D-X-Y/AutoDL-Projects")])
def test_a_folder_that_is_no_checkout_is_one_line(peers, option, repository, tmp_path, capsys):
    out = tmp_path / "out.csv"
    for folder, what in ((tmp_path / "missing", "is no folder"), (tmp_path, "has no ")):
        line = refused(peers, [option, str(folder), "--out", str(out)], capsys)
        assert line.startswith(f"{option} '{folder}' {what}")
        assert f"github.com/{repository}" in line
    assert not out.exists()


@pytest.mark.parametrize("content", ["import no_such_module_at_all", "Network = ", "", "1 / 0"])
def test_a_checkout_that_cannot_be_imported_is_one_line(peers, content, tmp_path, capsys, monkeypatch):
    code = tmp_path / "cnn"
    code.mkdir()
    (code / "model_search.py").write_text(content, encoding="utf-8")
    (code / "architect.py").write_text("", encoding="utf-8")
    before = list(sys.path)
    line = refused(peers, ["--darts", str(tmp_path)], capsys)
    assert line.startswith(f"--darts '{tmp_path}' cannot be imported")
    assert sys.path == before
    sys.modules.pop("model_search", None)
