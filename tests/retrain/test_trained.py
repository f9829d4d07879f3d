"""Trained networks from disk: what is damaged is one line, found before a network of any size is built."""

import json
import shutil

import pytest
import torch

from msgdas.errors import InputError
from msgdas.retrain.trained import load, save_trained
from msgdas.spaces import find_space

TEXTS = {
    "nasbench201": "|skip_connect~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|avg_pool_3x3~2|",
    "darts": "DARTS_V2",
    "mbconv": "ProxylessNAS_mobile",
}
SIZES = {"nasbench201": (4, 1, 8), "darts": (4, 3, 32), "mbconv": (8, 4, 16)}
BILLION = 10**9


def save(folder, space="nasbench201", form=None):
    """A run with a trained network, as ``msgdas train`` leaves it. Returns the network and its description."""
    genotype = find_space(space).from_string(TEXTS[space])
    channels, cells, image_size = SIZES[space]
    size = {"channels": channels, "cells": cells, "in_channels": 1, "image_size": image_size}
    size |= {"form": form} if form else {}
    network = find_space(space).network(genotype, classes=3, **size).eval()
    description = {
        "genotype": genotype.to_dict(),
        "size": size,
        "classes": ["a", "b", "c"],
        "mean": [0.3],
        "std": [0.4],
        "mirror": True,
    }
    folder.mkdir()
    save_trained(folder, network, description)
    return network, description


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    return folder, save(folder)[1]


@pytest.mark.parametrize(
    ("space", "form"), [("nasbench201", None), ("darts", None), ("darts", "imagenet"), ("mbconv", None)]
)
def test_what_was_saved_is_loaded(space, form, tmp_path):
    network, description = save(tmp_path / "run", space, form)
    loaded = load(tmp_path / "run")
    side = description["size"]["image_size"]
    pixels = torch.randint(256, (2, 1, side, side), dtype=torch.uint8)
    expected = network((pixels.float() / 255 - 0.3) / 0.4)
    torch.testing.assert_close(loaded(pixels), expected)
    assert loaded.description == json.loads(json.dumps(description))
    assert loaded.classes == ("a", "b", "c")


def test_a_file_of_an_older_version_is_read(saved, tmp_path):
    folder, description = saved
    shutil.copytree(folder, tmp_path / "run")
    del description["mirror"]
    (tmp_path / "run/model.json").write_text(json.dumps(description))
    assert load(tmp_path / "run").description == description


def changed(description, path, value):
    """The description with the value at ``path`` replaced, or removed if it is None."""
    copy = json.loads(json.dumps(description))
    *outer, last = path.split(".")
    inner = copy
    for name in outer:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(copy)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("mean", None, "model.json: mean is missing"),
        ("mean", [float("nan")], "mean.0 nan"),
        ("mean", [0.1, 0.2], "mean and std have [2, 1] values for 1 channels"),
        ("std", [0], "std.0 0"),
        ("std", [-1.0], "std.0 -1.0"),
        ("std", ["x"], "std.0 'x'"),
        ("classes", [], "classes []"),
        ("classes", ["a", "a", "b"], "a class is there twice"),
        ("classes", ["a", 3, "b"], "classes.1 3"),
        ("classes", ["a", "b"], "tensor 'classifier.bias' is [3], and model.json means [2]"),
        ("size", None, "size is missing"),
        ("size.cells", 0, "size.cells 0"),
        ("size.cells", -3, "size.cells -3"),
        ("size.cells", 2.5, "size.cells 2.5"),
        ("size.cells", True, "size.cells True"),
        ("size.cells", 2, "and model.json means none"),
        ("size.cells", BILLION, "far more than the"),
        ("size.channels", 10**400, "size.channels 1000"),
        ("size.channels", BILLION, "size.channels 1000000000"),
        ("size.channels", 100_000, "model.json means [3, 200000]"),
        ("size.image_size", BILLION, "size.image_size 1000000000"),
        ("size.in_channels", BILLION, "size.in_channels 1000000000"),
        ("size.depth", 3, "size.depth 3"),
        ("size.form", "x", "unexpected keyword argument 'form'"),
        ("genotype", 3, "genotype 3"),
        ("genotype.space", "x", "space 'x' is not known"),
        ("genotype.choices", {}, "is not a nasbench201 cell"),
    ],
)
def test_what_is_damaged_is_one_line(path, value, line, saved, tmp_path):
    folder, description = saved
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run/model.json").write_text(changed(description, path, value))
    assert line in refused(tmp_path / "run")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000, '{"a":' * 100_000, "1" * 5000, "\xff"])
def test_what_is_no_description_is_one_line(text, saved, tmp_path):
    folder, _ = saved
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run/model.json").write_text(text, encoding="latin-1")
    assert "model.json" in refused(tmp_path / "run")


@pytest.mark.parametrize("data", [b"", b"x", b"\xff" * 100, b"\x02" + b"\0" * 7 + b"{}"])
def test_other_weights_are_one_line(data, saved, tmp_path):
    folder, _ = saved
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run/model.safetensors").write_bytes(data)
    refused(tmp_path / "run")


@pytest.mark.parametrize("space", TEXTS)
@pytest.mark.parametrize("name", ["cells", "channels", "image_size", "in_channels"])
def test_no_size_makes_it_build_without_end(space, name, tmp_path):
    """A network of these sizes would take hours and terabytes."""
    _, description = save(tmp_path / "run", space)
    for value in (BILLION, 99_999, 10_000):
        (tmp_path / "run/model.json").write_text(changed(description, f"size.{name}", value))
        if name != "image_size" or value == BILLION:
            refused(tmp_path / "run")


def test_a_cell_without_parameters_does_not_make_it_build_without_end(tmp_path):
    network, description = save(tmp_path / "run")
    description["genotype"]["choices"] = {name: ["none"] for name in description["genotype"]["choices"]}
    description["size"]["cells"] = 10**7
    save_trained(tmp_path / "run", network, description)
    assert "far more than the" in refused(tmp_path / "run")


def refused(folder):
    """The line with which `load` refuses the folder."""
    with pytest.raises(InputError) as raised:
        load(folder)
    line = str(raised.value)
    assert f"{str(folder)!r} is damaged" in line
    assert "\n" not in line
    assert len(line) < 1000
    return line
