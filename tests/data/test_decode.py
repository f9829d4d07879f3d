"""Image files of every kind to square pixels."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image, features

from msgdas.data import decode
from msgdas.data.decode import SUFFIXES
from msgdas.data.form import Form
from msgdas.errors import InputError

NO_AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
AVIF = pytest.param(".avif", marks=NO_AVIF)


def gradient(height=10, width=10):
    """Smooth colours, uint8 ``(height, width, 3)``."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * y / max(1, height - 1), 255 * x / max(1, width - 1), 128 + 0 * x], -1).astype(np.uint8)


def saved(tmp_path, image, name="a.png", **kw):
    image.save(tmp_path / name, **kw)
    return tmp_path / name


def test_an_image_of_the_size_is_untouched(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    pixels = decode(saved(tmp_path, Image.fromarray(array)), Form.square(3, 12))
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), array)
    grey = decode(saved(tmp_path, Image.fromarray(array[..., 0])), Form.square(1, 12))
    assert np.array_equal(grey[0].numpy(), array[..., 0])


def test_a_file_and_its_opened_image_give_the_same(tmp_path):
    path = saved(tmp_path, Image.fromarray(gradient(20, 30)))
    with Image.open(path) as image:
        assert torch.equal(decode(image, Form.square(3, 8)), decode(str(path), Form.square(3, 8)))
        assert image.size == (30, 20)


@pytest.mark.parametrize(("height", "width"), [(40, 64), (64, 40), (8, 200), (10, 10)])
@pytest.mark.parametrize("size", [8, 16])
def test_the_shorter_side_is_resized_and_the_centre_cut(tmp_path, height, width, size):
    """A colour that is linear in x and y stays so: the corners tell the region that was kept."""
    pixels = decode(saved(tmp_path, Image.fromarray(gradient(height, width))), Form.square(3, size)).double().numpy()
    short = min(height, width)
    for plane, length, profile in ((0, height, pixels[0].mean(1)), (1, width, pixels[1].mean(0))):
        step = short / size
        centres = (length - short) / 2 + step * (np.arange(size) + 0.5) - 0.5
        expected = 255 * centres.clip(0, length - 1) / (length - 1)
        inner = slice(2, -2)  # nearer the border the filter is cut off
        assert np.abs(profile[inner] - expected[inner]).max() < 2.5, plane


def test_shrinking_is_antialiased(tmp_path):
    board = np.indices((64, 64)).sum(0) % 2 * 255  # a fine chequerboard is grey from afar
    pixels = decode(saved(tmp_path, Image.fromarray(board.astype(np.uint8))), Form.square(1, 8)).double()
    assert (pixels - 127.5).abs().max() < 3


def test_a_large_jpeg_is_decoded_small_but_looks_the_same(tmp_path):
    image = Image.fromarray(gradient(512, 512))
    jpeg, png = saved(tmp_path, image, "a.jpg", quality=95), saved(tmp_path, image)
    assert (decode(jpeg, Form.square(3, 32)).double() - decode(png, Form.square(3, 32)).double()).abs().mean() < 2


def test_transparent_is_white(tmp_path):
    array = np.concatenate([gradient(), np.zeros((10, 10, 1), np.uint8)], -1)
    array[:5, :, 3] = 255
    pixels = decode(saved(tmp_path, Image.fromarray(array)), Form.square(3, 10)).permute(1, 2, 0).numpy()
    assert np.array_equal(pixels[:5], gradient()[:5])
    assert (pixels[5:] == 255).all()
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert decode(saved(tmp_path, half), Form.square(3, 8)).unique().tolist() == [127]
    assert decode(saved(tmp_path, Image.new("LA", (8, 8), (0, 0))), Form.square(1, 8)).unique().tolist() == [255]


