"""What `check_folder` finds in a folder of images, and what it proposes to run."""

import json
import math
import shlex
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from PIL import Image
from rich.cells import cell_len

from msgdas import cost
from msgdas.data import load_data
from msgdas.data.check import check_folder, describe, propose, to_dict
from msgdas.data.check.proposal import SIDES
from msgdas.errors import InputError
from msgdas.jobs.resolve import find_genotype
from msgdas.spaces import find_space


def photo(seed, width=12, height=12):
    """An image of noise, unlike any of another seed."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def fill(root, counts, first=0):
    """Distinct images, ``counts[class]`` of each."""
    seed = first
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            photo(seed).save(root / name / f"{seed:03}.png")
            seed += 1
    return root


def three_parts(tmp_path):
    """cat and dog: 10 each in train (0 … 19), 3 each in val (20 … 25) and test (30 … 35)."""
    for part, count, first in (("train", 10, 0), ("val", 3, 20), ("test", 3, 30)):
        fill(tmp_path / part, {"cat": count, "dog": count}, first)
    return tmp_path


def text(report):
    return "\n".join(describe(report))


def rows(images):
    return {p.numpy().tobytes() for p in images.pixels}


def flat(report):
    """The text without its line breaks."""
    return " ".join(text(report).split())


def error_line(path):
    with pytest.raises(InputError) as error:
        check_folder(path)
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------- counts


@pytest.mark.parametrize("given", [(), ("val",), ("test",), ("val", "test")])
def test_a_clean_folder_and_the_parts_of_load_data(tmp_path, given):
    fill(tmp_path / "train", {"cat": 20, "dog": 30})
    for first, part in enumerate(given, 1):
        fill(tmp_path / part, {"cat": 4, "dog": 6}, 100 * first)
    report, data = check_folder(tmp_path), load_data(tmp_path)
    assert {part: sum(counts.values()) for part, counts in report.images.items()} == {
        part: len(getattr(data, part)) for part in ("train", "val", "test")
    }
    for part, counts in report.images.items():
        assert list(counts.values()) == getattr(data, part).labels.bincount().tolist()
    assert set(report.split_off) == {"val", "test"} - set(given)
    assert report.classes == ("cat", "dog")
    assert report.ok
    assert not any((report.unreadable, report.copies, report.empty_folders, report.other_files, report.unused))
    assert report.imbalance == pytest.approx(1.5, abs=0.1)
    assert describe(report)[0] == str(tmp_path)[:80]
    assert len(describe(report)) <= 22


def test_class_folders_alone(tmp_path):
    report = check_folder(fill(tmp_path, {"train": 20, "valid": 20}))
    assert report.classes == ("train", "valid")
    assert report.split_off == ("test", "val")
    assert report.empty_folders == ()


def test_kinds(tmp_path):
    root = fill(tmp_path, {"a": 8, "b": 8})
    before = check_folder(root).kinds
    photo(100, 40, 9).convert("L").save(root / "a" / "grey.png")
    photo(101, 50, 300).convert("RGBA").save(root / "a" / "opaque or not.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(102).save(root / "a" / "turned.jpg", exif=exif)
    exif[0x0112] = 1
    photo(103).save(root / "a" / "upright.jpg", exif=exif)
    frames = [photo(110).quantize(), photo(111).quantize()]
    frames[0].save(root / "b" / "moving.gif", save_all=True, append_images=frames[1:])
    photo(120).save(root / "b" / "phone.jpg", "MPO", save_all=True, append_images=[photo(121)])
    kinds = check_folder(root).kinds
    assert (before.grey, before.colour, before.formats) == (0, 16, {"PNG": 16})
    assert (before.smallest_side, before.median_side, before.largest_side) == (12, 12, 12)
    assert (kinds.grey, kinds.colour) == (1, 21)
    assert (kinds.transparent, kinds.animated, kinds.rotated) == (1, 1, 1)
    assert (kinds.smallest_side, kinds.median_side, kinds.largest_side) == (9, 12, 300)
    assert kinds.formats == {"PNG": 18, "JPEG": 2, "GIF": 1, "MPO": 1}
    assert "kinds    grey 1, colour 21, transparent 1, animated 1, rotated 1" in text(check_folder(root))


def test_the_size_of_a_large_jpeg_is_its_own(tmp_path):
    root = fill(tmp_path, {"a": 8, "b": 8})
    Image.new("RGB", (1300, 1100)).save(root / "a" / "large.jpg")
    assert check_folder(root).kinds.largest_side == 1300


def test_progress(tmp_path):
    seen = []
    check_folder(fill(tmp_path, {"a": 30, "b": 30}), on_file=lambda done, total: seen.append((done, total)))
    assert seen == sorted(set(seen))
    assert {total for _, total in seen} == {60}
    assert seen[-1] == (60, 60)
    assert len(seen) > 2


# ------------------------------------------------------------------------- copies


def test_a_leak(tmp_path):
    root = three_parts(tmp_path)
    shutil.copy(root / "train/cat/003.png", root / "test/cat/again.png")
    report = check_folder(root)
    (leak,) = report.leaks
    assert set(leak.files) == {"train/cat/003.png", "test/cat/again.png"}
    assert set(leak.parts) == {"train", "test"}
    assert report.conflicts == ()
    assert not report.ok
    assert "LEAK: 1 of 7 test images are in train too" in flat(report)
    assert "    test/cat/again.png = train/cat/003.png" in text(report)
    assert text(report).startswith("warning: LEAK")


def test_leaks_are_those_of_load_data_where_the_parts_are_split_off(tmp_path):
    root = fill(tmp_path, {"a": 30, "b": 30})
    for path in sorted(root.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    report, data = check_folder(root), load_data(root, image_size=12)
    assert len(report.copies) == 60
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        leaks = [c for c in report.leaks if set(c.parts) == {one, other}]
        assert len(leaks) == len(rows(getattr(data, one)) & rows(getattr(data, other)))
    within = [c for c in report.copies if not c.leak]
    assert within
    assert report.leaks
    assert f"besides the first of each: {len(within)};" in flat(report)


def test_copies_within_a_part_are_no_problem(tmp_path):
    root = three_parts(tmp_path)
    shutil.copy(root / "train/cat/003.png", root / "train/cat/x.png")
    shutil.copy(root / "train/cat/003.png", root / "train/cat/y.png")
    report = check_folder(root)
    assert [c.files for c in report.copies] == [("train/cat/003.png", "train/cat/x.png", "train/cat/y.png")]
    assert report.ok
    assert "besides the first of each: 2;" in flat(report)


def test_a_label_conflict(tmp_path):
    root = three_parts(tmp_path)
    shutil.copy(root / "train/cat/003.png", root / "train/dog/3.png")
    report = check_folder(root)
    (conflict,) = report.conflicts
    assert set(zip(conflict.files, conflict.classes)) == {("train/cat/003.png", "cat"), ("train/dog/3.png", "dog")}
    assert report.leaks == ()
    assert not report.ok
    assert "LABEL CONFLICT: 1 image lies under two classes" in flat(report)
    assert text(report).count("train/dog/3.png") == 1


def saved(path, image, **kw):
    image.save(path, **kw)
    return path


def turned(image):
    """The same picture, stored lying down with the Exif tag that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return image.transpose(Image.Transpose.ROTATE_90), exif


