"""Settings as files: ``config.json`` of a run folder, and the YAML of ``--config``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from msgdas.data import DataSet
from msgdas.errors import InputError, cut, shown
from msgdas.jobs.option import Settings, dashed, options
from msgdas.jobs.resolve import data_fingerprint
from msgdas.retrain.recipe import Recipe
from msgdas.runs import Run, versions, write_json
from msgdas.runs.folder import CONFIG

__all__ = [
    "FORMAT",
    "MOVABLE",
    "begun",
    "compare_begun",
    "keep_moved_data",
    "read_yaml",
    "run_config",
    "to_yaml",
    "upgraded",
]

FORMAT = 2
"""Of ``config.json``. 1, without a number: a training's ``settings`` held its whole recipe and the genotype."""

LARGEST = 2**20  # characters of a file of settings
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)  # of yaml's constructors

Model = TypeVar("Model", bound=Settings)
SIZES = {
    "classes": "classes",
    "in_channels": "channels of an image",
    "image_size": "pixels a side",
    "train": "training images",
}
EXACT = ("msgdas", "torch")  # versions that a run is promised to repeat bit for bit
MOVABLE = ("data", "labels")  # may have moved when a run goes on
PATHS = (*MOVABLE, "prior")  # kept absolute, so that a run can be resumed from anywhere


# ------------------------------------------------------------------------- config.json


def run_config(command: str, settings: Settings, data: DataSet, **more: Any) -> dict[str, Any]:
    """What ``config.json`` holds: the settings, the data set as it was seen, and versions."""
    seen = {
        "name": data.name,
        "classes": data.num_classes,
        "in_channels": data.channels,
        "image_size": data.image_size,
        "train": len(data.train),
        "val": len(data.val),
        "test": len(data.test),
        "streams": data.streams,
    }
    if data.form:
        seen["form"] = asdict(data.form)
    if "mirror" in type(settings).model_fields:
        seen["mirror"] = {"on": data.augment.flip, "why": data.why_mirrored}
    if seen_files := data_fingerprint(getattr(settings, "data", None), getattr(settings, "labels", None)):
        seen["fingerprint"] = seen_files
    found = versions()
    kept = settings.model_dump() | {"threads": found["threads"]}
    kept |= {name: os.path.abspath(kept[name]) for name in PATHS if os.path.exists(kept.get(name) or "")}
    return {"version": FORMAT, "command": command, "settings": kept, "dataset": seen, "versions": found, **more}


def begun(model: type[Model], folder: str | Path, command: str) -> Model:
    """The settings of the run in ``folder``.

    Raises:
        InputError: there is no run, it is of another command, or another version of msgdas wrote what this one cannot
            read.
    """
    config = upgraded(Run.open(folder, lock=False))
    if (other := config.get("command", command)) != command:
        made = shown(f"msgdas {other}")
        raise InputError(f"run '{folder}' was made by {made}: give that command, or another --out")
    settings = config.get("settings")
    if not isinstance(settings, dict):
        raise InputError(f"run '{folder}' has no settings in its config.json: start again with another --out")
    try:
        return model(**settings)
    except InputError as error:
        way_out = f"go on with it by msgdas {_writer(config)}, or start again with another --out"
        raise InputError(f"run '{folder}' has settings that this version cannot read ({error}): {way_out}") from None


def compare_begun(run: Run, now: Mapping[str, Any]) -> None:
    """Compare a run that goes on with ``now``, its `run_config` as it would be today.

    Warns:
        It began with another version of msgdas or torch, so it may go another way than it would have gone.

    Raises:
        InputError: the data have another number of classes, channels, pixels or training images.
    """
    before = run.section("dataset")
    for name, what in SIZES.items():
        if name in before and before[name] != now["dataset"][name]:
            raise InputError(
                f"run '{run.path}' began with {shown(before[name])} {what}, and the data now have "
                f"{now['dataset'][name]}: give it the data it began with, or start anew"
            )
    versions = run.section("versions")
    other = [
        f"{name} {cut(str(versions[name]))}, now {now['versions'][name]}"
        for name in EXACT
        if versions.get(name) and versions[name] != now["versions"][name]
    ]
    if other:
        warnings.warn(f"run '{run.path}' began with {'; '.join(other)}: it may take another path", stacklevel=2)


def keep_moved_data(run: Run, now: Mapping[str, Any]) -> None:
    """Note in ``config.json`` where the data are now, if they were moved since the run in it began."""
    settings = run.section("settings")
    moved = {name: now["settings"][name] for name in MOVABLE if name in now["settings"]}
    if any(settings.get(name) != value for name, value in moved.items()):
        run.config["settings"] = settings | moved
        write_json(run.path / CONFIG, run.config)


def upgraded(run: Run) -> dict[str, Any]:
    """The run's configuration in today's format.

    Raises:
        InputError: a newer version wrote it.
    """
    config, version = dict(run.config), run.config.get("version", 1)
    if not isinstance(version, int) or version > FORMAT:
        raise InputError(
            f"run '{run.path}' was written by a newer msgdas ({_writer(config)}): its config.json has version "
            f"{shown(version)}, this one reads up to {FORMAT}; update msgdas"
        )
    if version == 1 and isinstance(config.get("settings"), dict) and config.get("command") == "train":
        settings = dict(config["settings"])
        recipe = {field.name: settings[field.name] for field in fields(Recipe) if field.name in settings}
        for name in ("rise", "momentum", "nesterov", "clip", "genotype"):
            settings.pop(name, None)
        config |= {"settings": settings, "recipe": recipe}
    return config


def _writer(config: Mapping[str, Any]) -> str:
    found = config.get("versions")
    return cut(str(found.get("msgdas", "unknown"))) if isinstance(found, dict) else "unknown"


# ------------------------------------------------------------------------- YAML


def to_yaml(settings: Settings) -> str:
    """The settings as a file for ``--config``; those without a value are left out."""
    values = {
        dashed(one.name): getattr(settings, one.name)
        for one in options(type(settings))
        if getattr(settings, one.name) is not None
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _load_yaml(path: Path) -> Any:
    with open(path, encoding="utf-8") as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise ValueError(f"more than {LARGEST:,} characters")
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):  # a few can mean gigabytes
            raise ValueError("settings have no aliases such as *name")
    return yaml.safe_load(text)


def read_yaml(model: type[Settings], path: str | Path) -> dict[str, Any]:
    """The values in a file, by the names of the model's fields, not yet checked.

    Raises:
        InputError: the file cannot be read, is not a mapping, or names something that is not an option.
    """
    where = f"--config {shown(str(path))}"
    try:
        found = _load_yaml(Path(path))
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from None
    except (*DAMAGE, yaml.YAMLError) as error:
        reason = cut(" ".join(str(error).split()) or type(error).__name__)
        raise InputError(f"{where} is no YAML ({reason}): see --print-config") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{where} is not a list of 'option: value' lines: see --print-config")
    aliases = {alias: one.name for one in options(model) for alias in one.aliases}
    values: dict[str, Any] = {}
    for key, value in found.items():
        name = str(key).replace("-", "_")
        name = aliases.get(name, name)
        if name in ("out", "resume"):
            raise InputError(f"{where}: give --{name} on the command line, not in the file")
        if name in values:
            raise InputError(f"{where} has {dashed(name)!r} twice: leave one out")
        values[name] = value
    unknown = {name: None for name in values if name not in model.model_fields}
    if unknown:
        try:
            model(**unknown)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return values
