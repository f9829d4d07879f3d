"""Data sets by name, from tiny files in the official form."""

import io
import pickle
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision import datasets

from msgdas import InputError, load_data
from msgdas.data import Augment
from msgdas.data.named import NAMES

TRAIN, TEST = 200, 40  # images
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _any_checksum(monkeypatch):
    """The tiny files are not the official ones: torchvision looks at their form alone."""
    for module in (datasets.cifar, datasets.svhn, datasets.mnist, datasets.imagenet):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args, **kw):
        raise OSError("no network")

    for module in (datasets.cifar, datasets.mnist):
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)
    monkeypatch.setattr(datasets.svhn, "download_url", refuse)


def bytes_of(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def labels_of(count, classes=10):
    return (np.arange(count) * 7 % classes).tolist()


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))


def cifar10(root):
    folder = root / "cifar-10-batches-py"
    each = TRAIN // 5
    train, labels = bytes_of(TRAIN, 3, 32, 32), labels_of(TRAIN)
    for i in range(5):
        part = slice(i * each, (i + 1) * each)
        dump(folder / f"data_batch_{i + 1}", {"data": train[part].reshape(each, -1), "labels": labels[part]})
    test = bytes_of(TEST, 3, 32, 32)
    dump(folder / "test_batch", {"data": test.reshape(TEST, -1), "labels": labels_of(TEST)})
    dump(folder / "batches.meta", {"label_names": [f"kind {i}" for i in range(10)]})
    return train, labels, test


def cifar100(root):
    folder = root / "cifar-100-python"
    train, test = bytes_of(2 * TRAIN, 3, 32, 32), bytes_of(100, 3, 32, 32)
    labels = labels_of(2 * TRAIN, 100)
    for name, pixels in (("train", train), ("test", test)):
        fine, coarse = labels[: len(pixels)], [0] * len(pixels)
        dump(folder / name, {"data": pixels.reshape(len(pixels), -1), "fine_labels": fine, "coarse_labels": coarse})
    dump(folder / "meta", {"fine_label_names": [f"kind {i}" for i in range(100)], "coarse_label_names": ["all"]})
    return train, labels, test


def svhn(root):
    """Label 10 is the digit 0."""
    train, test = bytes_of(TRAIN, 3, 32, 32), bytes_of(TEST, 3, 32, 32)
    for name, pixels in (("train", train), ("test", test)):
        y = np.array([label or 10 for label in labels_of(len(pixels))], np.uint8)[:, None]
        scipy.io.savemat(root / f"{name}_32x32.mat", {"X": pixels.transpose(2, 3, 1, 0), "y": y})
    return train, labels_of(TRAIN), test


