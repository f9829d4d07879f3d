"""A folder as people have them, from check to predict: everything that is wrong is said, and nothing is lost."""

import json
import os
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

import msgdas
from msgdas.cli.main import main

SMALL = ["--epochs", "1", "--channels", "4", "--batch-size", "8", "--workers", "0"]


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def picture(seed, level, width=48, height=48):
    """Coarse noise about a level: none is like another."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(max(0, level - 50), min(256, level + 50), (height // 6, width // 6, 3)).astype(np.uint8)
    return Image.fromarray(cells.repeat(6, 0).repeat(6, 1))


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    """Two parts under odd names, two classes, and one of each trouble."""
    root = tmp_path_factory.mktemp("messy") / "My photos; 'raw' $HOME"
    for first, (part, count) in enumerate((("Training", 40), ("Testing", 12))):
        for label, name in enumerate(("dark ä", "<b>light")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                picture(1000 * first + 200 * label + i, 60 + 130 * label).save(root / part / name / f"{i:02} x.png")
    dark, light = (root / "Training" / name for name in ("dark ä", "<b>light"))
    picture(7001, 60).save(dark / "cmyk.jpg", quality=95)
    picture(7002, 60).convert("LA").save(dark / "grey alpha.png")
    Image.fromarray(np.full((48, 48), 900, np.uint16)).save(dark / "twelve bits.png")
    (dark / "cut.jpg").write_bytes((dark / "cmyk.jpg").read_bytes()[:300])
    (dark / "no image.png").write_bytes(b"text")
    (dark / "empty.gif").touch()
    (dark / "IMG_1.CR2").write_bytes(b"raw")
    (dark / "Thumbs.db").write_bytes(b"x")
    (dark / "._00 x.png").write_bytes(b"x")
    (dark / ".ipynb_checkpoints").mkdir()
    picture(1, 60).save(dark / ".ipynb_checkpoints/copy.png")
    Image.open(light / "03 x.png").save(root / "Testing" / "<b>light" / "leak.png")
    Image.open(light / "04 x.png").resize((96, 96)).save(light / "larger.png")
    Image.open(light / "05 x.png").save(dark / "conflict.png")
    (root / "Training" / "notes").mkdir()
    picture(9, 60).save(root / "Training" / "loose.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(light / "pipe.png")
    return root


def test_check_says_all_that_is_wrong(messy, capsys):
    assert run("check", messy) == 0
    shown = capsys.readouterr().out
    lines = " ".join(shown.split())
    for words in (
        "problem: pictures that are not read: 1 .cr2, in folder 'dark ä'; convert them to PNG or JPEG",
        "warning: folder 'notes' without images: no class",
        "warning: images in no class: 1, in folder 'Training'",
        "warning: pipes, sockets or devices that are called images: 1, 'pipe.png' for one",
        "warning: 3 of ",
        "image files cannot be read and are left out",
        "warning: LEAK: 1 of 25 test images are in ",
        "warning: LABEL CONFLICT: 1 image lies under two classes; keep the right one",
        "near-copies within a part, besides the first of each: 1",
        "--drop-duplicates leaves out all but one of each",
        "note: files that are not read: .db 1",
        "2, of ",
    ):
        if "pipe" not in words or hasattr(os, "mkfifo"):
            assert words in lines, words
    assert all(len(line) <= 80 or "msgdas" in line for line in shown.splitlines())
    assert run("check", messy, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert len(found["problems"]) == 1
    assert len(found["warnings"]) >= 7


@pytest.mark.filterwarnings("default")
def test_from_search_to_predict(messy, tmp_path, capsys):
    out = tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run("search", "--data", messy, "--image-size", "16", "--drop-duplicates", "--out", out, *SMALL) == 0
    told = capsys.readouterr()
    for words in (
        "not read: 1 .cr2",
        "left out 3 of",
        "images left out as copies of others",
        "images in no class: 1",
    ):
        assert f"msgdas: warning: {words}" in told.err or words in told.err, words
    assert "Traceback" not in told.err
    assert run("train", out, "--epochs", "2", "--cells", "1", *SMALL[2:]) == 0
    noted = json.loads((out / "train/model.json").read_text())
    assert noted["classes"] == ["<b>light", "dark ä"]
    assert noted["form"]["integers"] == [0, 900]
    capsys.readouterr()
    images = [messy / "Testing/dark ä/00 x.png", messy / "Training/dark ä/cut.jpg", messy / "Training/dark ä/cmyk.jpg"]
    assert run("predict", out, *images) == 2
    told = capsys.readouterr()
    assert [line.split("\t")[0] for line in told.out.splitlines()] == [str(images[0]), str(images[2])]
    assert told.err.count("\n") == 1
    assert len(msgdas.load(out).predict(images[0])) == 2


def test_a_moved_folder_is_remembered(messy, tmp_path, capsys):
    """`--data NEW` once: what comes after it finds the images by itself."""
    for part in ("Training", "Testing"):
        shutil.copytree(
            messy / part,
            tmp_path / "first" / part,
            ignore=shutil.ignore_patterns("*.CR2", "pipe.png", "*.gif", "loose*", "notes", "cut*", "no image*"),
        )
    out = tmp_path / "run"
    assert run("search", "--data", tmp_path / "first", "--image-size", "16", "--out", out, *SMALL) == 0
    (tmp_path / "first").rename(tmp_path / "second")
    assert run("train", out, "--epochs", "1", "--cells", "1", *SMALL[2:]) == 2
    assert "say by --data where they are" in capsys.readouterr().err
    assert run("search", "--resume", "--out", out, "--data", tmp_path / "second") == 0
    assert json.loads((out / "config.json").read_text())["settings"]["data"] == str(tmp_path / "second")
    assert run("train", out, "--epochs", "1", "--cells", "1", *SMALL[2:]) == 0