@pytest.mark.parametrize("case", ["bmp", "webp", "tif", "palette", "grey", "turned", "jpeg with a comment"])
def test_a_twin_of_another_encoding(tmp_path, case):
    root, image = three_parts(tmp_path), photo(3)
    if case == "palette":
        image = image.quantize(16)
        saved(root / "train/cat/003.png", image.convert("RGB"))
        saved(root / "test/cat/twin.png", image)
    elif case == "grey":
        saved(root / "train/cat/003.png", image.convert("L"))
        saved(root / "test/cat/twin.png", image.convert("L").convert("RGB"))
    elif case == "turned":
        lying, exif = turned(image)
        saved(root / "test/cat/twin.png", lying, exif=exif)
    elif case.startswith("jpeg"):
        saved(root / "train/cat/003.jpg", photo(3, 700, 600))
        saved(root / "test/cat/twin.jpg", photo(3, 700, 600), comment="other bytes")
    else:
        saved(root / f"test/cat/twin.{case}", image, **({"lossless": True} if case == "webp" else {}))
    (leak,) = check_folder(root).leaks
    assert [file.split("/")[0] for file in leak.files] == ["train", "test"]


def test_a_pixel_or_the_shape_tells_images_apart(tmp_path):
    root = three_parts(tmp_path)
    for name, mode in (("colour", "RGB"), ("grey", "L"), ("deep", "I;16")):
        image = Image.new(mode, (200, 200))
        saved(root / f"train/cat/{name}.png", image)
        image.putpixel((199, 0), (0, 0, 1) if mode == "RGB" else 300 if mode == "I;16" else 1)
        saved(root / f"test/cat/{name}.png", image)
    saved(root / "train/cat/wide.png", Image.new("RGB", (30, 20)))
    saved(root / "test/cat/high.png", Image.new("RGB", (20, 30)))
    copies = {frozenset(c.files) for c in check_folder(root).copies}
    assert copies == {frozenset({"train/cat/colour.png", "train/cat/grey.png"})}


