"""Images that stay in their files: the same batches as from memory, by worker processes that leave nothing behind."""

import gc
import os
import pickle
import signal
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from reference import threads

from msgdas import InputError, load_data
from msgdas.data import Augment, Batches, ImageFiles, Images
from msgdas.data.form import Form
from msgdas.data.statistics import mean_and_std

COUNT, SIZE = 24, 16


@pytest.fixture
def root(tmp_path):
    """Noise of every size and format, three classes."""
    rng = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / name).mkdir()
        for i in range(COUNT):
            shape = rng.integers(4, 40, 2)
            image = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
            image.save(tmp_path / name / f"bild ü {i:02}{('.png', '.jpg', '.webp')[i % 3]}")
    return tmp_path


def both(root, workers=2):
    """The data set in memory and in files."""
    return load_data(root, image_size=SIZE), load_data(root, image_size=SIZE, max_memory=0, workers=workers)


def batches(data, images=None, batch_size=8, **kw):
    images = data.train if images is None else images
    return Batches(images, batch_size, mean=data.mean, std=data.std, augment=Augment(2, True, 4), **kw)


def assert_same(first, second):
    for (x, y), (other_x, other_y) in zip(first, second, strict=True):
        assert torch.equal(x, other_x)
        assert x.stride() == other_x.stride()
        assert torch.equal(y, other_y)


def workers():
    """Forked from this process."""
    me = psutil.Process()
    return [child for child in me.children() if child.cmdline() == me.cmdline()]


# ------------------------------------------------------------------- equal to memory


@pytest.mark.parametrize("count", [0, 1, 2])
def test_batches_from_files_are_those_from_memory(root, count):
    memory, files = both(root, count)
    assert (memory.streams, files.streams) == (False, True)
    assert isinstance(memory.train, Images)
    assert isinstance(files.train, ImageFiles)
    for epoch, start in ((0, 0), (1, 0), (1, 3), (1, 99)):
        assert_same(batches(memory, seed=5).epoch(epoch, start), batches(files, seed=5).epoch(epoch, start))
    ordered = {"shuffle": False, "drop_last": False}
    assert_same(batches(memory, memory.test, **ordered).epoch(0), batches(files, files.test, **ordered).epoch(0))


def test_all_else_is_the_same(root):
    memory, files = both(root)
    for name in ("classes", "channels", "image_size", "num_classes", "augment", "name"):
        assert getattr(memory, name) == getattr(files, name)
    assert torch.equal(memory.mean, files.mean)
    assert torch.equal(memory.std, files.std)
    for ours, theirs in zip(memory.halves(3, 10), files.halves(3, 10), strict=True):
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.pixels, theirs.gather(torch.arange(len(theirs)))[0])
    index = torch.tensor([4, 0, 4])
    assert torch.equal(memory.val.take(index).pixels, files.val.take(index).gather(torch.arange(3))[0])


def test_the_global_generator_is_left_alone(root):
    _, files = both(root)
    before = torch.get_rng_state()
    list(batches(files).epoch(0))
    assert torch.equal(before, torch.get_rng_state())


def test_the_statistics_of_files_are_those_of_a_sample(root):
    memory, whole = both(root)
    sampled, again = (mean_and_std(files.train, sample=10)[0] for files in (whole, both(root)[1]))
    assert torch.equal(whole.mean, memory.mean)
    assert torch.equal(sampled, again)
    assert not torch.equal(sampled, whole.mean)
    assert (sampled - whole.mean).abs().max() < 0.05


# -------------------------------------------------------------------- memory or files


