"""From the names in settings to objects: data sets, devices, genotypes, networks, folders."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from msgdas.data import DataSet, load_data
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.jobs.settings import DATA_HELP, DataSettings
from msgdas.runs import Run
from msgdas.spaces import SPACES, Space, find_space

__all__ = ["find_data", "find_device", "find_genotype", "free_folder", "input_size", "network_form"]

GIB = 2**30


def find_data(settings: DataSettings, begun: Path | None = None) -> DataSet:
    """The data set.

    Args:
        begun: the run to go on with. Its images come from where it took them, memory or disk, whatever is free now.

    Raises:
        InputError: there is no such data, or it is damaged.
    """
    if not settings.data:
        raise InputError(f"--data is missing: give {DATA_HELP}")
    memory = None if settings.max_memory is None else round(settings.max_memory * GIB)
    if begun:
        memory = 0 if Run.open(begun, lock=False).config["dataset"]["streams"] else sys.maxsize
    given: dict[str, Any] = {
        "data_dir": settings.data_dir,
        "image_size": settings.image_size,
        "max_memory": memory,
        "workers": settings.workers,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return load_data(settings.data, download=settings.download, on_bad_image=settings.on_bad_image, **given)


def input_size(data: DataSet) -> dict[str, int]:
    """What a network must know of the data."""
    return {"classes": data.num_classes, "in_channels": data.channels, "image_size": data.image_size}


def network_form(space: Space, form: str | None) -> dict[str, str]:
    """The argument ``form`` of the space's networks, if one is given.

    Raises:
        InputError: the space has no such form.
    """
    if form and form not in space.forms:
        raise InputError(f"--network {form}: space {space.name} has only one form of network; leave it out")
    return {"form": form} if form else {}


def find_genotype(source: str) -> Genotype:
    """The genotype of a run folder, a JSON file, or a text ``space:…``.

    Raises:
        InputError: none of these, or damaged.
    """
    path = Path(source)
    if os.path.isdir(source):  # Path.is_dir raises for a text too long to be a path
        Run.open(path, lock=False)
        if not (path / "genotype.json").exists():
            raise InputError(f"run '{path}' has no genotype yet: finish it with 'msgdas search --out {path} --resume'")
        return _read(path / "genotype.json")
    if os.path.isfile(source):
        return _read(path)
    space, colon, text = source.partition(":")
    if colon:
        return find_space(space).from_string(text)
    raise InputError(
        f"{source!r} is not a run folder, a genotype file or a text like 'darts:DARTS_V2' or 'nasbench201:|op~0|+…'"
    )


def _read(path: Path) -> Genotype:
    """A genotype file, JSON or a text ``space:…``, checked against its space."""
    with suppress(OSError, UnicodeError):
        space, colon, text = path.read_text(encoding="utf-8").strip().partition(":")
        if colon and space in SPACES:
            return find_space(space).from_string(text)
    genotype = Genotype.read(path)
    find_space(genotype.space).to_string(genotype)
    return genotype


def find_device(name: str) -> str:
    """The device; ``"auto"`` is a GPU if there is one.

    Raises:
        InputError: the device is not available.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device {name!r} is not available ({reason}): use 'auto' or 'cpu'") from None
    return name


def free_folder(name: str) -> Path:
    """``runs/NAME``, or the first of ``runs/NAME-2``, … that does not exist.

    Raises:
        InputError: all of them do.
    """
    for number in range(1, 10_000):
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not path.exists():
            return path
    raise InputError(f"runs/{name}-… are all taken: give --out")