# -------------------------------------------------------------------- unreadable


def spoil(root):
    """Five of the cats of train."""
    files = sorted((root / "train/cat").iterdir())[:5]
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:200])
    files[2].write_text("no image")
    files[3] = files[3].rename(files[3].with_suffix(".jpg"))
    saved(files[3], photo(900, 300, 300))
    files[3].write_bytes(files[3].read_bytes()[:-2000])
    files[4].write_bytes(b"\x89PNG\r\n\x1a\n")
    return [file.relative_to(root).as_posix() for file in files]


def test_unreadable_files(tmp_path):
    root = three_parts(tmp_path)
    bad = spoil(root)
    report = check_folder(root)
    assert set(report.unreadable) == set(bad)
    assert report.unreadable[bad[0]] == "empty file"
    assert report.unreadable[bad[2]] == "not an image"
    assert "truncated" in report.unreadable[bad[3]]
    assert all(reason and "\n" not in reason for reason in report.unreadable.values())
    assert report.images["train"] == {"cat": 5, "dog": 10}
    assert not report.ok
    assert "5 of 32 image files cannot be read" in text(report)
    assert f"    {bad[0]}: empty file" in text(report)
    assert "    … and 2 more" in text(report)
    with pytest.warns(UserWarning, match="left out 5 of 32"):
        assert len(load_data(root).train) == 15


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"])
@pytest.mark.filterwarnings("ignore:left out")
def test_what_load_data_reads_is_readable(tmp_path, mode):
    root = fill(tmp_path, {"a": 10, "b": 10})
    if mode in ("LAB", "I;16"):
        image = Image.new(mode, (12, 12))
    else:
        image = photo(3).convert("RGB" if mode == "YCbCr" else mode.replace("LA", "L")).convert(mode)
    image.save(root / "a" / "x.tif")
    data = load_data(root)
    assert len(data.train) + len(data.val) + len(data.test) == 21 - len(check_folder(root).unreadable)


@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_search_would_not_start(tmp_path, part):
    root = three_parts(tmp_path)
    for path in (root / part).rglob("*.png"):
        if part == "val" or "dog" in path.parts:
            path.write_bytes(b"")
    report = check_folder(root)
    with pytest.raises(InputError) as error:
        load_data(root)
    assert report.problems[0] == str(error.value)
    assert not report.ok
    assert f"problem: {report.problems[0]}" in flat(report)
    assert "msgdas search" not in text(report)
    json.dumps(to_dict(report), allow_nan=False)


def test_one_image_of_a_class_is_too_few(tmp_path):
    root = three_parts(tmp_path)
    for path in sorted((root / "train/dog").iterdir())[1:]:
        path.unlink()
    report = check_folder(root)
    with pytest.raises(InputError) as error:
        load_data(root)
    assert report.problems[0] == str(error.value)
    assert not report.ok


# ------------------------------------------------------------- what is not an image


def test_beside_the_images(tmp_path):
    root = three_parts(tmp_path)
    for name in ("train/cat/a.NEF", "train/cat/b.nef", "val/list.txt", "README"):
        (root / name).write_bytes(b"")
    (root / ".cache").mkdir()
    for name in (".hidden.txt", "train/cat/._1.png", ".cache/x.png", ".cache/x.txt"):
        (root / name).write_bytes(b"")
    (root / "train/scripts").mkdir()
    (root / "val/dog").rename(root / "unlabelled")
    (root / "val/dog").mkdir()
    photo(999).save(root / "train/loose.png")
    report = check_folder(root)
    assert report.other_files == {".txt": 1, "no suffix": 1}
    assert report.empty_folders == ("train/scripts", "val/dog")
    assert report.missing == {"val": ("dog",)}
    assert report.unused == ("train/loose.png", *(f"unlabelled/{i:03}.png" for i in (23, 24, 25)))
    assert report.not_read == ("train/cat/a.NEF", "train/cat/b.nef")
    assert not report.ok
    lines = flat(report)
    assert "problem: pictures that are not read: 2 .nef, in folder 'cat'; convert them to PNG or JPEG" in lines
    assert "warning: classes without images in val: dog" in lines
    assert "warning: folder 'scripts' without images: no class" in lines
    assert "warning: images in no class: 4, in folder 'train', 'unlabelled'" in lines
    assert "note: files that are not read: .txt 1, no suffix 1" in lines
    found = to_dict(report)
    assert found["problems"] == ("pictures that are not read: 2 .nef, in folder 'cat'; convert them to PNG or JPEG",)
    assert len(found["warnings"]) == 3
    with pytest.warns(UserWarning, match=".") as said:
        load_data(root)
    assert [str(one.message) for one in said][:3] == [
        "folder 'scripts' without images: no class",
        "pictures that are not read: 2 .nef, in folder 'cat'; convert them to PNG or JPEG",
        "images in no class: 4, in folder 'train', 'unlabelled'",
    ]


