"""The next batch, made in a thread beside the step."""

import threading

import pytest
import torch
from reference import threads

from msgdas.data import Augment, Batches, Images
from msgdas.data.ahead import ahead

WAIT = 30  # seconds, for what comes at once unless it never comes


def beside():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_the_next_is_made_while_the_caller_works():
    made = [threading.Event() for _ in range(4)]

    def items():
        for i, event in enumerate(made):
            event.set()
            yield i

    seen = []
    for item in ahead(items()):
        if item < 3:
            assert made[item + 1].wait(WAIT)
        if item < 2:
            assert not made[item + 2].is_set()
        seen.append(item)
    assert seen == [0, 1, 2, 3]
    assert not beside()


def test_an_error_comes_at_its_place_and_ends_the_thread():
    def items():
        yield 1
        raise KeyError("second")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(KeyError, match="second"):
        next(found)
    assert not beside()


def test_the_thread_ends_when_the_iterator_is_closed_or_dropped():
    for end in (lambda it: it.close(), lambda it: None):
        it = ahead(iter(range(100)))
        assert next(it) == 0
        assert len(beside()) == 1
        end(it)
        del it
        assert not beside()


def test_operations_beside_have_no_threads_of_their_own():
    def items():
        yield torch.get_num_threads()
        torch.ones(10**6).add_(1)  # enough for a team
        yield torch.get_num_threads()

    with threads(2):
        assert list(ahead(items())) == [1, 1]
        assert torch.get_num_threads() == 2


# ------------------------------------------------------------------------ batches


def large(count=70, side=64):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count))


def batches(images, size=32, **kw):
    more = {"mean": torch.full((3,), 0.5), "std": torch.full((3,), 0.25), "augment": Augment(4, True, 8)}
    return Batches(images, size, drop_last=False, **more, **kw)


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_batches_made_beside_are_the_same(start):
    images = large()
    with threads(1):
        alone = list(batches(images, cpus=1).epoch(2, start))
        found = batches(images, cpus=2).epoch(2, start)
        seen = []
        for batch in found:
            assert len(beside()) == 1
            seen.append(batch)
    assert len(seen) == len(alone) == 3 - start
    for (x, y), (other_x, other_y) in zip(seen, alone, strict=True):
        assert torch.equal(x, other_x)
        assert x.stride() == other_x.stride()
        assert torch.equal(y, other_y)
    assert not beside()


@pytest.mark.parametrize(
    ("used", "there", "side", "yes"),
    [(1, 2, 64, True), (2, 2, 64, False), (3, 2, 64, False), (2, 4, 64, True), (1, 2, 53, True), (1, 2, 52, False)],
)
def test_a_thread_is_used_if_a_cpu_is_free_and_the_batch_not_tiny(used, there, side, yes):
    with threads(used):
        epoch = batches(large(side=side), cpus=there).epoch(0)
        next(epoch)
        assert len(beside()) == yes
        epoch.close()


def test_images_live_on_a_gpu_if_they_leave_room(monkeypatch):
    images = large()
    need, moved = images.pixels.nbytes, []
    monkeypatch.setattr(Images, "to", lambda self, device: moved.append(str(device)) or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: self)  # no GPU is needed
    for free, home in ((4 * need, ["cuda"]), (4 * need - 1, [])):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2**40))
        moved.clear()
        batches(images, device="cuda")
        assert moved == home


def test_a_step_on_a_gpu_leaves_the_cpus_free():
    of = batches(large(), cpus=1)
    assert not of._prefetch()
    of.device = torch.device("cuda")
    assert of._prefetch()
