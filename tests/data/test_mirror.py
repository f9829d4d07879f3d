"""When images may be mirrored in training."""

import numpy as np
import pytest
import torch
from PIL import Image

from msgdas.data import Images, load_data
from msgdas.data.mirror import decide

LEFT, TOP, CENTRE = "left", "top", "centre"


def picture(rng, bright):
    a = rng.integers(0, 60, (16, 16), dtype=np.uint8)
    area = {LEFT: np.s_[:, :8], "right": np.s_[:, 8:], TOP: np.s_[:8], "bottom": np.s_[8:], CENTRE: np.s_[4:12, 4:12]}
    a[area[bright]] += 150
    return a


def images(*bright, count=60, channels=1):
    rng = np.random.default_rng(0)
    pixels = np.stack([picture(rng, one) for one in bright for _ in range(count)])
    return Images(
        torch.from_numpy(pixels)[:, None].repeat(1, channels, 1, 1), torch.arange(len(bright)).repeat_interleave(count)
    )


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        (["turn_left", "turn_right"], "turn_left"),
        (["ahead", "RightTurn"], "RightTurn"),
        (["0", "1", "10"], "numbers"),
        (["A", "b"], "letters"),
    ],
)
def test_names_that_speak_of_sides_or_are_signs_turn_it_off(classes, why):
    mirroring = decide(classes, images(*[TOP, "bottom", CENTRE][: len(classes)]))
    assert not mirroring.on
    assert why in mirroring.why


@pytest.mark.parametrize("classes", [["copyright", "leftover"], ["cat", "dog"], ["7up", "x2"]])
def test_names_that_only_look_like_it_do_not(classes):
    assert decide(classes, images(TOP, "bottom")).on


@pytest.mark.parametrize("channels", [1, 3])
def test_classes_that_are_each_others_mirror_images_turn_it_off_whatever_their_names(channels):
    mirroring = decide(["cat", "dog", "bird"], images(LEFT, "right", TOP, channels=channels))
    assert mirroring == (False, "mirrored images of class 'cat' look like class 'dog'")


def test_where_the_pictures_cannot_tell_it_stays_off():
    few = decide(["cat", "dog"], images(TOP, "bottom", count=49))
    same = decide(["cat", "dog"], images(TOP, TOP, count=100))
    assert (few.on, same.on) == (False, False)
    assert "under 50 images" in few.why
    assert "cannot tell" in same.why


def test_one_rare_class_does_not_decide():
    many, few = images(TOP, "bottom", count=60), images(CENTRE, count=3)
    both = Images(torch.cat([many.pixels, few.pixels]), torch.cat([many.labels, few.labels + 2]))
    assert decide(["cat", "dog", "bird"], both).on


def test_it_is_the_same_every_time():
    before = torch.get_rng_state()
    some = images(LEFT, "right", TOP)
    assert decide(["x1", "x2", "x3"], some) == decide(["x1", "x2", "x3"], some)
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture
def sides(tmp_path):
    """Class folders of pictures that are each other's mirror images."""
    rng = np.random.default_rng(0)
    for name, bright in (("cat", LEFT), ("dog", "right")):
        (tmp_path / name).mkdir()
        for i in range(90):
            Image.fromarray(picture(rng, bright)).save(tmp_path / name / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize(("asked", "on"), [("auto", False), ("on", True), ("off", False)])
@pytest.mark.parametrize("memory", [None, 0])
def test_a_folder_is_mirrored_as_asked_or_decided(sides, asked, on, memory):
    data = load_data(sides, mirror=asked, max_memory=memory, workers=0)
    assert data.augment.flip is on
    assert ("look like class" in data.augmentation) == (asked == "auto")


@pytest.mark.parametrize(("asked", "on"), [("auto", False), ("on", True)])
def test_a_named_set_is_mirrored_as_is_usual_for_it(asked, on):
    assert load_data("digits", mirror=asked).augment.flip is on