# ------------------------------------------------------------------------ errors


def test_errors(tmp_path):
    assert error_line(tmp_path / "nowhere").startswith(f"data '{tmp_path / 'nowhere'}' is no folder or file: ")
    assert error_line(tmp_path).startswith(f"data folder '{tmp_path}' has no class folders with images: ")
    fill(tmp_path, {"cat": 8})
    assert error_line(tmp_path).startswith(f"data folder '{tmp_path}' has only one class ('cat'): ")
    fill(tmp_path, {"dog": 3})
    report = check_folder(tmp_path)
    assert report.problems[0].startswith("class 'dog' has too few images (3) to be split into")
    assert report.images == {"train": {"cat": 8, "dog": 3}}
    assert "problem: class 'dog' has too few images (3)" in flat(report)
    fill(tmp_path, {"dog": 8})
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"no image")
    assert error_line(tmp_path).startswith("none of 16 image files can be read, ")


# ---------------------------------------------------------------------- proposal


def test_hopeless_data_are_a_problem(tmp_path):
    report = check_folder(fill(tmp_path, {"a": 4, "b": 4}))
    line = "2 training images a class are too few: what is found is chance; collect 50 or more of each"
    assert report.problems == (line,)
    assert "msgdas search" not in text(report)


def test_long_images_are_proposed_as_rectangles(tmp_path):
    for path in fill(tmp_path, {"a": 10, "b": 10}).rglob("*.png"):
        photo(len(path.read_bytes()), 400, 64).save(path)
    report = check_folder(tmp_path)
    height, width = map(int, dict(o.split() for o in report.proposal.reasons)["--image-size"].split("x"))
    assert (height % 8, width % 8) == (0, 0)
    assert width / height == pytest.approx(400 / 64, rel=0.25)
    assert height * width <= 1.3 * 128**2
    assert report.proposal.memory_needed == 20 * 3 * height * width


def proposed(folder="photos", **kw):
    """The proposal, and the options of its search."""
    facts = {"train": 1000, "images": 1500, "channels": 3, "median_side": 480, "imbalance": 1.2}
    proposal = propose(folder, **(facts | {"memory_free": 2**40, "gpu": False} | kw))
    program, command, *words = shlex.split(proposal.commands[0])
    assert (program, command) == ("msgdas", "search")
    options = dict(zip(words[::2], words[1::2], strict=True))
    trained = [] if kw.get("gpu") else ["--cells", "1"]
    given = {f"{name} {value}" for name, value in options.items() if name not in ("--data", "--out")}
    assert set(proposal.reasons) == given | ({"--cells 1"} if trained else set())
    assert shlex.split(proposal.commands[1]) == ["msgdas", "train", options["--out"], *trained]
    return proposal, options


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("median", [8, 32, 47, 48, 63, 100, 128, 159, 224, 4000])
def test_proposed_image_size(median, gpu):
    side = int(proposed(median_side=median, gpu=gpu)[1]["--image-size"])
    sides = [s for s in SIDES if gpu or s <= 128]
    assert abs(math.log(side / median)) == min(abs(math.log(s / median)) for s in sides)


@pytest.mark.parametrize(
    "text", ["darts:DARTS_V2", "nasbench201:|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"]
)
def test_of_the_proposed_sizes_a_larger_one_costs_little_more(text):
    genotype = find_genotype(text)
    space = find_space(genotype.space)

    def macs(side):
        return cost.count(
            space.network(genotype, classes=10, image_size=side, **space.network_size(side)), 3, side
        ).macs

    costs = [macs(side) for side in SIDES if side <= 128]
    assert costs == sorted(costs)
    assert costs[-1] < 1.25 * costs[0]


