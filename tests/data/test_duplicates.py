"""Copies and near-copies: all are found, and images that differ are none."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from msgdas.data import duplicates, load_data
from msgdas.data.check import check_folder, describe
from msgdas.data.duplicates import Facts, copies_of, distinct, look_all, near_copies_of
from msgdas.data.source import find_files


def photos(count, side=120):
    """Different crops of two photographs."""
    rng = np.random.default_rng(0)
    images = load_sample_images().images
    crops = []
    for i in range(count):
        image = images[i % 2]
        y, x = rng.integers(0, image.shape[0] - side), rng.integers(0, image.shape[1] - side)
        crops.append(Image.fromarray(image[y : y + side, x : x + side]))
    return crops


@pytest.fixture
def folder(tmp_path):
    for i, image in enumerate(photos(24)):
        (tmp_path / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "data" / "ab"[i % 2] / f"{i:02}.png")
    return tmp_path / "data"


def looks_of(paths):
    return [facts.look for facts in look_all(paths) if isinstance(facts, Facts)]


def test_resized_recompressed_and_brightened_are_near_copies(tmp_path):
    for i, image in enumerate(photos(6)):
        image.save(tmp_path / f"{i}-a.png")
        image.save(tmp_path / f"{i}-b.jpg", quality=40)
        image.resize((64, 64)).save(tmp_path / f"{i}-c.png")
        image.point(lambda v: min(255, v + 15)).save(tmp_path / f"{i}-d.png")
    paths = sorted(tmp_path.iterdir())
    found = near_copies_of(looks_of(paths))
    assert found[:4] == [[4 * i + j for j in range(4)] for i in range(4)]
    assert all(group[0] // 4 == group[-1] // 4 for group in found)  # the others are nearly flat: less certain
    assert copies_of(looks_of(paths)) == []


def test_what_differs_is_no_copy():
    """Written digits of one kind are much alike, crops of a photograph too."""
    digits = [
        Image.fromarray((16 * image).clip(0, 255).astype(np.uint8)).resize((32, 32))
        for image in load_digits().images[:600]
    ]
    found = near_copies_of([duplicates._look(image) for image in digits + photos(60)])
    assert len(found) <= 1


def test_flat_pictures_are_not_compared():
    flat = [Image.new("L", (20, 20), level) for level in range(0, 250, 25)]
    assert near_copies_of([duplicates._look(image) for image in flat]) == []


def test_in_a_check(folder):
    shutil.copy(folder / "a/00.png", folder / "a/copy.png")
    Image.open(folder / "a/02.png").save(folder / "b/near.jpg", quality=80)
    report = check_folder(folder)
    assert [set(c.files) for c in report.copies] == [{"a/00.png", "a/copy.png"}]
    assert [set(c.files) for c in report.near_copies] == [{"a/02.png", "b/near.jpg"}]
    lines = " ".join(" ".join(describe(report)).split())
    assert "near-copies: 1 image lies under two classes; keep the right one" in lines
    assert "--drop-duplicates leaves out all but one of each" in lines
    assert report.compared == 26


def test_drop_duplicates(folder):
    shutil.copy(folder / "a/00.png", folder / "a/copy.png")
    Image.open(folder / "a/02.png").save(folder / "b/near.jpg", quality=80)  # of which class is it?
    listing = distinct(find_files(folder))
    names = {path.name for path in listing.files}
    assert len(names) == 26 - 3
    assert not names & {"copy.png", "02.png", "near.jpg"}
    assert listing.warnings == (
        "3 of 26 images left out as copies of others, 1 groups of them entirely because their classes differ; "
        "'a/02.png' for one",
    )
    with pytest.warns(UserWarning, match="copies") as said:
        data = load_data(folder, drop_duplicates=True)
    assert str(said[0].message).startswith("3 of 26 images left out as copies")
    assert len(data.train) + len(data.val) + len(data.test) == 23
    assert len(said) == 1


def test_the_test_part_keeps_its_images(tmp_path):
    for i, image in enumerate(photos(24)):
        for part in ("train", "test") if i < 4 else ("train",):
            (tmp_path / "data" / part / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "data" / part / "ab"[i % 2] / f"{i:02}.png")
    listing = distinct(find_files(tmp_path / "data"))
    assert {part: len(files) for part, files in listing.parts.items()} == {"train": 20, "test": 4}
    assert distinct(listing) == listing


def test_of_very_many_some_are_looked_at(folder, monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_LOOKED", 10)
    report = check_folder(folder)
    assert report.compared == 8
    assert "copies were looked for among 8 of 24 images" in " ".join(describe(report))
    assert sum(report.images["train"].values()) + 4 < 24
    assert replace(report, compared=24).compared == 24
