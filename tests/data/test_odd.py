"""What people's folders hold: odd images, names, links and classes."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from msgdas import InputError, load_data
from msgdas.data import decode
from msgdas.data.form import Form

RED, BLUE = (250, 0, 0), (0, 0, 250)


def fill(root, classes="ab", count=8, size=(8, 8)):
    """Plain images: red in the first class, blue in the others."""
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", size, BLUE if k else RED).save(root / name / f"{i:02}.png")
    return root


def total(data):
    return len(data.train) + len(data.val) + len(data.test)


def warned(root, **kw):
    """The data set, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load_data(root, **kw)
    assert all(w.filename == __file__ and "\n" not in str(w.message) for w in caught)
    return data, [str(w.message) for w in caught]


# ---------------------------------------------------------------------------- images


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_of_several_frames_the_first_counts(tmp_path, suffix):
    first, *others = (Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE, BLUE))
    kw = {"lossless": True} if suffix == ".webp" else {}
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=others, **kw)
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.n_frames > 1
    assert decode(tmp_path / f"a{suffix}", Form.square(3, 8))[:, 4, 4].tolist() == list(RED)


@pytest.mark.parametrize("size", [(1, 1), (6000, 6000), (6000, 1), (1, 6000), (3000, 20)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_sizes_and_shapes_at_the_extreme(tmp_path, size, suffix):
    Image.new("RGB", size, RED).save(tmp_path / f"a{suffix}")
    pixels = decode(tmp_path / f"a{suffix}", Form.square(3, 32))
    assert pixels.shape == (3, 32, 32)
    assert (pixels - torch.tensor(RED)[:, None, None]).abs().max() < 6


def png16(colour):
    """An RGB PNG of 16 bits, which Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = (b"\0" + struct.pack(">3H", *(257 * c for c in colour)) * 8) * 8
    head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def tiff16(colour, order):
    """An RGB TIFF of 16 bits, little- or big-endian."""
    entries = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, 8), (279, 4, 1, 384)]
    file = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        file += struct.pack(f"{order}HHI", tag, kind, count) + struct.pack(
            f"{order}{'HH' if short else 'I'}", *((value, 0) if short else (value,))
        )
    file = (file + bytes(4)).ljust(122, b"\0") + struct.pack(f"{order}3H", 16, 16, 16)
    return file + struct.pack(f"{order}3H", *(257 * c for c in colour)) * 64


@pytest.mark.parametrize(
    ("name", "content"), [("a.png", png16(RED)), ("a.tif", tiff16(RED, "<")), ("b.tif", tiff16(RED, ">"))]
)
def test_colour_of_sixteen_bits(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert decode(tmp_path / name, Form.square(3, 8))[:, 4, 4].tolist() == list(RED)


def test_big_endian_grey_of_sixteen_bits(tmp_path):
    ramp = np.linspace(0, 65535, 64).round().reshape(8, 8)
    Image.frombytes("I;16B", (8, 8), ramp.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    assert np.array_equal(decode(tmp_path / "a.tif", Form.square(1, 8))[0], (ramp / 257).round())


def test_a_wrong_suffix_does_not_matter(tmp_path):
    root = fill(tmp_path)
    (root / "a/00.png").rename(root / "a/00.JPG")
    data, lines = warned(root)
    assert (total(data), lines) == (16, [])
    assert data.train.pixels[data.train.labels == 0].flatten(2).unique(dim=2).flatten().tolist().count(250)


def test_a_folder_of_everything(tmp_path):
    """Sizes, formats and modes side by side, in memory and streamed."""
    root = fill(tmp_path, count=6)
    for i, (mode, suffix) in enumerate(
        [("L", ".bmp"), ("P", ".gif"), ("RGBA", ".webp"), ("CMYK", ".JPEG"), ("1", ".TIF"), ("LA", ".png")]
    ):
        Image.new("RGB", (5 + 90 * i, 70), "white").convert(mode).save(root / "b" / f"neu {i}{suffix}")
    for kw in ({}, {"max_memory": 0, "workers": 0}):
        data, lines = warned(root, **kw)
        assert (total(data), data.channels, data.image_size, lines) == (18, 3, 64, [])
        assert sum(len(part.gather(torch.arange(len(part)))[1]) for part in (data.train, data.val, data.test)) == 18


# --------------------------------------------------------------------- names and links


@pytest.mark.parametrize("kw", [{}, {"max_memory": 0, "workers": 0}])
def test_names_of_all_kinds(tmp_path, kw):
    root = fill(tmp_path / "Bil der\n'neu'", classes=("Äpfel\nund Öl", "犬 🐕"))
    for i, name in enumerate(("zwei\nZeilen.PNG", "' \" ?.png", b"\xff.png")):
        target = os.path.join(os.fsencode(root / "犬 🐕"), os.fsencode(name))
        os.rename(root / "犬 🐕" / f"{i:02}.png", target)
    data, lines = warned(root, **kw)
    assert (data.classes, total(data), lines) == (("Äpfel\nund Öl", "犬 🐕"), 16, [])
    for part in (data.train, data.val, data.test):
        pixels, labels, failures = part.gather(torch.arange(len(part)))
        assert not failures
        assert torch.equal(pixels[:, 0, 0, 0] == 0, labels == 1)


@pytest.mark.parametrize("kw", [{}, {"max_memory": 0, "workers": 0}])
def test_a_bad_file_with_a_newline_in_its_name_is_one_line(tmp_path, kw):
    root = fill(tmp_path)
    (root / "a/zwei\nZeilen.png").write_bytes(b"")
    (root / "a/krank\x1b.png").write_bytes(b"")
    _, (line,) = warned(root, **kw)
    assert r"zwei\nZeilen.png" in line
    assert "\x1b" not in line


def test_links_to_files_and_folders_are_followed(tmp_path):
    fill(tmp_path / "elsewhere", classes="xy", count=5)
    root = fill(tmp_path / "data")
    (root / "a/more").symlink_to(tmp_path / "elsewhere/x")
    (root / "b/one.png").symlink_to(tmp_path / "elsewhere/y/00.png")
    data, lines = warned(root)
    assert (total(data), lines) == (22, [])
    (root / "a/again").symlink_to(tmp_path / "elsewhere/x")  # each folder once
    assert total(load_data(root)) == 22


def test_loops_of_links_end(tmp_path):
    root = fill(tmp_path / "data")
    (root / "a/self").symlink_to(root / "a")
    (root / "a/up").symlink_to(root)  # has the images of b
    (root / "b/deep").mkdir()
    (root / "b/deep/back").symlink_to(root / "b")
    (root / "loop").symlink_to(root / "loop")
    data, lines = warned(root)
    assert (data.classes, total(data), lines) == (("a", "b"), 16, [])
    assert torch.equal(data.train.pixels[:, 0, 0, 0] == 0, data.train.labels == 1)


@pytest.mark.parametrize("kw", [{}, {"max_memory": 0, "workers": 0}])
def test_links_to_nowhere_are_left_out(tmp_path, kw):
    root = fill(tmp_path)
    (root / "a/gone.png").symlink_to(root / "nowhere.png")
    (root / "a/loop.png").symlink_to(root / "a/loop.png")
    data, (line,) = warned(root, **kw)
    assert total(data) == 16
    assert line.startswith("left out 2 of 18 image files: ")


# ----------------------------------------------------------------------------- classes


def test_folders_without_images_are_named(tmp_path):
    root = fill(tmp_path)
    for name in ("empty", "scripts\n", ".hidden"):
        (root / name).mkdir()
    (root / "scripts\n/a.py").touch()
    data, lines = warned(root)
    assert data.classes == ("a", "b")
    assert lines == ["folder 'empty', 'scripts\\n' without images: no class"]


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("kw", [{}, {"max_memory": 0, "workers": 0}])
def test_classes_that_val_or_test_lacks_are_named(tmp_path, part, kw):
    fill(tmp_path / "train", "abcdef")
    fill(tmp_path / part, "b")
    (tmp_path / part / "c").mkdir()
    data, lines = warned(tmp_path, **kw)
    assert lines == [f"class 'a', 'c', 'd' and 2 more without images in {part}: accuracy there does not count it"]
    assert data.num_classes == 6
    assert getattr(data, part).labels.unique().tolist() == [1]


def test_a_class_that_train_lacks_is_an_error(tmp_path):
    fill(tmp_path / "train", "ab")
    fill(tmp_path / "val", "abc")
    (tmp_path / "train/c").mkdir()
    with pytest.raises(InputError, match=r"class 'c' is in '.*val' but not in '.*train': add or remove it$"):
        load_data(tmp_path)
