"""From settings to a run folder: what the command line does, as functions."""

from __future__ import annotations

import inspect
import json
import math
import os
import random
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from msgdas.choice import MixedInput, choices
from msgdas.cost import candidate_macs, count
from msgdas.data import DataSet, load_data
from msgdas.errors import InputError
from msgdas.fast.layout import layout
from msgdas.fast.native import use_native
from msgdas.genotype import Genotype
from msgdas.methods import METHODS
from msgdas.report import write_report
from msgdas.report.terminal import SearchView, TrainView
from msgdas.retrain.compiled import refuse_drop_path, refuse_without_compiler
from msgdas.retrain.recipe import RECIPES, Recipe
from msgdas.retrain.train import retrain
from msgdas.retrain.trained import save_trained
from msgdas.runs import Run, versions, write_json
from msgdas.search.execution import Execution
from msgdas.search.loop import fit, validation_batches
from msgdas.search.method import Method
from msgdas.search.penalties import ExpectedCost
from msgdas.search.prior import Prior
from msgdas.search.schedules import cosine, linear
from msgdas.search.search import Search
from msgdas.search.selection import Ranked, select_on_validation
from msgdas.spaces import SPACES, Space, find_space

__all__ = [
    "network_form",
    "report",
    "search",
    "supernet_options",
    "train",
]

Settings = dict[str, Any]
SEARCH_OPTIONS = (
    "drop",
    "drop_in_alpha_steps",
    "weight_lr",
    "alpha_lr",
    "micro_batches",
    "precision",
    "recompute",
)  # of every method
METHOD_OPTIONS = (
    "k",
    "gradient",
    "assignment",
    "weight_assignment",
    "normalise",
    "guidance",
    "temperature",
)  # of those that take them
DATA_OPTIONS = ("data_dir", "download", "image_size", "on_bad_image", "max_memory", "workers")
SHORTEST = 1500  # steps that a search of unstated length has at least
LARGE = 112  # pixels, from which on DropBlock's blocks are larger
GIB = 2**30


# ------------------------------------------------------------------------- search