@pytest.mark.parametrize("train", [4, 30, 100, 300, 1000, 1999, 2000, 5000, 50_000])
def test_proposed_length(train):
    options = proposed(train=train)[1]
    batch, epochs = int(options["--batch-size"]), int(options["--epochs"])
    steps = max(1, train // 2 // batch)
    assert epochs >= 20
    assert epochs * steps >= 1500
    assert epochs == 20 or (epochs - 1) * steps < 1500
    assert 8 <= batch <= 64
    assert steps >= 8 or batch == 8
    assert batch == 64 or train // 2 // (2 * batch) < 8
    assert options["--space"] == "nasbench201"
    assert proposed(train=train, gpu=True)[1]["--space"] == ("darts" if train >= 2000 else "nasbench201")


def test_proposed_class_weights(tmp_path):
    assert "--class-weights" not in proposed(imbalance=3.0)[1]
    assert "--class-weights" not in proposed(imbalance=None)[1]
    assert proposed(imbalance=3.1)[1]["--class-weights"] == "balanced"
    few = fill(tmp_path, {"a": 40, "b": 10})
    report = check_folder(few)
    assert report.imbalance > 3
    assert "--class-weights balanced" in text(report)
    assert f"1 : {report.imbalance:.1f}" in text(report)


def test_proposed_memory(tmp_path, monkeypatch):
    proposal, _ = proposed(images=1000, channels=3, median_side=32, memory_free=2 * 3_072_000)
    assert (proposal.memory_needed, proposal.in_memory) == (3_072_000, True)
    assert not proposed(images=1000, channels=3, median_side=32, memory_free=2 * 3_072_000 - 2)[0].in_memory
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    report = check_folder(fill(tmp_path, {"a": 10, "b": 10}))
    assert report.proposal.memory_needed == 20 * 3 * 32 * 32
    assert "too much, so read from disk in every epoch" in flat(report)


def test_grey_folders_need_a_third(tmp_path):
    for path in fill(tmp_path, {"a": 10, "b": 10}).rglob("*.png"):
        saved(path, Image.open(path).convert("L"))
    assert check_folder(tmp_path).proposal.memory_needed == 20 * 32 * 32


def test_a_folder_called_digits_is_not_the_data_set():
    options = proposed("digits")[1]
    assert options["--data"] == "./digits"
    assert options["--out"] == "runs/digits"


# -------------------------------------------------------------------------- text


def printed_commands(lines):
    first = lines.index("proposal") + 1
    return lines[first : next(i for i in range(first, len(lines)) if lines[i].startswith("  --space"))]


def test_long_and_strange_names(tmp_path):
    root = tmp_path / "Bilder von Äpfeln, 'roh' $HOME" / ("lang" * 20)
    names = ("犬" * 40, "Äpfel und Öl")
    fill(root, dict.fromkeys(names, 30))
    shutil.copy(root / names[0] / "003.png", root / names[1] / "a\nb\x1b[31m.png")
    (root / names[1] / f"{'猫' * 50}.png").write_bytes(b"")
    report = check_folder(root)
    lines = describe(report)
    assert all(line.isprintable() for line in lines)
    assert "a?b?[31m.png" in flat(report)
    commands = printed_commands(lines)
    assert all(cell_len(line) <= 80 for line in lines if line not in commands)
    assert json.loads(json.dumps(to_dict(report)))["conflicts"][0]["classes"] == ["Äpfel und Öl", "犬" * 40]


def test_the_printed_commands_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "my photos; 'raw' $HOME " + "x" * 60
    fill(tmp_path / name, {"a": 10, "b": 10})
    report = check_folder(name)
    script = "msgdas() { printf '%s\\n' \"$@\"; }\n" + "\n".join(printed_commands(describe(report)))
    words = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert words == [w for command in report.proposal.commands for w in shlex.split(command)[1:]]
    assert words[words.index("--data") + 1] == f"./{name}"


def test_to_dict_is_all_of_it(tmp_path):
    root = three_parts(tmp_path)
    bad = spoil(root)
    shutil.copy(root / "train/dog/013.png", root / "test/cat/x.png")
    report = check_folder(root)
    found = json.loads(json.dumps(to_dict(report), allow_nan=False))
    assert found["ok"] is False
    assert set(found["unreadable"]) == set(bad)
    assert found["leaks"] == found["conflicts"] == found["copies"]
    assert found["copies"][0]["files"] == ["train/dog/013.png", "test/cat/x.png"]
    assert found["images"]["train"] == {"cat": 5, "dog": 10}
    assert found["proposal"]["commands"] == list(report.proposal.commands)
    assert math.isclose(found["imbalance"], 2)
