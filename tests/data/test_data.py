"""Laws of the data path."""

import numpy as np
import pytest
import torch
from PIL import Image

from msgdas import InputError, load_data
from msgdas.data import Augment, Batches, DataSet, Images, augment, decode, normalise
from msgdas.data.form import Form

GREY = torch.full((3,), 127, dtype=torch.uint8)


def images(n=50, size=6, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(n) % 5)


def batches(of, **kw):
    return Batches(of, 8, mean=torch.full((3,), 0.5), std=torch.full((3,), 0.25), **kw)


def test_batches_are_a_function_of_seed_epoch_and_index():
    make = lambda seed=0: batches(images(), augment=Augment(2, True, 2), seed=seed)  # noqa: E731
    whole = list(make().epoch(3))
    assert len(whole) == len(make()) == 6
    for (x, y), (x_late, y_late) in zip(whole[4:], make().epoch(3, start=4), strict=True):
        assert torch.equal(x, x_late)
        assert torch.equal(y, y_late)
    assert not torch.equal(whole[0][0], next(make().epoch(4))[0])
    assert not torch.equal(whole[0][0], next(make(1).epoch(3))[0])


def test_an_epoch_holds_every_image_once():
    of = Images(torch.zeros(50, 3, 6, 6, dtype=torch.uint8), torch.arange(50))
    seen = torch.cat([y for _, y in batches(of, drop_last=False).epoch(0)])
    assert sorted(seen.tolist()) == list(range(50))
    assert seen.tolist() != list(range(50))
    assert torch.cat([y for _, y in batches(of, drop_last=False, shuffle=False).epoch(0)]).tolist() == list(range(50))
    assert sum(len(y) for _, y in batches(of).epoch(0)) == 48
    assert [len(y) for _, y in batches(of.take(torch.arange(3))).epoch(0)] == [3]


@pytest.mark.parametrize("small", [0, 2**30])
def test_augmentation_is_the_slow_one(small):
    pixels, crop, cut = images(64).pixels, 2, 3
    got = augment(pixels, Augment(crop, True, cut), GREY, torch.Generator().manual_seed(7), int32_pixels=small)
    draws = torch.rand(5, 64, generator=torch.Generator().manual_seed(7))
    for i in range(64):
        padded = np.full((3, 6 + 2 * crop, 6 + 2 * crop), 127, np.uint8)
        padded[:, crop:-crop, crop:-crop] = pixels[i].numpy()
        dy, dx = int(5 * draws[0, i]), int(5 * draws[1, i])
        if draws[2, i] < 0.5:
            expected = _shifted_then_mirrored(pixels[i].numpy(), dy - crop, dx - crop)
        else:
            expected = padded[:, dy : dy + 6, dx : dx + 6].copy()
        top, left = int(6 * draws[3, i]) - 1, int(6 * draws[4, i]) - 1
        expected[:, max(0, top) : top + cut, max(0, left) : left + cut] = 127
        assert np.array_equal(got[i].numpy(), expected)


def _shifted_then_mirrored(image, dy, dx):
    out = np.full_like(image, 127)
    for y in range(6):
        for x in range(6):
            source_y, source_x = y + dy, 5 - (x + dx)
            if 0 <= source_y < 6 and 0 <= source_x < 6:
                out[:, y, x] = image[:, source_y, source_x]
    return out


def test_normalised_training_images_have_mean_0_and_deviation_1():
    data = load_data("digits")
    x = normalise(data.train.pixels, data.mean, data.std)
    assert x.mean().abs() < 1e-5
    assert (x.std() - 1).abs() < 1e-3
    assert normalise(images().pixels, torch.ones(3), torch.ones(3)).is_contiguous(memory_format=torch.channels_last)


def test_digits_are_split_once_and_for_all():
    data = load_data("digits")
    assert (len(data.train) + len(data.val) + len(data.test), data.channels, data.image_size) == (1797, 1, 8)
    again = load_data("digits")
    assert torch.equal(data.test.pixels, again.test.pixels)
    other = load_data("digits", split_seed=1)
    assert not torch.equal(data.test.labels, other.test.labels)


def test_halves_are_disjoint_stratified_and_seeded():
    data = load_data("digits")
    first, second = data.halves(0)
    assert len(first) == len(second) == len(data.train) // 2
    key = lambda part: {tuple(p.flatten().tolist()) for p in part.pixels}  # noqa: E731
    assert not key(first) & key(second)
    counts = [torch.bincount(half.labels) for half in (first, second)]
    assert (counts[0] - counts[1]).abs().max() <= 2
    assert torch.equal(first.pixels, data.halves(0)[0].pixels)
    assert not torch.equal(first.labels, data.halves(1)[0].labels)
    assert len(data.halves(0, 100)[1]) == 100
    with pytest.raises(InputError, match="images=5"):
        data.halves(0, 5)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("limit", [6, 7, 20, None])
