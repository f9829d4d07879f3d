"""A search, from settings to a run folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from msgdas.choice import MixedInput, choices
from msgdas.cost import candidate_macs, count
from msgdas.data import DataSet
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.jobs.config import run_config
from msgdas.jobs.process import prepare, speed_up
from msgdas.jobs.report import report
from msgdas.jobs.resolve import find_data, find_device, input_size, supernet_options
from msgdas.jobs.settings import Group, SearchSettings, dashed, options, own_options
from msgdas.methods import METHODS
from msgdas.report.terminal import SearchView
from msgdas.runs import Run, write_json
from msgdas.search.loop import fit, validation_batches
from msgdas.search.penalties import ExpectedCost
from msgdas.search.prior import Prior
from msgdas.search.schedules import cosine, linear
from msgdas.search.search import Search
from msgdas.search.selection import Ranked, select_on_validation
from msgdas.spaces import Space, find_space

__all__ = ["search"]

SHORTEST = 1500  # steps that a search without --epochs has at least
LARGE = 112  # image size from which on DropBlock's blocks are larger
LARGE_BLOCK = 7  # their side then


def search(settings: SearchSettings, out: Path, *, resume: bool, view: SearchView) -> Genotype:
    """Search as ``settings`` say; leave a run folder with the genotype and a report.

    Raises:
        InputError: settings, data or folder are wrong; nothing was written then.
        Stopped: a signal came; the run is saved.
    """
    prepare(settings)
    settings = settings.model_copy(update={"device": find_device(settings.device)})
    data = find_data(settings, out if resume else None)
    space = find_space(settings.space)
    extent = _Extent.of(settings, data, space)
    settings = settings.model_copy(update=asdict(extent))
    torch.manual_seed(settings.seed)
    net = space.supernet(
        channels=extent.channels, cells=extent.cells, **input_size(data), **_asked_of_supernet(settings, space)
    )
    undo = speed_up(net)
    job = _search_of(net, settings, extent, data)
    job.draw(job.sampler)  # a wrong k, or too many images, is one line here, before anything is written
    data.halves(settings.seed, extent.images)
    job.steps = extent.epochs * extent.steps_per_epoch
    config = run_config("search", settings, data, search=job.describe())
    with Run.open(out) if resume else Run.create(out, config) as run:
        _refuse_another_search(run, config["search"])
        view.start(out, _summary(settings, extent, space, data, net, job), extent.epochs)
        genotype = fit(
            job,
            data,
            epochs=extent.epochs,
            batch_size=settings.batch_size,
            images=extent.images,
            seed=settings.seed,
            device=settings.device,
            run=run,
            on_start=view.estimate,
            on_step=view.step,
            on_epoch=view.epoch,
        )
        ranked = _ranked(job, data, settings)
        undo()
        _write_genotype(out, ranked[0].genotype if ranked else genotype, ranked, space, data)
        report(out)
    return ranked[0].genotype if ranked else genotype


@dataclass(frozen=True)
class _Extent:
    """Length and size of a search, where settings may leave them to the data and the space."""

    channels: int
    cells: int
    images: int
    epochs: int
    warmup: int
    batch_size: int

    @classmethod
    def of(cls, settings: SearchSettings, data: DataSet, space: Space) -> _Extent:
        images = settings.images or len(data.train) // 2
        epochs = settings.epochs or max(20, math.ceil(SHORTEST / max(1, images // settings.batch_size)))
        warmup = round(0.6 * epochs) if settings.warmup is None else settings.warmup
        if warmup >= epochs:
            raise InputError(f"--warmup {warmup} of --epochs {epochs}: leave at least one epoch to search in")
        return cls(
            channels=settings.channels or space.search_size["channels"],
            cells=settings.cells or space.search_size["cells"],
            images=images,
            epochs=epochs,
            warmup=warmup,
            batch_size=settings.batch_size,
        )

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.images // self.batch_size)


# ------------------------------------------------------------------------- the method


def _asked_of_supernet(settings: SearchSettings, space: Space) -> dict[str, Any]:
    _own(settings)
    return supernet_options(settings.method, space)


def _own(settings: SearchSettings) -> dict[str, Any]:
    """The arguments of the method's function that were given.

    Raises:
        InputError: the method is not known, or does not take one of them.
    """
    own = own_options(settings.method)
    given = [one.name for one in options(SearchSettings) if one.group is Group.METHOD]
    given = [name for name in given if getattr(settings, name) is not None]
    for name in given:
        if name not in own:
            raise InputError(f"--{dashed(name)} is no option of method {settings.method}: leave it out")
    return {name: getattr(settings, name) for name in given}


def _search_of(net: nn.Module, settings: SearchSettings, extent: _Extent, data: DataSet) -> Search:
    given: dict[str, Any] = {
        "drop": None if settings.drop is None else linear(settings.drop, 0.0),
        "drop_in_alpha_steps": settings.drop_in_alpha_steps,
        "weight_lr": None if settings.weight_lr is None else cosine(settings.weight_lr, 1e-3),
        "alpha_lr": settings.alpha_lr,
        "micro_batches": settings.micro_batches,
        "precision": settings.precision,
        "recompute": settings.recompute,
        "prior": Prior.read(Path(settings.prior), settings.trust) if settings.prior else None,
        "drop_block": LARGE_BLOCK if data.image_size >= LARGE else None,
        "loss": _loss(settings, data),
    }
    given = {name: value for name, value in given.items() if value is not None}
    job = METHODS[settings.method](
        net, seed=settings.seed, warmup=extent.warmup / extent.epochs, **_own(settings), **given
    )
    if settings.cost_weight is not None:
        if job.hypergradient is None and not job.joint:
            raise InputError(
                f"--cost-weight is no option of method {settings.method}, which learns no alphas: leave it out"
            )
        costs = candidate_macs(net, data.channels, data.image_size)
        job.penalties += (ExpectedCost(costs, settings.cost_weight),)
    return job


def _loss(settings: SearchSettings, data: DataSet) -> Any:
    if settings.class_weights == "none":
        return None
    return partial(F.cross_entropy, weight=data.class_weights().to(settings.device))


def _refuse_another_search(run: Run, now: Mapping[str, Any]) -> None:
    """Raises:
    InputError: the run began as another search than its settings mean now, by the defaults of another version.
    """
    began = run.config.get("search", {})
    for name, value in json.loads(json.dumps(now)).items():
        if name in began and began[name] != value:
            raise InputError(
                f"run '{run.path}' began with {dashed(name)} {began[name]} and would go on with {value}: "
                f"finish it with msgdas {run.config.get('versions', {}).get('msgdas')} as it was, or start anew"
            )


# ------------------------------------------------------------------------- what it says and leaves


def _summary(
    settings: SearchSettings, extent: _Extent, space: Space, data: DataSet, net: nn.Module, job: Search
) -> list[str]:
    """What the search will do, as lines."""
    places = [same[0] for same in choices(net).values()]
    size = math.prod(math.comb(len(c.labels), c.keep) if isinstance(c, MixedInput) else len(c.labels) for c in places)
    parameters = sum(p.numel() for p in net.parameters())
    side, cells = data.image_size, f"{extent.cells} cell{'s' if extent.cells > 1 else ''} {space.cells}"
    for_alphas = "" if job.hypergradient is None else f"{extent.images:,} for alphas, "
    paths = f"{size:,}" if size < 10**9 else f"{size:.1e}"
    return [
        f"{settings.method} on {data.name}: {len(places)} choices, {paths} sub-graphs in {space.name}",
        f"super-net: {extent.channels} channels, {cells}, {parameters:,} parameters",
        f"images: {extent.images:,} for weights, {for_alphas}{len(data.val):,} validation, {len(data.test):,} test",
        f"        {data.channels} × {side} × {side} pixels, {data.num_classes} classes, {data.where}",
        f"{extent.epochs} epochs of {extent.steps_per_epoch} steps, the first {extent.warmup} for weights alone, "
        f"on {settings.device}",
    ]


def _ranked(job: Search, data: DataSet, settings: SearchSettings) -> list[Ranked]:
    """Draws from the final distribution, the best on validation images first; empty without ``--samples``."""
    if not settings.samples:
        return []
    batches = validation_batches(data, settings.seed, settings.device)
    return select_on_validation(job, lambda: batches.epoch(0), samples=settings.samples, seed=settings.seed)


def _write_genotype(out: Path, genotype: Genotype, ranked: list[Ranked], space: Space, data: DataSet) -> None:
    size = space.network_size(data.image_size, genotype) | input_size(data)
    cost = count(space.network(genotype, **size), data.channels, data.image_size)
    found = genotype.to_dict() | {"string": str(genotype), **cost._asdict()}
    if ranked:
        found["ranked"] = [{"genotype": str(one.genotype), "accuracy": one.accuracy} for one in ranked]
    write_json(out / "genotype.json", found)
