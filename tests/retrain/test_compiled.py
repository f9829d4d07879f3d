"""Compiled training: it learns the same, and nothing runs uncompiled instead."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from msgdas.cli.main import main
from msgdas.data import load_data
from msgdas.errors import InputError
from msgdas.retrain import Recipe, retrain
from msgdas.spaces import find_space

CLOSE = {"rtol": 1e-3, "atol": 1e-4}
pytestmark = [
    pytest.mark.filterwarnings("default"),  # of PyTorch's own compiler
    pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="there is no C++ compiler"),
]


@pytest.fixture(autouse=True)
def forget_what_was_compiled():
    torch._dynamo.reset()


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))


def trained(net, compile, **numbers):
    losses = []
    torch.manual_seed(1)
    recipe = Recipe(batch_size=128, **numbers)
    data = load_data("digits")
    retrain(net, data, recipe, compile=compile, on_epoch=lambda record: losses.append(record["train_loss"]))
    return losses


def test_it_learns_the_same():
    plain, compiled = (trained(small_net(), compile, epochs=2) for compile in (False, True))
    assert compiled == pytest.approx(plain, rel=1e-4)


def test_drop_path_is_refused_since_it_changes_with_every_epoch():
    with pytest.raises(InputError, match=r"^compile with drop path 0\.5: .+: use 0$"):
        trained(small_net(), True, epochs=2, drop_path=0.5)


class Breaks(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        y = self.linear(x.flatten(1))
        return y if float(y.sum()) > 0 else -y


def test_what_cannot_be_compiled_is_one_line_and_does_not_run():
    with pytest.raises(InputError, match=r"^compile: this network cannot be compiled \(.+\): leave it out") as stopped:
        trained(Breaks(), True, epochs=1)
    assert "\n" not in str(stopped.value)


def test_without_a_compiler_nothing_is_written(tmp_path, monkeypatch, capsys):
    def refuse(*args, **options):
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", refuse)
    cell = "nasbench201:" + "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    with pytest.raises(SystemExit) as stopped:
        main(["train", cell, "--data", "digits", "--compile", "--out", str(tmp_path / "run"), "--device", "cpu"])
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["msgdas: error: compile: nothing can be compiled for cpu on this machine "
                     "(No working C++ compiler found): leave it out, or install what is missing"]  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "text", "options"),
    [
        ("nasbench201", "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|", {}),
        ("darts", "DARTS_V2", {"auxiliary": True}),
        ("mbconv-macro", "01201201", {}),
    ],
)
def test_the_networks_of_the_spaces_compile(space, text, options):
    found = find_space(space)
    genotype = found.from_string(text)
    data = load_data("digits")
    losses = []
    for compile in (False, True):
        torch.manual_seed(0)
        size = {**found.network_size(8, genotype), "channels": 8} | ({"cells": 3} if space == "darts" else {})
        net = found.network(genotype, classes=10, in_channels=1, image_size=8, **size, **options)
        recipe = Recipe(epochs=1, batch_size=256, auxiliary=0.4 if options else 0.0)
        retrain(net, data, recipe, compile=compile, on_epoch=lambda record: losses.append(record["train_loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