def test_what_needs_more_than_half_of_the_free_memory_stays_in_files(root, monkeypatch):
    need = 3 * COUNT * 3 * SIZE**2
    for free, streams in ((2 * need, False), (2 * need - 2, True)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
        assert load_data(root, image_size=SIZE).streams == streams
    assert not load_data(root, image_size=SIZE, max_memory=need).streams
    assert load_data(root, image_size=SIZE, max_memory=need - 1).streams


def test_it_says_where_the_images_are(root):
    memory, files = both(root)
    assert memory.where == "in memory (54.0 KiB)"
    assert files.where == "read from disk by 2 workers (54.0 KiB would not fit in memory)"
    assert both(root, 1)[1].where.startswith("read from disk by 1 worker (")
    assert both(root, 0)[1].where.startswith("read from disk by this process (")


def test_workers_default_to_the_cpus(root):
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    assert load_data(root, image_size=SIZE, max_memory=0).train.workers == min(cpus, 8)


def test_no_tensor_of_all_images_is_made(root, monkeypatch):
    """The largest block that is decoded at once is a batch."""
    files = both(root, 0)[1]
    sizes, decode_all = [], sys.modules["msgdas.data.images"].decode_all
    monkeypatch.setattr(
        "msgdas.data.images.decode_all", lambda paths, *a: sizes.append(len(paths)) or decode_all(paths, *a)
    )
    list(batches(files, drop_last=False).epoch(0))
    assert max(sizes) == 8
    assert sum(sizes) == len(files.train)


# ------------------------------------------------------------------- worker processes


class Spy(ImageFiles):
    """Pixels tell what the process is like that decodes them."""

    def gather(self, index):
        facts = torch.tensor([torch.get_num_threads(), os.getpid() % 251], dtype=torch.uint8)
        return facts[None, :, None, None].expand(len(index), 2, 1, 1).clone(), self.labels[index], []


def test_workers_use_one_thread_each():
    images = Spy.of([("x", 0)] * 6, Form.square(2, 1), workers=2)
    half = torch.full((2,), 0.5)
    with threads(2):
        found = torch.cat([x for x, _ in Batches(images, 1, mean=0 * half, std=half, shuffle=False).epoch(0)])
    found = (found[:, :, 0, 0] * 255 / 2).round()
    assert found[:, 0].tolist() == [1] * 6
    assert len(found[:, 1].unique()) == 2
    assert os.getpid() % 251 not in found[:, 1]


def test_workers_end_with_the_epoch_and_when_it_is_left_early(root):
    files = both(root)[1]
    epoch = batches(files).epoch(0)
    next(epoch)
    assert len(workers()) == 2
    epoch.close()
    gc.collect()
    assert not workers()
    next(batches(files).epoch(0))
    gc.collect()
    assert not workers()
    for _ in batches(files).epoch(0):
        pass
    assert not workers()


def test_a_worker_that_is_not_forked_gets_the_same(root):
    """Elsewhere than on Linux it is sent what it needs."""
    epoch = batches(both(root)[1])._of_epoch(0)
    for ours, theirs in zip(epoch[1], pickle.loads(pickle.dumps(epoch))[1], strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


def test_no_more_workers_than_batches(root):
    files = both(root)[1]
    epoch = batches(files).epoch(0, start=len(batches(files)) - 1)
    next(epoch)
    assert len(workers()) == 1


def test_two_epochs_at_once(root):
    memory, files = both(root)
    of = batches(files)
    pairs = list(zip(of.epoch(0), of.epoch(1), strict=True))
    for epoch in (0, 1):
        assert_same([pair[epoch] for pair in pairs], batches(memory).epoch(epoch))


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_group_do_not_end_the_workers(root, monkeypatch, number, ready):
    """Nor before they have said that they ignore them."""
    memory, files = both(root)
    if not ready:
        monkeypatch.setattr("msgdas.data.batches._ignore_signals", lambda worker: None)
    epoch = batches(files, batch_size=2).epoch(0)
    got = [next(epoch)]
    for worker in workers():
        worker.send_signal(number)
    assert_same([*got, *epoch], batches(memory, batch_size=2).epoch(0))
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {number}  # the main process gets them again


# -------------------------------------------------------------------------- bad files


def damage(path):
    """The header stays."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def first_paths(data, count):
    """The files of the first images of an epoch that is not shuffled."""
    return [os.fsdecode(path) for path in data.train.paths[:count]]


def quiet_load(root, **kw):
    """Loaded while all files were whole."""
    return load_data(root, image_size=SIZE, max_memory=0, **kw)


@pytest.fixture
def pngs(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / name).mkdir()
        for i in range(COUNT):
            image = Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
            image.save(tmp_path / name / f"{i:02}.png")
    return tmp_path


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_that_cannot_be_decoded_is_left_out_with_one_warning(pngs, count):
    data = quiet_load(pngs, workers=count)
    whole = list(batches(data, shuffle=False).epoch(0))
    bad = first_paths(data, 2)
    for path in bad:
        damage(pngs / path)
    of = batches(data, shuffle=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        left = list(of.epoch(0))
        list(of.epoch(1))
        list(batches(data).epoch(0))
    assert [str(w.message).partition(" cannot")[0] for w in caught] == [f"left out: image {path!r}" for path in bad]
    assert all(w.filename == __file__ for w in caught)
    assert len(left) == len(whole)
    assert torch.equal(left[0][1], whole[0][1][2:])
    assert_same(left[1:], whole[1:])


@pytest.mark.parametrize("count", [0, 2])
def test_or_it_stops_with_one_line(pngs, count):
    data = quiet_load(pngs, workers=count, on_bad_image="stop")
    (bad,) = first_paths(data, 1)
    damage(pngs / bad)
    with pytest.raises(InputError) as error:
        list(batches(data).epoch(0))
    assert str(error.value).startswith(f"image {bad!r} cannot be read: ")
    assert "\n" not in str(error.value)
    del error
    gc.collect()
    assert not workers()


def test_the_next_batch_takes_the_place_of_one_that_is_all_bad(pngs):
    data = quiet_load(pngs, workers=2)
    whole = list(batches(data, shuffle=False).epoch(0))
    for path in first_paths(data, 8):
        damage(pngs / path)
    with pytest.warns(UserWarning, match="left out"):
        left = list(batches(data, shuffle=False).epoch(0))
    assert torch.equal(left[0][1], whole[1][1])
    assert_same(left[1:], whole[1:])


@pytest.mark.filterwarnings("ignore:left out")
def test_no_file_at_all_is_one_line(pngs):
    data = quiet_load(pngs, workers=2)
    for path in data.train.paths:
        os.unlink(path)
    with pytest.raises(
        InputError, match=f"^none of {len(data.train)} image files can be read any more; image .* cannot"
    ):
        list(batches(data).epoch(0))


def test_headers_are_looked_at_when_loading(pngs):
    for i in range(4):
        (pngs / f"a/{i:02}.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"^left out 4 of 72 image files: .*; and 1 more$") as caught:
        data = quiet_load(pngs, workers=0)
    assert caught[0].filename == __file__
    assert len(data.train) + len(data.val) + len(data.test) == 68
    list(batches(data, drop_last=False).epoch(0))  # without a warning
    with pytest.raises(InputError, match=r"image '.*a/0\d\.png' cannot be read"):
        quiet_load(pngs, on_bad_image="stop")


def test_arguments():
    for name in ("max_memory", "workers"):
        with pytest.raises(InputError, match=f"^{name}=-1: use 0 or more$"):
            load_data("digits", **{name: -1})
    with pytest.raises(InputError, match=r"^1797 images at 8 × 8 need 112.3 KiB of memory, more than 1.0 KiB: lower"):
        load_data("digits", max_memory=1024)