def search(settings: Settings, out: Path, *, resume: bool, view: SearchView) -> Genotype:
    """Search as ``settings`` say and leave a run folder with the genotype and a report.

    Raises:
        InputError: settings, data or folder are wrong; then nothing was written.
        Stopped: a signal came; the run is saved.
    """
    _start(settings)
    data = _load(settings, out if resume else None)
    space = find_space(settings["space"])
    settings = _completed(settings, data, space)
    torch.manual_seed(settings["seed"])
    net = _supernet(space, settings, data)
    job = _search(net, settings, data)
    job.draw()  # a wrong k, or too many images, is one line here, before anything is written
    data.halves(settings["seed"], settings["images"])
    job.steps = settings["epochs"] * max(1, settings["images"] // settings["batch_size"])
    config = _config("search", settings, data) | {"search": job.describe()}
    with Run.open(out) if resume else Run.create(out, config) as run:
        _refuse_another_search(run, config["search"])
        view.start(out, _plan(settings, data, net, job), settings["epochs"])
        genotype = fit(
            job,
            data,
            epochs=settings["epochs"],
            batch_size=settings["batch_size"],
            images=settings["images"],
            seed=settings["seed"],
            device=settings["device"],
            run=run,
            on_start=view.estimate,
            on_step=view.step,
            on_epoch=view.epoch,
        )
        ranked = _select(job, data, settings) if settings["samples"] else []
        genotype = ranked[0].genotype if ranked else genotype
        size = space.network_size(data.image_size, genotype) | _input_size(data)
        cost = count(space.network(genotype, **size), data.channels, data.image_size)
        found = genotype.to_dict() | {"string": str(genotype), **cost._asdict()}
        if ranked:
            found["ranked"] = [{"genotype": str(one.genotype), "accuracy": one.accuracy} for one in ranked]
        write_json(out / "genotype.json", found)
        report(out)
    return genotype


def _select(job: Search, data: DataSet, settings: Settings) -> list[Ranked]:
    batches = validation_batches(data, settings["seed"], settings["device"])
    return select_on_validation(job, lambda: batches.epoch(0), samples=settings["samples"], seed=settings["seed"])


def _completed(settings: Settings, data: DataSet, space: Space) -> Settings:
    """Settings with every default that depends on the data or the space."""
    settings = dict(settings)
    settings["channels"] = settings["channels"] or space.search_size["channels"]
    settings["cells"] = settings["cells"] or space.search_size["cells"]
    if settings["images"] is None:
        settings["images"] = len(data.train) // 2
    if settings["epochs"] is None:
        steps = max(1, settings["images"] // settings["batch_size"])
        settings["epochs"] = max(20, math.ceil(SHORTEST / steps))
    if settings["warmup"] is None:
        settings["warmup"] = round(0.6 * settings["epochs"])
    if not 0 <= settings["warmup"] < settings["epochs"]:
        raise InputError(
            f"--warmup {settings['warmup']} of --epochs {settings['epochs']}: leave at least one epoch to search in"
        )
    return settings


def _refuse_another_search(run: Run, now: Mapping[str, Any]) -> None:
    """Raises:
    InputError: the run began as another search than its settings mean now, by the defaults of another version.
    """
    began = run.config.get("search", {})
    for name, value in json.loads(json.dumps(now)).items():
        if name in began and not _agree(began[name], value):
            raise InputError(
                f"run '{run.path}' began with {name.replace('_', '-')} {began[name]} and would go on with {value}: "
                f"finish it with msgdas {run.config.get('versions', {}).get('msgdas')} as it was, or start anew"
            )


def _agree(began: Any, now: Any) -> bool:
    """Whether two descriptions agree in all that both have: versions differ in what they describe."""
    if isinstance(began, dict) and isinstance(now, dict):
        return all(_agree(began[name], now[name]) for name in began.keys() & now.keys())
    if isinstance(began, list) and isinstance(now, list):
        return len(began) == len(now) and all(map(_agree, began, now))
    if isinstance(began, str) and isinstance(now, dict):  # a part by its name alone
        return began == now.get("name")
    return bool(began == now)


def _supernet(space: Space, settings: Settings, data: DataSet) -> nn.Module:
    """The space's super-net, with what the method asks of it."""
    name = settings["method"]
    if name not in METHODS:
        raise InputError(f"method {name!r} is not known: use {', '.join(METHODS)}")
    return space.supernet(**_network_size(settings, data), **supernet_options(name, space))


def supernet_options(method: str, space: Space) -> dict[str, Any]:
    """What a method asks of the super-net.

    Raises:
        InputError: the space has nothing of it.
    """
    asked, known = METHODS[method]().supernet, inspect.signature(space.supernet).parameters
    options = {option: value for option, value in asked.items() if option in known}
    if asked and not options:
        able = [s.name for s in SPACES.values() if asked.keys() & inspect.signature(s.supernet).parameters.keys()]
        raise InputError(
            f"method {method} asks for a super-net with {', '.join(asked)}, which space {space.name} has not: "
            f"use {', '.join(able)}"
        )
    return options


def _search(net: nn.Module, settings: Settings, data: DataSet) -> Search:
    """The search that ``settings`` describe, on ``net``.

    Raises:
        InputError: the method does not take one of the options.
    """
    method = _method(settings, large=data.image_size >= LARGE)
    if settings.get("cost_weight") is not None:
        if method.learning == "none":
            name = settings["method"]
            raise InputError(f"--cost-weight is no option of method {name}, which learns no alphas: leave it out")
        cost = ExpectedCost(candidate_macs(net, data.channels, data.image_size), settings["cost_weight"])
        method = replace(method, penalties=(*method.penalties, cost))
    loss = F.cross_entropy
    if settings["class_weights"] == "balanced":
        loss = partial(F.cross_entropy, weight=data.class_weights().to(settings["device"]))
    given = {f.name: settings[f.name] for f in fields(Execution) if settings.get(f.name) is not None}
    execution = Execution(**given, memory_format=layout(settings["device"]))
    return Search(net, method, loss=loss, execution=execution, seed=settings["seed"])


def _method(settings: Settings, *, large: bool) -> Method:
    """The method by name, with every option that was given; ``large``: larger blocks of DropBlock, for large images."""
    name = settings["method"]
    taken = inspect.signature(METHODS[name]).parameters
    own = {option: settings[option] for option in METHOD_OPTIONS if settings.get(option) is not None}
    for option in own:
        if option not in taken:
            raise InputError(f"--{option.replace('_', '-')} is no option of method {name}: leave it out")
    changes: dict[str, Any] = {"warmup": settings["warmup"] / settings["epochs"]}
    for option in (f.name for f in fields(Method) if f.name in SEARCH_OPTIONS):
        if settings.get(option) is not None:  # older runs lack newer options
            changes[option] = settings[option]
    if "drop" in changes:
        changes["drop"] = linear(changes["drop"], 0.0)
    if "weight_lr" in changes:
        changes["weight_lr"] = cosine(changes["weight_lr"], 1e-3)
    if settings.get("prior"):
        changes["prior"] = Prior.read(Path(settings["prior"]), settings["trust"])
    if large:
        changes["drop_block"] = 7
    return replace(METHODS[name](**own), **changes)


def _plan(settings: Settings, data: DataSet, net: nn.Module, job: Search) -> list[str]:
    """What the search will do, as lines."""
    places = [same[0] for same in choices(net).values()]
    size = math.prod(math.comb(len(c.labels), c.keep) if isinstance(c, MixedInput) else len(c.labels) for c in places)
    parameters = sum(p.numel() for p in net.parameters())
    side, half = data.image_size, settings["images"]
    steps = max(1, half // settings["batch_size"])
    for_alphas = f"{half:,} for alphas, " if job.method.learning == "alternate" else ""
    paths = f"{size:,}" if size < 10**9 else f"{size:.1e}"
    return [
        f"{settings['method']} on {data.name}: {len(places)} choices, {paths} sub-graphs in {settings['space']}",
        f"super-net: {settings['channels']} channels, {settings['cells']} cell{'s' if settings['cells'] > 1 else ''} "
        f"{find_space(settings['space']).cells}, {parameters:,} parameters",
        f"images: {half:,} for weights, {for_alphas}{len(data.val):,} validation, {len(data.test):,} test",
        f"        {data.channels} × {side} × {side} pixels, {data.num_classes} classes, {data.where}",
        f"{settings['epochs']} epochs of {steps} steps, the first {settings['warmup']} for weights alone, "
        f"on {settings['device']}",
    ]


# -------------------------------------------------------------------------- train


def train(genotype: Genotype, settings: Settings, out: Path, *, resume: bool, view: TrainView) -> dict[str, Any]:
    """Train the network of ``genotype`` from scratch, test it, and leave the trained network in ``out``.

    Raises:
        InputError: settings, data or folder are wrong; then nothing was written.
        Stopped: a signal came; the run is saved.
    """
    _start(settings)
    recipe = _recipe(settings)
    compile = bool(settings.get("compile"))  # older runs have no such setting
    if compile:
        refuse_drop_path(recipe.drop_path)
        refuse_without_compiler(settings["device"])
    data = _load(settings, out if resume else None)
    space = find_space(genotype.space)
    default = space.network_size(data.image_size, genotype)
    settings = settings | {
        "channels": settings["channels"] or default["channels"],
        "cells": settings["cells"] or default["cells"],
        "genotype": str(genotype),
    }
    size = _network_size(settings, data) | network_form(space, settings["network"])
    cost = count(space.network(genotype, **size), data.channels, data.image_size)
    torch.manual_seed(settings["seed"])
    auxiliary = space.auxiliary and recipe.auxiliary > 0
    network = space.network(genotype, **size, **({"auxiliary": True} if auxiliary else {}))
    config = _config("train", settings | asdict(recipe), data)
    with Run.open(out) if resume else Run.create(out, config) as run:
        if compile:
            view.say("before the first step the network is compiled, in a minute or more")
        view.start(out, str(genotype), cost, data, recipe.epochs)
        found = retrain(
            network,
            data,
            recipe,
            seed=settings["seed"],
            device=settings["device"],
            compile=compile,
            run=run,
            on_step=view.step,
            on_epoch=view.epoch,
        )
        if auxiliary:
            network.auxiliary = None  # type: ignore[assignment] # of the training only
        result = found | cost._asdict() | {"genotype": str(genotype), "data": data.name}
        description = {
            "genotype": genotype.to_dict(),
            "size": {name: value for name, value in size.items() if name != "classes"},
            "classes": list(data.classes),
            "mean": data.mean.tolist(),
            "std": data.std.tolist(),
        }
        save_trained(out, network, description)
        write_json(out / "result.json", result)
    return result


def _recipe(settings: Settings) -> Recipe:
    """The recipe by name, with every number that was given."""
    if settings["recipe"] not in RECIPES:
        raise InputError(f"recipe {settings['recipe']!r} is not known: use {', '.join(RECIPES)}")
    recipe = RECIPES[settings["recipe"]]
    return replace(recipe, **{n: settings[n] for n in asdict(recipe) if settings.get(n) is not None})


# ------------------------------------------------------------------------- shared


def network_form(space: Space, form: str | None) -> dict[str, str]:
    """The argument ``form`` of the space's networks, where one is given.

    Raises:
        InputError: the space has no such form.
    """
    if form and form not in space.forms:
        raise InputError(f"network {form!r}: space {space.name} has one form of networks only; leave it out")
    return {"form": form} if form else {}


def report(folder: Path) -> Path:
    """Write ``report.html`` of a run folder."""
    Run.open(folder, lock=False)
    file = folder / "genotype.json"
    graphs = []
    if file.exists():
        genotype = Genotype.read(file)
        graphs = find_space(genotype.space).graphs(genotype)
    return write_report(folder, graphs)


def _load(settings: Settings, begun: Path | None) -> DataSet:
    """The data; of a run already ``begun`` from where it took its images, whatever memory is free now."""
    options = {name: settings[name] for name in DATA_OPTIONS if settings[name] is not None}
    if "max_memory" in options:
        options["max_memory"] = round(options["max_memory"] * GIB)
    if begun:
        options["max_memory"] = 0 if Run.open(begun, lock=False).config["dataset"]["streams"] else sys.maxsize
    return load_data(settings["data"], **options)


def _start(settings: Settings) -> None:
    for name in ("epochs", "batch_size", "channels", "cells", "images", "samples"):
        if settings.get(name) is not None and settings[name] < 1:
            raise InputError(f"--{name.replace('_', '-')} {settings[name]}: use 1 or more")
    random.seed(settings["seed"])
    np.random.seed(settings["seed"] % 2**32)  # noqa: NPY002 - of other people's code
    if settings.get("threads"):
        torch.set_num_threads(settings["threads"])
    use_native(bool(settings.get("native")))  # older runs have no such setting


def _input_size(data: DataSet) -> dict[str, int]:
    return {"classes": data.num_classes, "in_channels": data.channels, "image_size": data.image_size}


def _network_size(settings: Mapping[str, Any], data: DataSet) -> dict[str, Any]:
    return {"channels": settings["channels"], "cells": settings["cells"], **_input_size(data)}


def _config(command: str, settings: Settings, data: DataSet) -> dict[str, Any]:
    seen = {"name": data.name, "classes": list(data.classes), **_input_size(data)}
    seen |= {"train": len(data.train), "val": len(data.val), "test": len(data.test), "streams": data.streams}
    kept = settings | {"threads": torch.get_num_threads(), "data": _absolute(settings["data"])}
    if kept.get("prior"):
        kept["prior"] = _absolute(kept["prior"])
    return {"command": command, "settings": kept, "dataset": seen, "versions": versions()}


def _absolute(data: str) -> str:
    return os.path.abspath(data) if os.path.isdir(data) else data
