"""From the names in settings to objects: data sets, devices, genotypes, networks, folders."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from msgdas.data import DataSet, changes, fingerprint, load_data
from msgdas.data.decode import OnDone
from msgdas.data.form import Form
from msgdas.data.named import NAMES
from msgdas.data.source import is_source
from msgdas.errors import InputError, shown
from msgdas.genotype import Genotype
from msgdas.jobs.settings import DATA_HELP, DataSettings
from msgdas.runs import Run
from msgdas.spaces import SPACES, Space, find_space

__all__ = [
    "begun_form",
    "begun_mirror",
    "data_fingerprint",
    "find_data",
    "find_device",
    "find_genotype",
    "free_folder",
    "has_fingerprint",
    "input_size",
    "network_form",
    "refuse_other_data",
]

GIB = 2**30


def find_data(settings: DataSettings, begun: Path | None = None, on_image: OnDone | None = None) -> DataSet:
    """The data set.

    Args:
        on_image: called with how many of how many images of a part are decoded.
        begun: the run to go on with. Its images come from where it took them, memory or disk, whatever is free now.

    Raises:
        InputError: there is no such data, or it is damaged.
    """
    if not settings.data:
        raise InputError(f"--data is missing: give {DATA_HELP}")
    memory = None if settings.max_memory is None else round(settings.max_memory * GIB)
    if begun:
        refuse_other_data(begun, settings.data, settings.labels)
        memory = 0 if Run.open(begun, lock=False).section("dataset").get("streams") else sys.maxsize
    given: dict[str, Any] = {
        "data_dir": settings.data_dir,
        "labels": settings.labels,
        "group": settings.group,
        "drop_duplicates": settings.drop_duplicates,
        "image_size": settings.image_size,
        "resize": settings.resize,
        "max_memory": memory,
        "workers": settings.workers,
    }
    given = {name: value for name, value in given.items() if value is not None}
    given["mirror"] = begun_mirror(begun, settings.data) if begun else settings.mirror
    given["form"] = begun_form(begun) if begun else None
    given["on_image"] = on_image
    return load_data(settings.data, download=settings.download, on_bad_image=settings.on_bad_image, **given)


def begun_mirror(path: Path, data: str) -> str:
    """Whether the run in ``path`` mirrors images, as ``load_data`` takes it. Older versions mirrored every folder."""
    noted = Run.open(path, lock=False).section("dataset").get("mirror")
    if not isinstance(noted, dict):
        return "auto" if data in NAMES else "on"
    return "on" if noted.get("on") else "off"


def begun_form(path: Path) -> Form | None:
    """What the run in ``path`` makes images into. Older versions made every image a square, cropped."""
    noted = Run.open(path, lock=False).config.get("dataset", {})
    try:
        return Form.square(noted["in_channels"], noted["image_size"]) if "form" not in noted else Form.of(noted["form"])
    except (KeyError, TypeError):
        return None


def data_fingerprint(data: str | None, labels: str | None = None) -> dict[str, Any] | None:
    """What the data hold now; ``None`` for data by name, which never change."""
    return fingerprint(data, labels) if data and data not in NAMES and is_source(data) else None


def has_fingerprint(path: Path) -> bool:
    """Whether the run in ``path`` notes which files its data are."""
    return _noted(path) is not None


def _noted(path: Path) -> dict[str, Any] | None:
    found = Run.open(path, lock=False).section("dataset").get("fingerprint")
    return found if isinstance(found, dict) else None


def refuse_other_data(path: Path, data: str | None, labels: str | None = None) -> None:
    """Refuse data that are not those which the run in ``path`` began with. Runs of older versions did not note them.

    Raises:
        InputError: files were added, removed or changed, or classes renamed; it names the first.
    """
    before = _noted(path)
    if before is None:
        return
    if data and not is_source(data):
        raise InputError(
            f"run '{path}' began with the images in '{data}', which are not there: "
            "put them back, or say by --data where they are"
        )
    now = data_fingerprint(data, labels)
    try:
        changed = changes(before, now) if now else ""
    except (LookupError, TypeError, AttributeError):
        raise InputError(f"run '{path}' has a damaged fingerprint of its data in config.json: start anew") from None
    if changed:
        raise InputError(f"data '{data}' are not those of run '{path}': {changed}; put them back, or start anew")


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
        f"{shown(source)} is not a run folder, a genotype file or a text like 'darts:DARTS_V2' or "
        "'nasbench201:|op~0|+…'"
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
        raise InputError(f"device {shown(name)} is not available ({reason}): use 'auto' or 'cpu'") from None
    return name


def free_folder(name: str) -> Path:
    """``runs/NAME``, or the first of ``runs/NAME-2``, … that does not exist.

    Raises:
        InputError: all of them do.
    """
    for number in range(1, 10_000):
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not os.path.exists(path):
            return path
    raise InputError(f"runs/{name}-… are all taken: give --out")
