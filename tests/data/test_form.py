"""What images of any shape and depth are made into: nothing that matters is cut off or flattened in silence."""

import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from msgdas.data import load_data
from msgdas.data.decode import MOST_PIXELS, decode, header, ranges
from msgdas.data.form import Form, fitted, parse_size
from msgdas.errors import InputError


def strip(path, side, height=32, width=200):
    """A dark strip, bright at its left or right end."""
    array = np.full((height, width), 20, np.uint8)
    array[:, : width // 8 if side == "early" else width] = 200 if side == "early" else 20
    if side == "late":
        array[:, -width // 8 :] = 200
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def strips(tmp_path):
    for side in ("early", "late"):
        for i in range(10):
            strip(tmp_path / "strips" / side / f"{i}.png", side)
    return tmp_path / "strips"


# size


@pytest.mark.parametrize(
    ("text", "size"),
    [(64, (64, 64)), ("64", (64, 64)), ("32x200", (32, 200)), (" 32X200 ", (32, 200)), ("8×4", (8, 4))],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "64x", "-1", "0", "3", "64x3", "1e18", "nan", "9" * 30, "64x64x3", "70000"])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="image size") as error:
        parse_size(text)
    assert len(str(error.value)) < 200


# how images are brought to it


def test_images_of_one_small_size_keep_it():
    assert fitted([(200, 32)] * 3, None, "auto") == ((32, 200), "crop", "")
    assert fitted([(96, 96)] * 3, None, "auto") == ((96, 96), "crop", "")
    assert fitted([(97, 97)] * 3, None, "auto") == ((64, 64), "crop", "")
    assert fitted([(24, 24), (24, 25)], None, "auto")[0] == (64, 64)
    assert fitted([(3, 200)] * 3, None, "auto")[0] == (64, 64)


def test_photographs_are_cropped_and_what_is_lost_is_said():
    sizes = [(400, 300), (300, 400), (600, 400)]
    assert fitted(sizes, None, "auto") == ((64, 64), "crop", "cropping cuts 25% off the median image")


def test_long_images_of_one_shape_are_stretched_and_those_of_many_padded():
    why = "cropping to 64 × 64 would cut {} off the median image"
    assert fitted([(2000, 320)] * 4 + [(2000, 330)], (64, 64), "auto") == ((64, 64), "stretch", why.format("84%"))
    assert fitted([(2000, 320), (320, 2000)] * 3, (64, 64), "auto") == ((64, 64), "pad", why.format("84%"))
    assert fitted([(2000, 320)] * 4, (32, 200), "auto")[1:] == ("crop", "")


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_a_setting_is_a_setting(resize):
    assert fitted([(2000, 320)] * 4, None, resize)[1] == resize


def test_crop_pad_and_stretch(tmp_path):
    strip(tmp_path / "a.png", "early", 20, 40)
    crop, pad, stretch = (
        decode(tmp_path / "a.png", Form(1, 20, 20, resize))[0].float() for resize in ("crop", "pad", "stretch")
    )
    assert crop.unique().tolist() == [20]  # the bright end is gone
    assert pad[:4].unique().tolist() == [0]  # black above and below
    assert pad[10, 0] == stretch[10, 0] == 200
    assert stretch[:, -1].unique().tolist() == [20]
    assert decode(tmp_path / "a.png", Form(1, 8, 32, "stretch")).shape == (1, 8, 32)


def test_a_strip_keeps_its_sides(strips):
    data = load_data(strips)
    assert data.image_shape == (32, 200)
    assert data.image_size == 32
    assert data.resizing == ""
    early, late = (data.train.pixels[data.train.labels == label].float().mean((0, 1, 2)) for label in (0, 1))
    assert early[0] == late[-1] == 200
    squares = load_data(strips, image_size=32)
    assert squares.image_shape == (32, 32)
    assert squares.resizing == "stretched: cropping to 32 × 32 would cut 84% off the median image"
    assert len({tuple(image.flatten().tolist()) for image in squares.train.pixels}) == 2
    cut = load_data(strips, image_size=32, resize="crop")
    assert cut.resizing == "cropped: as set"
    assert len({tuple(image.flatten().tolist()) for image in cut.train.pixels}) == 1


def test_in_memory_and_from_disk_alike(strips):
    memory, disk = load_data(strips, image_size="16x80"), load_data(strips, image_size="16x80", max_memory=0, workers=0)
    index = torch.arange(4)
    assert memory.form == disk.form
    assert torch.equal(memory.train.gather(index)[0], disk.train.gather(index)[0])


def test_a_form_overrides_size_and_resize(strips):
    form = Form(3, 8, 12, "pad")
    data = load_data(strips, image_size=64, form=form)
    assert data.form == form
    assert tuple(data.train.pixels.shape[1:]) == (3, 8, 12)
    assert Form(**asdict(form)) == form


def test_what_lies_on_its_side_is_turned_before_it_is_resized(tmp_path):
    strip(tmp_path / "a.jpg", "early", 20, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise
    Image.open(tmp_path / "a.jpg").save(tmp_path / "turned.jpg", exif=exif, quality=100)
    assert header(tmp_path / "turned.jpg").size == (20, 40)
    pixels = decode(tmp_path / "turned.jpg", Form(1, 40, 20))[0].float()
    assert pixels[0].mean() > 190
    assert pixels[-1].mean() < 30


# more than 8 bits


def deep(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.broadcast_to(np.asarray(values), (8, len(values))).copy()).save(path)


def test_values_are_scaled_by_the_datas_own_range(tmp_path):
    for name, top in (("bright", 3.0), ("dark", 1.0)):
        for i in range(6):
            deep(tmp_path / name / f"{i}.tif", np.array([-1.0, 0.0, top, np.nan], np.float32))
    data = load_data(tmp_path)
    assert data.form.floats == (-1, 3)
    assert data.form.integers is None
    assert "numbers -1 to 3 scaled to 8 bits" in data.resizing
    files = [tmp_path / name / "0.tif" for name in ("bright", "dark")]
    form = Form(1, 8, 4, floats=(-1.0, 3.0))
    assert [decode(file, form)[0, 0].tolist() for file in files] == [[0, 64, 255, 0], [0, 64, 128, 0]]
    assert decode(files[1], Form(1, 8, 4))[0, 0, 2] == 255  # alone: as it was before, by its own values


def test_ranges_of_what_has_none(tmp_path):
    deep(tmp_path / "zero.png", np.zeros(4, np.uint16))
    (tmp_path / "bad.png").write_bytes(b"nothing")
    Image.new("L", (4, 4), 9).save(tmp_path / "plain.png")
    assert ranges([tmp_path / name for name in ("zero.png", "bad.png", "plain.png")]) == (None, None)


# bounds


def test_more_pixels_than_are_decoded_at_once_are_a_bad_image(tmp_path, monkeypatch):
    assert MOST_PIXELS * 3 < 256 * 2**20
    monkeypatch.setattr(sys.modules["msgdas.data.decode"], "MOST_PIXELS", 500_000)
    Image.new("1", (1000, 600)).save(tmp_path / "large.png")
    with pytest.raises(InputError, match=r"cannot be read: 0\.6 megapixels; at most 0\.5 are decoded"):
        decode(tmp_path / "large.png", Form.square(1, 8))
    Image.new("L", (1000, 600), 77).save(tmp_path / "large.jpg")  # which is decoded at an eighth
    assert decode(tmp_path / "large.jpg", Form.square(1, 8)).unique().tolist() == [77]
