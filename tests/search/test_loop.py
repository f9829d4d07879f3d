"""The loop of a search: which images reach which part of a step."""

from __future__ import annotations

import torch
from reference import searching

from msgdas import methods
from msgdas.data import DataSet
from msgdas.data.augment import Augment
from msgdas.data.images import Images
from msgdas.search.loop import fit
from msgdas.spaces import nasbench201

CLASSES = ("even", "odd")


def numbered(*numbers):
    """Images whose pixels are their number."""
    pixels = torch.arange(*numbers, dtype=torch.uint8)
    return Images(pixels.view(-1, 1, 1, 1).repeat(1, 1, 8, 8), pixels.long() % 2)


def numbers(batch):
    """Of the images in a batch."""
    return (255 * batch[0][:, 0, 0, 0]).round().int().tolist()


def test_weights_and_alphas_see_the_halves_of_their_own_each_in_an_order_of_its_own():
    data = DataSet(
        "numbers",
        CLASSES,
        numbered(0, 64),
        numbered(64, 80),
        numbered(80, 96),
        torch.zeros(1),
        torch.ones(1),
        Augment(),
    )
    net = nasbench201.supernet(channels=2, cells=1, classes=2, in_channels=1, image_size=8)
    search = searching(net, methods.gdas(), warmup=1 / 3)
    step, seen = search.step, []

    def watched(train, valid):
        seen.append((numbers(train), valid and numbers(valid)))
        return step(train, valid)

    search.step = watched
    fit(search, data, epochs=3, batch_size=8, seed=5)
    assert [valid is None for _, valid in seen] == [True] * 4 + [False] * 8
    halves = [half.pixels[:, 0, 0, 0].tolist() for half in data.halves(5)]
    for epoch in (1, 2):
        places = []
        for part, half in enumerate(halves):
            order = [number for one in seen[4 * epoch : 4 * epoch + 4] for number in one[part]]
            assert sorted(order) == sorted(half)
            places.append([half.index(number) for number in order])
        assert places[0] != places[1]
