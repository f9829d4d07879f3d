"""A training of a found network, from settings to a folder with the trained network."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from msgdas.cost import count
from msgdas.data import DataSet
from msgdas.data.decode import RESAMPLING
from msgdas.errors import InputError, shown
from msgdas.fast import layout, slow_down, speed_up
from msgdas.genotype import Genotype
from msgdas.jobs.config import run_config, upgraded
from msgdas.jobs.memory import refuse_too_large
from msgdas.jobs.process import prepare, run_in
from msgdas.jobs.resolve import find_data, find_device, input_size, network_form
from msgdas.jobs.settings import TrainSettings
from msgdas.report.terminal import TrainView
from msgdas.retrain.compiled import refuse_drop_path, refuse_without_compiler
from msgdas.retrain.recipe import RECIPES, Recipe
from msgdas.retrain.train import retrain
from msgdas.retrain.trained import save_trained
from msgdas.runs import Run, stop_on_signals, write_json
from msgdas.spaces import find_space

__all__ = ["train"]


def train(genotype: Genotype, settings: TrainSettings, out: Path, *, resume: bool, view: TrainView) -> dict[str, Any]:
    """Train the network of ``genotype`` from scratch, test it once, and leave it in ``out``.

    Returns:
        What ``result.json`` holds.

    Raises:
        InputError: settings, data or folder are wrong; nothing was written then.
        Stopped: a signal came; if the run had begun, it is saved.
    """
    prepare(settings)
    settings = settings.model_copy(update={"device": find_device(settings.device)})
    if resume:
        _refuse_another_genotype(out, genotype)
    recipe = _begun_recipe(out, settings) if resume else _recipe(settings)
    if settings.compile:
        refuse_drop_path(recipe.drop_path)
        refuse_without_compiler(settings.device)
    data = find_data(settings, out if resume else None, view.load)
    space = find_space(genotype.space)
    default = space.network_size(data.image_size, genotype)
    chosen = {name: getattr(settings, name) or default[name] for name in ("channels", "cells")}
    size: dict[str, Any] = chosen | input_size(data) | network_form(space, settings.network)
    refuse_too_large(
        lambda cells: space.network(genotype, **size | {"cells": cells}),
        channels=chosen["channels"],
        cells=chosen["cells"],
        batch=min(recipe.batch_size, len(data.train)),
        in_channels=data.channels,
        image_shape=data.image_shape,
        device=settings.device,
    )
    with torch.device("meta"):
        cost = count(space.network(genotype, **size), data.channels, data.image_shape)
    auxiliary = space.auxiliary and recipe.auxiliary > 0
    torch.manual_seed(settings.seed)
    network = space.network(genotype, **size, **({"auxiliary": True} if auxiliary else {}))
    settings = settings.model_copy(update={**chosen, **_numbers(recipe)})
    config = run_config("train", settings, data, recipe=asdict(recipe), genotype=str(genotype))
    with run_in(out, config, resume=resume) as run:
        if settings.compile:
            view.say("before the first step the network is compiled, in a minute or more")
        view.start(out, str(genotype), cost, data, recipe.epochs)
        network.to(memory_format=layout(settings.device))
        if not settings.compile:
            speed_up(network)
        found = retrain(
            network,
            data,
            recipe,
            seed=settings.seed,
            device=settings.device,
            compile=settings.compile,
            run=run,
            on_start=view.estimate,
            on_step=view.step,
            on_epoch=view.epoch,
        )
        slow_down(network)
        if auxiliary:
            network.auxiliary = None  # type: ignore[assignment] # only the training has the auxiliary head
        result = found | cost._asdict() | {"genotype": str(genotype), "data": data.name}
        with stop_on_signals():  # a second or two: finish
            save_trained(out, network, _description(genotype, size, data))
            write_json(out / "result.json", result)
    return result


def _recipe(settings: TrainSettings) -> Recipe:
    """The recipe by name, with every number that was given."""
    recipe = RECIPES[settings.recipe]
    given = {name: getattr(settings, name) for name in _numbers(recipe)}
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})


def _refuse_another_genotype(out: Path, genotype: Genotype) -> None:
    """Raises:
    InputError: the run in ``out`` trains another network.
    """
    run = Run.open(out, lock=False)
    began = run.config.get("genotype", run.section("settings").get("genotype"))  # where format 1 has it
    if began is not None and began != str(genotype):
        raise InputError(
            f"run '{out}' trains {shown(began)}, not {shown(str(genotype))}: give the same genotype, or another --out"
        )


def _begun_recipe(out: Path, settings: TrainSettings) -> Recipe:
    """The recipe that the run in ``out`` began with, whatever its name means in this version."""
    run, recipe = Run.open(out, lock=False), _recipe(settings)
    run.section("recipe")
    kept = upgraded(run).get("recipe") or {}
    known = {field.name: getattr(recipe, field.name) for field in fields(Recipe)}
    for name, value in kept.items():
        if name in known and type(value) not in (type(known[name]), *((int,) if type(known[name]) is float else ())):
            raise InputError(f"run '{out}' has recipe.{name} {shown(value)} in config.json: start again")
    return replace(recipe, **{name: value for name, value in kept.items() if name in known})


def _numbers(recipe: Recipe) -> dict[str, Any]:
    """The fields of a recipe that are options."""
    return {name: value for name, value in asdict(recipe).items() if name in TrainSettings.model_fields}


def _description(genotype: Genotype, size: dict[str, Any], data: DataSet) -> dict[str, Any]:
    """What is needed to build the network again and to prepare images for it."""
    return {
        "genotype": genotype.to_dict(),
        "size": {name: value for name, value in size.items() if name != "classes"},
        "classes": list(data.classes),
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        "mirror": data.augment.flip,
        "form": asdict(data.form) if data.form else None,
        "resampling": RESAMPLING.name.lower(),
    }
