"""Images as arrays, of any number of channels and any type."""

import json
import pickle

import numpy as np
import pytest
import torch

import msgdas
from msgdas.cli.main import main
from msgdas.data import load_data
from msgdas.data.arrays import read_arrays
from msgdas.data.check import check_folder, describe
from msgdas.data.decode import decode
from msgdas.data.fingerprint import fingerprint
from msgdas.data.form import Form
from msgdas.errors import InputError

PLENTY = 2**30


def images(count=40, shape=(8, 8), seed=0, top=256, kind=np.uint8):
    """Images whose class is their brighter half, left or upper."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    found = rng.uniform(0, 0.2 * top, (count, *shape))
    found[labels == 0, : shape[0] // 2] += 0.6 * top
    found[labels == 1, :, : shape[1] // 2] += 0.6 * top
    return found.astype(kind), labels


@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels")],
)
def test_parts_by_their_usual_names(tmp_path, names):
    x, y = images(40)
    np.savez(tmp_path / "a.npz", **dict(zip(names, (x, y, x[:10], y[:10, None]), strict=True)))
    data = load_data(tmp_path / "a.npz")
    assert (data.name, data.classes, data.image_shape, data.channels) == ("a", ("0", "1"), (8, 8), 1)
    assert len(data.test) == 10
    assert len(data.train) + len(data.val) == 40
    assert torch.equal(data.test.pixels[:, 0], torch.from_numpy(x[:10]))
    assert data.test.labels.tolist() == y[:10].tolist()


@pytest.mark.parametrize(("shape", "channels"), [((8, 8, 3), 3), ((5, 8, 9), 5), ((80, 80, 6), 6), ((1, 8, 9), 1)])
def test_any_number_of_channels(shape, channels):
    x = np.random.default_rng(0).integers(0, 255, (12, *shape), np.uint8)
    arrays = read_arrays({"images": x, "labels": np.arange(12) % 3}, PLENTY)
    assert arrays.form.channels == arrays.parts["train"].channels == channels
    data = load_data({"x": x, "y": np.arange(12) % 2}, test_fraction=0.3, val_fraction=0.3)
    assert data.name == "arrays"
    assert data.mean.shape == (channels,)


@pytest.mark.parametrize(("kind", "top"), [(np.uint16, 4000), (np.float32, 1.0), (np.int32, 300), (bool, 1)])
def test_values_are_scaled_by_the_largest_in_train(kind, top):
    x, y = images(40, top=top, kind=np.float64)
    x = (x > 0.5 * top) if kind is bool else x.astype(kind)
    arrays = read_arrays({"x": x, "y": y}, PLENTY)
    pixels = arrays.parts["train"].pixels
    assert (int(pixels.min()) < 5, int(pixels.max())) == (True, 255)
    known = arrays.form.floats if kind is np.float32 else arrays.form.integers
    assert known == (0, float(x.max()))


def test_negative_values_and_nan():
    x = np.array([[[-2.0, 0.0], [np.nan, 2.0]]] * 4, np.float32)
    pixels = read_arrays({"x": x, "y": [0, 1, 0, 1]}, PLENTY).parts["train"].pixels
    assert pixels[0, 0].tolist() == [[0, 128], [0, 255]]


def test_names_of_classes():
    x, y = images(12)
    texts = np.array(["cat", "dog"])
    assert read_arrays({"x": x, "y": texts[y]}, PLENTY).classes == ("cat", "dog")
    assert read_arrays({"x": x, "y": y, "classes": texts}, PLENTY).classes == ("cat", "dog")
    arrays = read_arrays({"x": x, "y": np.eye(2)[y]}, PLENTY)
    assert arrays.parts["train"].labels.tolist() == y.tolist()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "has no images and labels (nothing): name them x_train"),
        ({"x_train": np.zeros((4, 8, 8))}, "has images but no labels of train"),
        ({"x": np.zeros((4, 8)), "y": [0, 1, 0, 1]}, "images of shape (4, 8)"),
        ({"x": np.full((4, 8, 8), "a"), "y": [0, 1, 0, 1]}, "images of shape (4, 8, 8) and type <U1"),
        ({"x": np.zeros((4, 8, 8)), "y": [0, 1, 0]}, "4 images and 3 labels"),
        ({"x": np.zeros((4, 8, 8)), "y": [0.5, 1, 0, 1]}, "give whole numbers or texts"),
        ({"x": np.zeros((4, 8, 8)), "y": [[1, 1], [0, 1], [1, 0], [1, 0]]}, "are not one-hot"),
        ({"x": np.zeros((4, 8, 8)), "y": [0, 0, 0, 0]}, "fewer than two classes"),
        ({"x": np.zeros((4, 99, 99, 99)), "y": [0, 1, 0, 1]}, "more than 64 channels"),
        (
            {"x_train": np.zeros((4, 8, 8)), "y_train": [0, 1, 0, 1], "x_test": np.zeros((1, 9, 9)), "y_test": [0]},
            "give all parts one shape",
        ),
        (
            {"x_train": np.zeros((4, 8, 8)), "y_train": [0, 1, 0, 1], "x_test": np.zeros((1, 8, 8)), "y_test": [2]},
            "class '2' has no image in train",
        ),
    ],
)
def test_what_is_wrong_is_one_line(arrays, said):
    with pytest.raises(InputError) as error:
        read_arrays(arrays, PLENTY)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


class Evil:
    def __reduce__(self):
        return open, ("ran", "w")


def test_files_that_are_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = images(12)
    np.savez("evil.npz", x=np.array([Evil()], object), y=y)
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Evil()))
    np.savez_compressed("bomb.npz", x=np.zeros((2**14, 2**7, 2**7), np.uint8), y=np.zeros(2**14, int))
    np.savez("good.npz", x=x, y=y)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:200])
    for name in ("evil", "pickle", "cut"):
        with pytest.raises(InputError, match=rf"'{name}.npz' cannot be read"):
            read_arrays(f"{name}.npz", PLENTY)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match=r"needs .* of memory, more than 1"):
        read_arrays("bomb.npz", 2**20)
    with pytest.raises(InputError, match="neither a known name"):
        load_data("nowhere.npz")


def test_the_fingerprint_is_of_the_content(tmp_path):
    x, y = images(12)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    first = fingerprint(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=x + 1, y=y)
    assert fingerprint(tmp_path / "a.npz")["digest"] != first["digest"]


def test_check(tmp_path):
    x, y = images(120)
    x[7] = x[5]
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    report = check_folder(tmp_path / "a.npz")
    assert sum(report.images["test"].values()) == 20
    assert {"train/5", "train/7", "test/5", "test/7"} in [set(copies.files) for copies in report.copies]
    lines = " ".join(" ".join(describe(report)).split())
    assert "of 20 test images are in train too" in lines
    assert "a.npz" in report.proposal.commands[0]


def test_an_array_is_predicted_as_it_was_trained(tmp_path):
    x = np.random.default_rng(0).uniform(-1, 3, (1, 5, 6, 7)).astype(np.float32)
    np.save(tmp_path / "a.npy", x[0])
    form = Form(5, 6, 7, floats=(-1, 3))
    pixels = decode(tmp_path / "a.npy", form)
    assert pixels.shape == (5, 6, 7)
    assert torch.equal(pixels, torch.from_numpy(((x[0] + 1) * 255 / 4).round().astype(np.uint8)))
    with pytest.raises(InputError, match="has 5 channels: the network takes 3"):
        decode(tmp_path / "a.npy", Form.square(3, 8))
    (tmp_path / "b.npy").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read"):
        decode(tmp_path / "b.npy", form)


def test_from_search_to_predict(tmp_path, capsys):
    x, y = images(80, shape=(8, 10), top=1.0, kind=np.float32)
    x = np.stack([x, x[:, ::-1]], 1)
    np.savez(tmp_path / "a.npz", x=x, y=np.array(["up", "left"])[y])
    np.save(tmp_path / "one.npy", x[1])

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        return stopped.value.code

    small = ["--channels", "4", "--batch-size", "8"]
    assert (
        run("search", "--data", tmp_path / "a.npz", "--epochs", "1", "--seed", "1", *small, "--out", tmp_path / "run")
        == 0
    )
    assert run("train", tmp_path / "run", "--epochs", "15", "--cells", "1", *small) == 0
    assert json.loads((tmp_path / "run/train/result.json").read_text())["test_accuracy"] > 0.8
    assert msgdas.load(tmp_path / "run").form == Form(2, 8, 10, "stretch", floats=(0.0, float(x.max())))
    capsys.readouterr()
    assert run("predict", tmp_path / "run", tmp_path / "one.npy") == 0
    assert "\tleft\t" in capsys.readouterr().out
    assert run("search", "--resume", "--out", tmp_path / "run") == 0
