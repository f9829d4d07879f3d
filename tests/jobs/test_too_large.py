"""What cannot fit in memory is refused; the estimate is right."""

import psutil
import pytest

from msgdas.errors import InputError
from msgdas.jobs.memory import parameters, refuse_too_large
from msgdas.spaces import SPACES, find_space

CELLS = {"mbconv-macro": [8]}
IMAGE = {"classes": 10, "in_channels": 3, "image_size": 32}


@pytest.mark.parametrize("space", SPACES)
def test_the_estimate_of_parameters_is_right(space):
    def build(cells):
        return find_space(space).supernet(channels=8, cells=cells, **IMAGE)

    for cells in CELLS.get(space, [3, 18]):
        assert parameters(build, cells) == sum(p.numel() for p in build(cells).parameters())


def test_a_genotype_that_says_how_many_cells_there_are():
    space = find_space("mbconv")
    deep = space.from_string("/".join([",".join(["mb3_3x3"] * 15)] * 5 + ["mb3_3x3"]))

    def build(cells):
        return space.network(deep, channels=8, cells=cells, **IMAGE)

    assert parameters(build, 15) == sum(p.numel() for p in build(15).parameters())
    with pytest.raises(InputError, match="cells=99: this genotype has 15"):
        parameters(build, 99)


def refuse(cells=3, **sizes):
    sizes = {"channels": 4, "batch": 8, "in_channels": 3, "image_shape": (32, 32), "device": "cpu"} | sizes

    def build(cells):
        return find_space("darts").supernet(channels=sizes["channels"], cells=cells, **IMAGE)

    refuse_too_large(build, cells=cells, **sizes)


def test_what_fits_is_not_refused_and_what_does_not_is(monkeypatch):
    refuse()
    refuse(channels=64, cells=20)
    for sizes in (
        {"channels": 100_000},
        {"channels": 10_000, "cells": 1000},
        {"batch": 10**6, "image_shape": (16_384, 16_384)},
    ):
        with pytest.raises(InputError, match=r"need .* or more, and cpu has .* of memory: make them smaller"):
            refuse(**sizes)


def test_the_limit_is_the_memory_there_is(monkeypatch):
    need = 8 * 3 * 32**2 * 4
    for total, fits in ((need, True), (need - 1, False)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: type("", (), {"total": total})())  # noqa: B023
        if fits:
            refuse()
        else:
            with pytest.raises(InputError, match=r"need 96\.0 KiB or more, and cpu has 96\.0 KiB"):
                refuse()
