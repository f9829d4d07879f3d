"""Data sets by name, folders in every layout, and each error line."""

import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from reference import threads

from msgdas.data import Augment, load_data
from msgdas.data.folder import list_folder
from msgdas.data.read import Reading, read
from msgdas.errors import InputError

COLOURS = {"blue": (0, 0, 250), "green": (0, 250, 0), "red": (250, 0, 0)}


def fill(root, count=10, size=8, suffix=".png", colours=COLOURS, mode="RGB"):
    """``count`` images per class; pixel (0, 0) of the last channel tells them apart."""
    for name, colour in colours.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            array = np.full((size, size, 3), colour, np.uint8)
            array[0, 0] = i
            Image.fromarray(array).convert(mode).save(root / name / f"{i:03}{suffix}")
    return root


def rows(images):
    """The images as a set of (label, bytes)."""
    return {(label, p.numpy().tobytes()) for p, label in zip(images.pixels, images.labels.tolist())}


def check_labels(data):
    """Every image has its class's colour, and is not lost among the classes."""
    for part in (data.train, data.val, data.test):
        for label, name in enumerate(data.classes):
            seen = part.pixels[part.labels == label][:, :, -1, -1].unique(dim=0)
            assert seen.tolist() == [list(COLOURS[name])]


def error_line(*args, **kw):
    with pytest.raises(InputError) as error:
        load_data(*args, **kw)
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------ digits


def test_digits():
    data = load_data("digits")
    assert (data.name, data.classes, data.channels, data.image_size) == ("digits", tuple("0123456789"), 1, 8)
    assert len(data.train) + len(data.val) + len(data.test) == 1797
    assert data.augment == Augment(crop=1)
    pixels = torch.cat([data.train.pixels, data.val.pixels, data.test.pixels])
    assert (pixels.dtype, pixels.min(), pixels.max()) == (torch.uint8, 0, 255)
    assert len(pixels.unique()) == 17
    for part, share in ((data.train, 0.68), (data.val, 0.12), (data.test, 0.2)):
        counts = torch.bincount(part.labels) / len(part)
        assert abs(len(part) / 1797 - share) < 0.01
        assert (counts - 0.1).abs().max() < 0.01


def test_mean_and_std_are_those_of_train():
    data = load_data("digits")
    exact = data.train.pixels.double() / 255
    torch.testing.assert_close(data.mean, exact.mean((0, 2, 3)).float())
    torch.testing.assert_close(data.std, exact.std((0, 2, 3), correction=0).float())


def test_the_split_has_a_seed_of_its_own():
    torch.manual_seed(1)
    one = load_data("digits")
    torch.manual_seed(2)
    assert torch.equal(one.test.pixels, load_data("digits").test.pixels)
    assert not torch.equal(one.test.pixels, load_data("digits", split_seed=1).test.pixels)


def test_digits_of_another_size_and_beside_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(fill(tmp_path / "digits").parent)
    assert load_data("digits").num_classes == 10
    assert load_data("./digits").num_classes == 3
    small, large = load_data("digits"), load_data("digits", image_size=16)
    assert large.image_size == 16
    assert torch.equal(small.train.labels, large.train.labels)
    assert abs(small.mean.item() - large.mean.item()) < 0.01


# ------------------------------------------------------------------------ layouts


@pytest.mark.parametrize("val", ["val", "validation", "valid"])
def test_three_parts(tmp_path, val):
    for part, count in (("train", 7), (val, 3), ("test", 4)):
        fill(tmp_path / part, count)
    data = load_data(tmp_path)
    assert [len(p) for p in (data.train, data.val, data.test)] == [21, 9, 12]
    assert data.classes == ("blue", "green", "red")
    assert (data.name, data.image_size, data.channels) == (tmp_path.name, 8, 3)
    assert data.augment == Augment(crop=1, flip=False)  # so few cannot tell whether they may be mirrored
    check_labels(data)