def fashion_mnist(root):
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    train, test = bytes_of(TRAIN, 1, 28, 28), bytes_of(TEST, 1, 28, 28)
    for name, pixels in (("train", train), ("t10k", test)):
        count = len(pixels)
        head = struct.pack(">BBBB3i", 0, 0, 8, 3, count, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = struct.pack(">BBBBi", 0, 0, 8, 1, count)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(head + bytes(labels_of(count)))
    return train, labels_of(TRAIN), test


CASES = {
    "cifar10": (cifar10, Augment(crop=4, flip=True), [f"kind {i}" for i in range(10)]),
    "cifar100": (cifar100, Augment(crop=4, flip=True), [f"kind {i}" for i in range(100)]),
    "svhn": (svhn, Augment(crop=4), list("0123456789")),
    "fashion-mnist": (fashion_mnist, Augment(crop=4, flip=True), list(datasets.FashionMNIST.classes)),
}


OFFLINE = {"digits": (1797, 10)}  # name → images, classes


def test_every_name_has_a_test():
    assert {*CASES, *OFFLINE, "imagenet"} == set(NAMES), "add it to CASES or OFFLINE"


@pytest.mark.parametrize("name", OFFLINE)
def test_offline(name, tmp_path):
    data = load_data(name, data_dir=tmp_path)
    parts = (data.train, data.val, data.test)
    assert (sum(map(len, parts)), data.num_classes) == OFFLINE[name]
    for part in parts:
        assert (part.pixels.dtype, part.labels.dtype) == (torch.uint8, torch.int64)
        assert set(part.labels.tolist()) == set(range(data.num_classes))
    assert load_data(name, image_size=16).image_size == 16


def keyed(pixels, labels):
    return {(p.tobytes(), int(label)) for p, label in zip(np.asarray(pixels), labels, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_official_files(tmp_path, name):
    make, augment, classes = CASES[name]
    train, labels, test = make(tmp_path)
    data = load_data(name, data_dir=tmp_path)
    assert (data.name, list(data.classes), data.augment) == (name, classes, augment)
    assert (data.channels, data.image_size) == train.shape[1:3]
    assert not data.streams
    assert np.array_equal(data.test.pixels, test)
    assert data.test.labels.tolist() == labels[: len(test)]
    assert (data.train.labels.dtype, data.train.pixels.dtype) == (torch.int64, torch.uint8)
    parts = [keyed(part.pixels, part.labels) for part in (data.train, data.val)]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == keyed(train, labels)
    assert len(data.val) == max(len(classes), round(0.15 * len(train)))
    assert torch.equal(data.val.pixels, load_data(name, data_dir=tmp_path).val.pixels)


@pytest.mark.parametrize("name", CASES)
def test_nothing_there_is_one_line(tmp_path, name):
    with pytest.raises(InputError) as error:
        load_data(name, data_dir=tmp_path / "x")
    place = repr(str(tmp_path / "x"))
    assert str(error.value) == f"{name} is missing or damaged in {place}: give --data-dir DIR with it, or --download"


@pytest.mark.parametrize("name", CASES)
def test_a_failed_download_is_one_line(tmp_path, name):
    with pytest.raises(InputError) as error:
        load_data(name, data_dir=tmp_path, download=True)
    line = str(error.value)
    assert line.startswith(f"{name} cannot be downloaded to {str(tmp_path)!r} (")
    assert "\n" not in line


def test_files_that_are_there_are_not_downloaded(tmp_path):
    fashion_mnist(tmp_path)
    assert len(load_data("fashion-mnist", data_dir=tmp_path, download=True).test) == TEST


def test_a_download_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", lambda url, root, **kw: cifar10(Path(root)))
    assert len(load_data("cifar10", data_dir=tmp_path / "new", download=True).test) == TEST


def test_damaged_files_are_one_line(tmp_path):
    fashion_mnist(tmp_path)
    file = tmp_path / "FashionMNIST/raw/t10k-images-idx3-ubyte"
    for content in (file.read_bytes()[:100], b"", b"text"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"^fashion-mnist is missing or damaged in "):
            load_data("fashion-mnist", data_dir=tmp_path)


def test_where_it_is_looked_for(tmp_path, monkeypatch):
    cifar10(tmp_path)
    monkeypatch.setenv("MSGDAS_DATA", str(tmp_path))
    assert load_data("cifar10").num_classes == 10
    monkeypatch.delenv("MSGDAS_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(InputError, match=str(tmp_path / "home/.cache/msgdas")):
        load_data("cifar10")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=str(tmp_path / "cache/msgdas")):
        load_data("cifar10")
    cifar10(tmp_path / "home/.cache/msgdas")  # the default before there was a choice
    assert load_data("cifar10").num_classes == 10
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").symlink_to(tmp_path)
    assert load_data("cifar10", data_dir="~").num_classes == 10


def test_another_size(tmp_path):
    cifar10(tmp_path)
    data = load_data("cifar10", data_dir=tmp_path, image_size=16)
    assert (data.image_size, data.augment.crop) == (16, 2)
    whole = load_data("cifar10", data_dir=tmp_path)
    pooled = torch.nn.functional.avg_pool2d(whole.test.pixels.float(), 2)
    assert (data.test.pixels.float() - pooled).abs().mean() < 20  # of noise
    with pytest.raises(InputError, match=r"^240 images at 512 × 512 need 180.0 MiB of memory, more than 100.0 MiB"):
        load_data("cifar10", data_dir=tmp_path, image_size=512, max_memory=100 * 2**20)


@pytest.mark.parametrize(
    ("given", "meant"), [("cifar-10", "cifar10"), ("CIFAR100", "cifar100"), ("fashionmnist", "fashion-mnist")]
)
def test_misspelt_names(given, meant):
    with pytest.raises(InputError, match=rf"Did you mean '{meant}'\?$"):
        load_data(given)


# ------------------------------------------------------------------------- imagenet

SYNSETS = {"n01": "tench, Tinca tinca", "n02": "crane", "n03": "crane", "n00": "animal"}  # n00 has children


def add(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def jpeg(level):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (level, 0, 0)).save(file, "JPEG")
    return file.getvalue()


def tar(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            add(archive, name, content)
    return file.getvalue()


def imagenet(root, each=12):
    """The three archives."""
    names = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")
    synsets = np.zeros(len(SYNSETS), [(name, object) for name in names])
    for i, (wnid, words) in enumerate(SYNSETS.items()):
        synsets[i] = (i + 1, wnid, words, "", 3 if wnid == "n00" else 0)
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        truth = b"".join(b"%d\n" % (1 + i % 3) for i in range(6))
        add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth)
    train = {f"n0{k}.tar": tar({f"n0{k}_{i}.JPEG": jpeg(80 * k) for i in range(each)}) for k in (1, 2, 3)}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar(train))
    val = {f"ILSVRC2012_val_{i:08}.JPEG": jpeg(80 * (1 + i % 3)) for i in range(6)}
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar(val))


@pytest.mark.filterwarnings("ignore:.*extract:DeprecationWarning")  # torchvision's, from Python 3.12 on
@pytest.mark.parametrize("max_memory", [None, 0])
def test_imagenet(tmp_path, max_memory):
    imagenet(tmp_path)
    for _ in range(2):  # from the archives, and from what was unpacked
        data = load_data("imagenet", data_dir=tmp_path, max_memory=max_memory, workers=0)
        assert data.classes == ("tench", "crane (n02)", "crane (n03)")
        assert data.streams == (max_memory == 0)
        assert (data.image_size, data.augment, data.channels) == (224, Augment(crop=28, flip=True), 3)
        assert [len(part) for part in (data.train, data.val, data.test)] == [31, 5, 6]
        for part in (data.train, data.val, data.test):
            pixels, labels, _ = part.gather(torch.arange(len(part)))
            assert (pixels[:, 0, 0, 0] - 80.0 * (1 + labels)).abs().max() < 4


def test_imagenet_that_is_not_there(tmp_path):
    with pytest.raises(InputError) as error:
        load_data("imagenet", data_dir=tmp_path)
    assert str(error.value) == (
        f"imagenet is missing or damaged in {str(tmp_path)!r}: give --data-dir DIR with ILSVRC2012_img_train.tar, "
        "ILSVRC2012_img_val.tar, ILSVRC2012_devkit_t12.tar.gz"
    )
    with pytest.raises(InputError, match=r"^imagenet cannot be downloaded: get it from image-net.org and give "):
        load_data("imagenet", data_dir=tmp_path, download=True)