def test_the_rarest_class_is_in_both_halves(seed, limit):
    labels = torch.cat([torch.zeros(900), torch.ones(60), torch.arange(2, 6).repeat_interleave(2)]).long()
    pixels = torch.arange(len(labels)).view(-1, 1, 1, 1)
    part = Images(pixels, labels)
    data = DataSet("x", tuple("abcdef"), part, part, part, torch.zeros(1), torch.ones(1), Augment())
    first, second = data.halves(seed, limit)
    for half in (first, second):
        assert half.labels.unique().tolist() == list(range(6))
        assert torch.equal(half.labels, labels[half.pixels.flatten()])
    assert len(first) == len(second) == (limit or 484)
    assert len({*first.pixels.flatten().tolist(), *second.pixels.flatten().tolist()}) == 2 * len(first)
    assert torch.equal(first.pixels, data.halves(seed, limit)[0].pixels)


def test_class_weights_are_balanced():
    part = Images(images(10).pixels, torch.tensor([0] * 6 + [1] * 3 + [2]))
    data = DataSet("x", tuple("abc"), part, part, part, torch.zeros(3), torch.ones(3), Augment())
    weights = data.class_weights()
    assert (weights.dtype, weights.shape) == (torch.float32, (3,))
    torch.testing.assert_close(weights, 10 / (3 * torch.tensor([6.0, 3.0, 1.0])))
    torch.testing.assert_close(weights[part.labels].mean(), torch.tensor(1.0))


def test_a_batch_has_images():
    for size in (0, -1):
        with pytest.raises(InputError, match=f"^batch_size={size}: use 1 or more$"):
            Batches(images(), size, mean=torch.zeros(3), std=torch.ones(3))


def folder(root, layout, n=10, size=(9, 9), mode="RGB"):
    for place in layout:
        (root / place).mkdir(parents=True)
        for i in range(n):
            pixels = np.full((*size[::-1], 3), (20 * i) % 256, np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / place / f"{i}.png")
    return root


def test_folders_in_every_layout(tmp_path):
    alone = load_data(folder(tmp_path / "a", ["katze", "hündchen/tief"], n=40))
    assert alone.classes == ("hündchen", "katze")
    assert (len(alone.train) + len(alone.val) + len(alone.test), alone.image_size, alone.channels) == (80, 9, 3)
    parts = load_data(folder(tmp_path / "b", [f"{p}/{c}" for p in ("train", "validation", "test") for c in "xy"]))
    assert [len(p) for p in (parts.train, parts.val, parts.test)] == [20, 20, 20]
    two = load_data(folder(tmp_path / "c", [f"{p}/{c}" for p in ("train", "test") for c in "xy"], n=20))
    assert [len(p) for p in (two.train, two.val, two.test)] == [34, 6, 40]
    assert load_data(folder(tmp_path / "d", ["x", "y"], size=(200, 120), n=20)).image_size == 64
    assert load_data(folder(tmp_path / "e", ["x", "y"], mode="L", n=20)).channels == 1


def test_images_of_every_mode(tmp_path):
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"):
        file = tmp_path / f"{mode.replace(';', '')}.tif"
        if mode == "I;16":
            Image.fromarray(np.full((5, 8), 65535, np.uint16)).save(file)
        elif mode in ("LA", "P"):
            file = file.with_suffix(".png")
            Image.new(mode, (8, 5), 255 if mode == "P" else (255, 255)).save(file)
        else:
            Image.new("RGB", (8, 5), "white").convert(mode).save(file)
        for channels in (1, 3):
            pixels = decode(file, Form.square(channels, 4))
            assert (pixels.shape, pixels.dtype) == ((channels, 4, 4), torch.uint8)
            assert mode == "P" or pixels.min() > 250
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert decode(clear, Form.square(3, 4)).min() == 255  # on white


def test_images_are_turned_upright(tmp_path):
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 10)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(decode(tmp_path / "turned.png", Form.square(1, 4)), decode(image, Form.square(1, 4)).flip(1, 2))


def test_bad_files_are_named_and_skipped_or_stopped_on(tmp_path):
    root = folder(tmp_path / "a", ["x", "y"], n=20)
    (root / "x/broken.png").write_bytes(b"no image")
    (root / "x/empty.jpg").touch()
    with pytest.warns(UserWarning, match=r"left out 2 of 42 (?=.*broken\.png)(?=.*empty\.jpg)"):
        data = load_data(root)
    assert len(data.train) + len(data.val) + len(data.test) == 40
    with pytest.raises(InputError, match="broken"):
        load_data(root, on_bad_image="stop")


def test_wrong_folders_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    cases = {
        "empty": "no class folders",
        "one": "one class",
        "no_train": "no 'train'",
        "stranger": "class 'z' is in",
        "few": "class 'x' has too few images .3.",
        "none": "neither a known name",
    }
    folder(tmp_path / "one", ["x"])
    folder(tmp_path / "no_train", ["test/x", "test/y"])
    folder(tmp_path / "stranger", ["train/x", "train/y", "test/z"])
    folder(tmp_path / "few", ["x", "y"], n=3)
    for name, line in cases.items():
        with pytest.raises(InputError, match=line) as caught:
            load_data(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_order_and_augmentation_have_streams_of_their_own():
    from msgdas.data.batches import _generator

    of = batches(images(), augment=Augment(2))
    order = torch.randperm(50, generator=_generator(0, 0))[:8]
    x, y = next(of.epoch(0))
    assert torch.equal(y, of.images.labels[order])
    shared = augment(of.images.pixels[order], Augment(2), of._fill, _generator(0, 0))
    assert not torch.equal(x, normalise(shared, of.mean, of.std))