def test_palettes(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert decode(saved(tmp_path, image), Form.square(3, 8))[:, 0, 0].tolist() == [10, 20, 30]
    transparent = saved(tmp_path, image, "t.png", transparency=1)
    assert decode(transparent, Form.square(3, 8))[:, 0, 0].tolist() == [255] * 3
    assert decode(saved(tmp_path, image, "a.gif"), Form.square(3, 8))[:, 0, 0].tolist() == [10, 20, 30]


def test_cmyk_and_bilevel(tmp_path):
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = decode(saved(tmp_path, cmyk, "a.tif"), Form.square(3, 8))[:, 0, 0].tolist()
    assert red[0] > 200
    assert max(red[1:]) < 60
    assert decode(saved(tmp_path, Image.new("1", (8, 8), 1)), Form.square(1, 8)).unique().tolist() == [255]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("top", [200, 65535])  # a dark 16-bit image is dark
def test_sixteen_bits(tmp_path, name, top):
    array = np.linspace(0, top, 64).round().astype(np.uint16).reshape(8, 8)
    pixels = decode(saved(tmp_path, Image.fromarray(array), name), Form.square(1, 8))[0].numpy()
    assert np.array_equal(pixels, (array / 257).round().astype(np.uint8))


def test_integers_and_floats(tmp_path):
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    for array in (ramp.astype(np.float32), (ramp * 255).astype(np.float32), (ramp * 65535).astype(np.int32)):
        pixels = decode(saved(tmp_path, Image.fromarray(array), "a.tif"), Form.square(1, 8))[0].numpy()
        assert np.abs(pixels - ramp * 255).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    """Stored as the camera saw it; `undo[orientation]` turns the upright picture into that."""
    upright = Image.fromarray(gradient())
    turn = Image.Transpose
    undo = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_90,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    pixels = decode(saved(tmp_path, stored, exif=exif), Form.square(3, 10))
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), gradient())


def damaged(path, kind):
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"no image", "cut": data[: len(data) // 2], "header": data[:20]}[kind])


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "header"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", AVIF])
def test_damaged_files_are_one_line(tmp_path, kind, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), f"a{suffix}")
    damaged(path, kind)
    with pytest.raises(InputError) as error:
        decode(path, Form.square(3, 8))
    assert str(error.value).startswith(f"image '{path}' cannot be read: ")
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore")  # Pillow's about metadata
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", AVIF])
def test_random_damage_is_an_input_error_or_an_image(tmp_path, suffix):
    rng = np.random.default_rng(0)
    path = saved(tmp_path, Image.fromarray(gradient(24, 24)), f"a{suffix}")
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    outcomes = set()
    for _ in range(60):
        data = whole.copy()
        at = rng.integers(0, len(data), 3)
        data[at] = rng.integers(0, 256, 3)
        path.write_bytes(data.tobytes())
        try:
            outcomes.add(tuple(decode(path, Form.square(3, 8)).shape))
        except InputError:
            outcomes.add("error")
    assert outcomes <= {(3, 8, 8), "error"}
    assert outcomes


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_whatever_a_decoder_raises_it_is_a_bad_image(tmp_path, suffix):
    header = b"DDS " + struct.pack("<31I", *[124, 0x1007, 8, 8, *[0] * 14, 32, *[0] * 12])
    (tmp_path / f"a{suffix}").write_bytes(header + bytes(300))  # for which Pillow raises NotImplementedError
    with pytest.raises(InputError, match="cannot be read: Unknown pixel format"):
        decode(tmp_path / f"a{suffix}", Form.square(3, 8))


@NO_AVIF
def test_avif_is_read(tmp_path):
    Image.new("RGB", (20, 20), (200, 30, 30)).save(tmp_path / "a.avif")
    assert ".avif" in SUFFIXES
    assert decode(tmp_path / "a.avif", Form.square(3, 8)).float().mean((1, 2)).tolist() == pytest.approx(
        [200, 30, 30], abs=6
    )


def test_a_missing_file():
    with pytest.raises(InputError, match=r"image 'nowhere\.png' cannot be read"):
        decode("nowhere.png", Form.square(3, 8))
