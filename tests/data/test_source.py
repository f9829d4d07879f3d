"""Images as people have them: folders of any form, tables of labels, archives, groups."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msgdas.data import load_data
from msgdas.data.archive import unpacked
from msgdas.data.check import check_folder
from msgdas.data.decode import NOT_READ, SUFFIXES
from msgdas.data.fingerprint import changes, fingerprint
from msgdas.data.listing import beside, way_out
from msgdas.data.source import find_files
from msgdas.data.split import split_files
from msgdas.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(seed, side=8):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def fill(root, count=8, classes=("cat", "dog"), first=0):
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture(first + 1000 * label + i).save(root / name / f"{i}.png")
    return root


def error_line(*args, **kw):
    with pytest.raises(InputError) as error:
        find_files(*args, **kw)
    assert "\n" not in str(error.value)
    return str(error.value)


# parts


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Val", "Test"),
        ("training", "dev", "testing"),
        ("TRAIN", "Validation", "TEST"),
        ("train", "valid", "test"),
    ],
)
def test_parts_in_any_case_and_of_any_usual_name(tmp_path, names):
    for first, name in enumerate(names):
        fill(tmp_path / "data" / name, first=100 * first)
    parts = find_files(tmp_path / "data").parts
    assert {part: len(files) for part, files in parts.items()} == {"train": 16, "val": 16, "test": 16}


def test_two_names_for_one_part(tmp_path):
    for name in ("train", "Training"):
        fill(tmp_path / "data" / name)
    assert "two folders for train, 'Training' and 'train': merge them, or remove one" in error_line(tmp_path / "data")


def test_pictures_and_masks_are_no_classes(tmp_path):
    fill(tmp_path / "data", classes=("Images", "masks"))
    line = "folders 'Images', 'masks' look like pictures and what is drawn in them, not like classes"
    assert check_folder(tmp_path / "data").problems[0].startswith(line)
    with pytest.raises(InputError, match=line):
        load_data(tmp_path / "data")


def test_images_without_labels(tmp_path):
    fill(tmp_path / "data", classes=("images",))
    assert "give their labels by --labels FILE.csv" in error_line(tmp_path / "data")


def test_a_class_of_pictures_that_are_not_read_is_named(tmp_path):
    fill(tmp_path / "data", classes=("cat",))
    (tmp_path / "data/dog").mkdir()
    (tmp_path / "data/dog/1.NEF").write_bytes(b"x")
    assert "has 1 pictures that are not read (.nef) in class 'dog': convert them" in error_line(tmp_path / "data")


def test_what_is_read_is_not_also_not_read():
    assert not SUFFIXES & NOT_READ
    assert ".jpg" in SUFFIXES
    assert ".nef" in NOT_READ
    assert way_out({".heic": 3}) == "pip install 'msgdas[heic]' reads them"


def test_heic(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    for name, level in (("dark", 10), ("light", 200)):
        (tmp_path / name).mkdir()
        for i in range(6):
            pillow_heif.from_pillow(Image.new("RGB", (64, 64), (level + i,) * 3)).save(tmp_path / name / f"{i}.HEIC")
    assert len(find_files(tmp_path).files) == 12
    data = load_data(tmp_path, image_size=8)
    assert data.train.pixels[data.train.labels == 1].float().mean() > 150


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes on this system")
def test_a_pipe_is_no_image(tmp_path):
    """Opening one would wait for ever."""
    root = fill(tmp_path / "data")
    os.mkfifo(root / "cat/pipe.png")
    listing = find_files(root)
    assert len(listing.files) == 16
    assert beside(listing).special == (root / "cat/pipe.png",)
    assert beside(listing).warnings == ["pipes, sockets or devices that are called images: 1, 'pipe.png' for one"]


def test_images_outside_the_classes_are_said(tmp_path):
    root = fill(tmp_path / "data" / "train").parent
    picture(1).save(root / "lost.png")
    fill(root / "more")
    assert beside(find_files(root)).warnings == ["images in no class: 17, in folder 'cat', 'data', 'dog'"]


# tables


def table(root, lines, name="labels.csv"):
    (root / name).write_text("\n".join(lines), encoding="utf-8")
    return root / name


@pytest.fixture
def flat(tmp_path):
    """Eight images of no class."""
    (tmp_path / "flat/pictures").mkdir(parents=True)
    for i in range(8):
        picture(i).save(tmp_path / "flat/pictures" / f"{i}.png")
    return tmp_path / "flat"


NAMES = ("cat", "dog")


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("file,label", "pictures/{0}.png,{1}"),
        ("Label;Image_Path", "{1};pictures/{0}.png"),
        ("id\tclass\tnote", "pictures/{0}\t{1}\tx"),  # without its suffix
        (None, "pictures/{0}.png,{1}"),
        ("\ufefffilename,category", '"pictures/{0}.png"," {1} "'),
    ],
)
def test_tables(flat, header, row):
    rows = [row.format(i, NAMES[i % 2]) for i in range(8)]
    path = table(flat, [header, *rows] if header else rows)
    for listing in (find_files(path), find_files(flat), find_files(flat, path)):
        assert listing.classes == NAMES
        assert listing.parts["train"] == [(flat / "pictures" / f"{i}.png", i % 2) for i in range(8)]
        assert beside(listing).warnings == []
        assert dict(beside(listing).other) == {}


def test_parts_and_groups_of_a_table(flat):
    rows = [f"pictures/{i}.png,{NAMES[i % 2]},{('train', 'Test')[i > 3]},p{i // 2}" for i in range(8)]
    listing = find_files(table(flat, ["path,label,split,patient", *rows]))
    assert {part: len(files) for part, files in listing.parts.items()} == {"train": 4, "test": 4}
    assert listing.groups[flat / "pictures/5.png"] == "p2"


def test_paths_relative_to_the_data_folder(flat, tmp_path):
    path = table(tmp_path, ["file,label", *(f"{i}.png,{NAMES[i % 2]}" for i in range(8))])
    assert find_files(flat / "pictures", path).root == flat / "pictures"
    assert load_data(flat / "pictures", labels=path, test_fraction=0.3).classes == NAMES


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "has no column of paths"),
        (["file,label"], "has no rows"),
        (["path,colour", "pictures/0.png,red"], "has no column of labels (columns 'path', 'colour'): name it label"),
        (["file,label", "pictures/0.png,cat", "pictures/9.png,dog"], "line 3: there is no file 'pictures/9.png'"),
        (
            ["file,label", "pictures/0.png,cat", "pictures/0.png,dog"],
            "line 3: 'pictures/0.png' has another label or part",
        ),
        (["file,label", "pictures/0.png,cat", "pictures/1.png"], "line 3: 1 cells, not 2"),
        (["file,label", "pictures/0.png,"], "line 2: no label"),
        (["file,label", "pictures/0.png,cat"], "has only one class ('cat')"),
        (["file,label,split", "pictures/0.png,cat,later"], "line 2: part 'later'; use train, val or test"),
        (
            ["file,label,split", "pictures/0.png,cat,train", "pictures/1.png,dog,test"],
            "class 'dog' has no image in train",
        ),
        (["file,label", "pic\0ture.png,cat", "pictures/1.png,dog"], "line 2: there is no file"),
    ],
)
def test_tables_that_are_wrong(flat, lines, said):
    assert said in error_line(table(flat, lines))


def test_a_table_that_is_no_text(flat):
    (flat / "labels.csv").write_bytes(b"file,label\n\xff\xfe,cat\n")
    assert "cannot be read" in error_line(flat / "labels.csv")


# archives


def zipped(path, root, prefix=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in root.rglob("*") if p.is_file()):
            archive.write(file, f"{prefix}{file.relative_to(root)}")
    return path


def tarred(path, root, mode="w"):
    with tarfile.open(path, mode) as archive:
        archive.add(root, arcname="inner")
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz"])
def test_archives(tmp_path, name):
    root = fill(tmp_path / "data")
    mode = "w:gz" if name.endswith("gz") else "w"
    path = zipped(tmp_path / name, root, "inner/") if name == "a.zip" else tarred(tmp_path / name, root, mode)
    listing = find_files(path)
    assert listing.name == "a"
    assert listing.classes == ("cat", "dog")
    assert len(listing.files) == 16
    before = [p.stat().st_mtime_ns for p in listing.files]
    assert [p.stat().st_mtime_ns for p in find_files(path).files] == before  # not unpacked again
    assert len(load_data(path).train) + len(load_data(path).test) > 0
    assert changes(fingerprint(root), fingerprint(path)) == ""


def test_an_archive_with_a_table(flat, tmp_path):
    table(flat, ["file,label", *(f"pictures/{i}.png,{NAMES[i % 2]}" for i in range(8))])
    assert find_files(zipped(tmp_path / "a.zip", flat)).classes == NAMES


def test_nothing_is_written_outside(tmp_path):
    root = fill(tmp_path / "data")
    path = zipped(tmp_path / "evil.zip", root)
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../out.png", "/tmp/msgdas-out.png", "cat/../../out.png", "..\\out.png", "C:\\out.png"):
            archive.writestr(name, b"x")
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    before = set(tmp_path.rglob("out.png"))
    listing = find_files(path)
    assert len(listing.files) == 16
    assert set(tmp_path.rglob("out.png")) == before == set()
    assert not Path("/tmp/msgdas-out.png").exists()
    tar = tmp_path / "evil.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(root, arcname="inner")
        member = tarfile.TarInfo("../out.png")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("inner/cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert len(find_files(tar).files) == 16
    assert set(tmp_path.rglob("out.png")) == set()


def test_an_archive_that_is_too_large_or_damaged(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", fill(tmp_path / "data"))
    (tmp_path / "b.zip").write_bytes(path.read_bytes()[:-100])
    (tmp_path / "c.tar").write_bytes(b"no tar")
    (tmp_path / "d.tar.gz").write_bytes(b"\x1f\x8b" + b"x" * 100)
    for name in ("b.zip", "c.tar", "d.tar.gz"):
        assert f"{name}' cannot be unpacked: " in error_line(tmp_path / name)
    monkeypatch.setattr("msgdas.data.archive.KEPT_FREE", 2**62)
    assert "needs more space than there is" in error_line(path)
    assert not list((tmp_path / "cache/msgdas/unpacked").iterdir())  # nothing half-unpacked is left
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpacked(tmp_path / "c.tar")


# shards


def shard(path, first, count=4):
    with tarfile.open(path, "w") as archive:
        for i in range(first, first + count):
            image = io.BytesIO()
            picture(i).save(image, "PNG")
            for suffix, data in (("png", image.getvalue()), ("cls", str((i % 3) * 5).encode())):
                member = tarfile.TarInfo(f"{i:06}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def test_shards(tmp_path):
    (tmp_path / "shards").mkdir()
    for i, part in enumerate(("train-0", "train-1", "val-0")):
        shard(tmp_path / "shards" / f"{part}.tar", 6 * i, 6)
    listing = find_files(tmp_path / "shards")
    assert listing.classes == ("0", "5", "10")
    assert {part: len(files) for part, files in listing.parts.items()} == {"train": 12, "val": 6}
    assert [label for _, label in listing.parts["val"]] == [0, 1, 2, 0, 1, 2]
    assert find_files(tmp_path / "shards/train-0.tar").classes == ("0", "5", "10")


# groups


@pytest.fixture
def patients(tmp_path):
    """Images of ten patients, in a folder each, with both classes of most."""
    for patient in range(10):
        for label, name in enumerate(NAMES):
            folder = tmp_path / "scans" / name / f"p{patient}"
            folder.mkdir(parents=True)
            for i in range(2 + patient % 3):
                picture(100 * patient + 10 * label + i).save(folder / f"{i}.png")
    return tmp_path / "scans"


@pytest.mark.parametrize("group", ["folder", r"/(p\d+)/", r"p\d"])
def test_a_group_stays_in_one_part(patients, group):
    parts = split_files(find_files(patients, group=group), {"test": 0.2, "val": 0.15}, 0)
    of = {part: {path.parent.name for path, _ in files} for part, files in parts.items()}
    assert not of["train"] & of["test"]
    assert not of["train"] & of["val"]
    assert not of["test"] & of["val"]
    assert set.union(*of.values()) == {f"p{i}" for i in range(10)}
    count = sum(map(len, parts.values()))
    assert len(parts["test"]) / count == pytest.approx(0.2, abs=0.08)
    assert all({label for _, label in files} == {0, 1} for files in parts.values())


def test_without_groups_patients_are_torn_and_it_is_said(patients):
    assert "(p0" not in str(find_files(patients).warnings)
    (line,) = find_files(patients).warnings
    assert line.startswith("images lie in folders below the classes ('p0', 'p1', 'p2' and 7 more)")
    assert line.endswith("keep each in one part by --group folder")
    parts = split_files(find_files(patients), {"test": 0.2}, 0)
    assert {p.parent.name for p, _ in parts["train"]} & {p.parent.name for p, _ in parts["test"]}


def test_the_same_folder_in_two_parts_is_said(tmp_path):
    for part in ("train", "test"):
        for name in NAMES:
            (tmp_path / "data" / part / name / "p1").mkdir(parents=True)
            for i in range(3):
                picture(i).save(tmp_path / "data" / part / name / "p1" / f"{i}.png")
    assert find_files(tmp_path / "data").warnings == (
        "folder 'p1' below the classes of train and of another part: the same people or places?",
    )


def test_groups_that_cannot_be(patients, tmp_path):
    assert "is no regular expression" in error_line(patients, group="(")
    assert "does not match 'cat/p0/0.png'" in error_line(patients, group="nothing")
    assert "is in no folder below its class" in error_line(fill(tmp_path / "plain"), group="folder")
    with pytest.raises(InputError, match="all images are of one group"):
        split_files(find_files(patients, group="p"), {"test": 0.2}, 0)


def test_a_class_of_one_patient_cannot_be_in_every_part(tmp_path):
    for name, people in (("ill", 1), ("well", 5)):
        for person in range(people):
            (tmp_path / "data" / name / f"{name}{person}").mkdir(parents=True)
            for i in range(6):
                picture(i).save(tmp_path / "data" / name / f"{name}{person}" / f"{i}.png")
    with pytest.raises(InputError, match=r"class 'ill' has .* images in .* when groups are kept together"):
        split_files(find_files(tmp_path / "data", group="folder"), {"test": 0.2, "val": 0.15}, 0)


# Hugging Face


def test_a_saved_data_set_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "d/og"])})

    def split(count, first):
        rows = {"img": [picture(first + i) for i in range(count)], "label": [i % 2 for i in range(count)]}
        return datasets.Dataset.from_dict(rows, features=features)

    parts = {"train": split(12, 0), "validation": split(4, 100), "test": split(6, 200), "unlabelled": split(2, 300)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    listing = find_files(tmp_path / "saved")
    assert (listing.name, listing.classes) == ("saved", ("cat", "d_og"))
    assert {part: len(files) for part, files in listing.parts.items()} == {"train": 12, "val": 4, "test": 6}
    image = Image.open(listing.parts["val"][0][0])
    assert np.array_equal(np.asarray(image), np.asarray(picture(100)))
    assert find_files(tmp_path / "saved").files == listing.files
    datasets.Dataset.from_dict({"x": [1, 2]}).save_to_disk(str(tmp_path / "none"))
    assert "has no column of images ('x')" in error_line(tmp_path / "none")


def test_without_the_package_it_says_which(monkeypatch):
    monkeypatch.setattr("msgdas.data.hub.find_spec", lambda name: None)
    assert error_line("hf:mnist") == "data 'hf:mnist' needs the package datasets: pip install 'msgdas[hub]'"