@pytest.mark.parametrize("given", [(), ("val",), ("test",)])
@pytest.mark.parametrize("flat", [True, False])
def test_missing_parts_are_split_from_train(tmp_path, given, flat):
    if flat and given:
        pytest.skip("class folders alone have no parts")
    fill(tmp_path if flat else tmp_path / "train", 20)
    for part in given:
        fill(tmp_path / part, 5)
    data = load_data(tmp_path, val_fraction=0.1, test_fraction=0.5)
    sizes = {"val": 15 if "val" in given else 6 if "test" in given else 3, "test": 15 if "test" in given else 30}
    assert (len(data.val), len(data.test)) == (sizes["val"], sizes["test"])
    assert len(data.train) == 60 - sum(sizes[p] for p in sizes if p not in given)
    check_labels(data)
    own = [data.train, *(part for name, part in (("val", data.val), ("test", data.test)) if name not in given)]
    assert len(set.union(*map(rows, own))) == sum(map(len, own)) == 60
    for part in own:
        assert len(torch.bincount(part.labels, minlength=3).unique()) == 1
    again = load_data(tmp_path, val_fraction=0.1, test_fraction=0.5)
    assert torch.equal(again.test.pixels, data.test.pixels)


def test_the_test_part_does_not_depend_on_the_fraction_of_val(tmp_path):
    fill(tmp_path, 20)
    one, other = load_data(tmp_path, val_fraction=0.1), load_data(tmp_path, val_fraction=0.4)
    assert torch.equal(one.test.pixels, other.test.pixels)


def test_nested_hidden_and_strange_names(tmp_path):
    names = ("Äpfel und Öl", "犬", "a.b")
    for name in names:
        for i in range(8):
            folder = tmp_path / name / ("tief/er" if i % 2 else "")
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"bild ü {i}.{'PNG' if i % 3 else 'jpeg'}")
        copies = tmp_path / name / ".ipynb_checkpoints"
        copies.mkdir()
        Image.new("RGB", (8, 8)).save(copies / "1-checkpoint.png")
        (tmp_path / name / "._1.png").write_bytes(b"no image")
        (tmp_path / name / "notes.txt").write_text("no image")
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("about")
    data = load_data(tmp_path)
    assert data.classes == tuple(sorted(names))
    assert len(data.train) + len(data.val) + len(data.test) == 24


def test_classes_called_like_parts(tmp_path):
    fill(tmp_path, 10, colours={"invalid": (1, 1, 1), "valid": (9, 9, 9), "train": (5, 5, 5)})
    with pytest.warns(UserWarning, match="folder 'train', 'valid' taken for classes, not for parts"):
        assert load_data(tmp_path).classes == ("invalid", "train", "valid")


def test_folders_without_images_are_no_classes(tmp_path):
    fill(tmp_path, 10)
    (tmp_path / "scripts").mkdir()
    with pytest.warns(UserWarning, match="folder 'scripts' without images"):
        assert load_data(tmp_path).classes == tuple(COLOURS)


def test_a_linked_class_folder(tmp_path):
    fill(tmp_path / "elsewhere", 10, colours={"red": COLOURS["red"]})
    fill(tmp_path / "data", 10, colours={"blue": COLOURS["blue"]})
    os.symlink(tmp_path / "elsewhere" / "red", tmp_path / "data" / "red")
    check_labels(load_data(tmp_path / "data"))


# ------------------------------------------------------------------------ modes and sizes


@pytest.mark.parametrize(
    ("modes", "channels"),
    [("L L L", 1), ("L LA 1", 1), ("L RGB L", 3), ("RGBA RGB P", 3), ("L P L", 3), ("CMYK RGB L", 3)],
)
def test_modes(tmp_path, modes, channels):
    for i, mode in enumerate(modes.split()):
        fill(tmp_path / f"{i}", 10, suffix=".tif" if mode == "CMYK" else ".png", mode=mode)
    for name in COLOURS:
        (tmp_path / name).mkdir()
        for i in range(len(modes.split())):
            for path in (tmp_path / f"{i}" / name).iterdir():
                path.rename(tmp_path / name / f"{i}-{path.name}")
    for i in range(len(modes.split())):
        for name in COLOURS:
            (tmp_path / f"{i}" / name).rmdir()
        (tmp_path / f"{i}").rmdir()
    assert load_data(tmp_path).channels == channels


def test_one_colour_image_beyond_the_sample_makes_all_rgb(tmp_path):
    fill(tmp_path, 10, mode="L")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red" / "001.png")
    files = list_folder(tmp_path).parts
    how = Reading(None, "auto", stop=True, max_memory=2**20, workers=0, sample=3)
    assert read(files, how)[0]["train"].channels == 3
    assert load_data(tmp_path).channels == 3


def test_sixteen_bit_folder(tmp_path):
    """Their own largest value becomes 255: 12 bits in a file of 16 keep their contrast."""
    for name, level in (("bright", 4000), ("dark", 1000)):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.fromarray(np.full((8, 8), level, np.uint16)).save(tmp_path / name / f"{i}.png")
    data = load_data(tmp_path)
    assert data.channels == 1
    assert data.train.pixels[data.train.labels == 0].unique().tolist() == [255]
    assert data.train.pixels[data.train.labels == 1].unique().tolist() == [64]
    assert data.resizing == "integers 0 to 4,000 scaled to 8 bits"
    assert data.form.integers == (0, 4000)


@pytest.mark.parametrize(("size", "given", "used"), [(8, None, 8), (96, None, 96), (100, None, 64), (8, 16, 16)])
def test_image_size(tmp_path, size, given, used):
    fill(tmp_path, 8, size=size)
    data = load_data(tmp_path, image_size=given)
    assert data.train.pixels.shape[1:] == (3, used, used)
    assert data.augment.crop == max(1, used // 8)


def test_images_of_different_sizes(tmp_path):
    fill(tmp_path, 8)
    Image.new("RGB", (9, 8)).save(tmp_path / "red" / "000.png")
    assert load_data(tmp_path).image_size == 64


def test_std_is_not_zero(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.new("L", (8, 8), 7).save(tmp_path / name / f"{i}.png")
    assert load_data(tmp_path).std.item() == pytest.approx(1 / 255)


def test_as_many_threads_as_torch_give_the_same(tmp_path):
    fill(tmp_path, 80)
    one = load_data(tmp_path)
    with threads(3):
        three = load_data(tmp_path)
    assert torch.equal(one.train.pixels, three.train.pixels)


# ------------------------------------------------------------------------ bad files


def spoil(tmp_path, count):
    fill(tmp_path, 20)
    bad = sorted((tmp_path / "green").iterdir())[:count]
    for i, path in enumerate(bad):
        path.write_bytes(b"" if i % 2 else path.read_bytes()[:60])
    return bad


def test_unreadable_files_are_left_out_with_one_warning(tmp_path):
    bad = spoil(tmp_path, 5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load_data(tmp_path)
    (warning,) = caught
    line = str(warning.message)
    assert line.startswith("left out 5 of 60 image files: ")
    assert line.endswith("; and 2 more")
    assert sum(str(path) in line for path in bad) == 3
    assert "\n" not in line
    assert warning.filename == __file__
    assert len(data.train) + len(data.val) + len(data.test) == 55
    assert len(set.union(*map(rows, (data.train, data.val, data.test)))) == 55
    check_labels(data)


def test_leaving_out_does_not_move_others_between_parts(tmp_path):
    fill(tmp_path, 20)
    before = load_data(tmp_path)
    for path in sorted((tmp_path / "green").iterdir())[:3]:
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="left out 3 of 60"):
        after = load_data(tmp_path)
    for name in ("train", "val", "test"):
        assert rows(getattr(after, name)) <= rows(getattr(before, name))


def test_stop_raises(tmp_path):
    bad = spoil(tmp_path, 5)
    line = error_line(tmp_path, on_bad_image="stop")
    assert "cannot be read" in line
    assert any(str(path) in line for path in bad)


# ------------------------------------------------------------------------ error lines


def test_unknown_names():
    names = "digits, cifar10, cifar100, svhn, fashion-mnist, imagenet"
    line = f"data 'digitz' is neither a known name ({names}) nor a folder or file. Did you mean 'digits'?"
    assert error_line("digitz") == line
    assert error_line("/no/where") == (
        f"data '/no/where' is neither a known name ({names}) nor a folder or file: "
        "give the path of a folder with a folder of images per class"
    )


def test_arguments():
    assert error_line("digits", on_bad_image="jump") == "on_bad_image='jump': use 'skip' or 'stop'"
    assert error_line("digits", image_size=2) == "image size 2: use 4 pixels or more, and at most 16,384"
    assert error_line("digits", split_seed=-1) == "split_seed=-1: use 0 to 2**32 - 1"
    assert error_line("digits", val_fraction=1.0).startswith(
        "test_fraction=0.2, val_fraction=1.0: use fractions above 0"
    )


@pytest.mark.parametrize("given", [{"labels": "x.csv"}, {"group": "folder"}, {"drop_duplicates": True}])
def test_what_is_for_files_is_refused_for_other_data(given):
    (name,) = given
    assert error_line("digits", **given).startswith(f"{name}=")
    assert error_line({"x": np.zeros((4, 8, 8)), "y": [0, 1, 0, 1]}, **given).endswith("image files: leave it out")


def test_nothing_there(tmp_path):
    expected = f"data folder '{tmp_path}' has no class folders with images: put the images of each"
    assert error_line(tmp_path).startswith(expected)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    assert error_line(tmp_path).startswith(expected)


def test_one_class(tmp_path):
    fill(tmp_path, 5, colours={"red": COLOURS["red"]})
    assert error_line(tmp_path).startswith(f"data folder '{tmp_path}' has only one class ('red'): ")


def test_no_train(tmp_path):
    fill(tmp_path / "test", 5)
    assert error_line(tmp_path) == f"data folder '{tmp_path}' has 'test' but no 'train' with class folders: add it"


def test_a_class_that_train_does_not_have(tmp_path):
    fill(tmp_path / "train", 5, colours={"blue": COLOURS["blue"], "red": COLOURS["red"]})
    fill(tmp_path / "test", 5)
    assert error_line(tmp_path).startswith(
        f"class 'green' is in '{tmp_path / 'test'}' but not in '{tmp_path / 'train'}'"
    )


def test_a_part_without_class_folders(tmp_path):
    fill(tmp_path / "train", 10)
    (tmp_path / "test").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "test" / "0.png")
    assert error_line(tmp_path).startswith(f"'{tmp_path / 'test'}' has no class folders with images: ")


def test_a_class_too_small_to_split(tmp_path):
    fill(tmp_path, 10)
    for path in sorted((tmp_path / "red").iterdir())[3:]:
        path.unlink()
    assert error_line(tmp_path) == (
        "class 'red' has too few images (3) to be split into train, test, val: give it 4 or more"
    )


def spoil_all(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")


@pytest.mark.filterwarnings("ignore:left out")
def test_nothing_that_can_be_read(tmp_path):
    for part in ("train", "val", "test"):
        fill(tmp_path / part, 4)
    spoil_all(tmp_path / "val")
    assert error_line(tmp_path) == "the val part has no readable image: add some"
    spoil_all(tmp_path / "train" / "red")
    assert error_line(tmp_path) == "class 'red' has too few readable images in train (0): give it 2 or more"
    spoil_all(tmp_path)
    assert error_line(tmp_path).startswith("none of 36 image files can be read, ")
