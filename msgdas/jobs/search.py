"""A search, from settings to a run folder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msgdas.choice import MixedInput
from msgdas.cost import candidate_macs, count
from msgdas.data import DataSet
from msgdas.data.check.proposal import training
from msgdas.data.decode import OnDone
from msgdas.errors import InputError, shown
from msgdas.fast import layout, speed_up
from msgdas.genotype import Genotype
from msgdas.jobs.config import run_config
from msgdas.jobs.memory import refuse_too_large
from msgdas.jobs.option import Group, dashed, options
from msgdas.jobs.process import prepare, run_in
from msgdas.jobs.report import report
from msgdas.jobs.resolve import find_data, find_device, input_size
from msgdas.jobs.settings import SearchSettings, own_options
from msgdas.methods import METHODS
from msgdas.report.terminal import SearchView
from msgdas.runs import Run, stop_on_signals, write_json
from msgdas.search.execution import Execution
from msgdas.search.loop import fit, validation_batches
from msgdas.search.method import Method
from msgdas.search.penalties import ExpectedCost
from msgdas.search.prior import Prior
from msgdas.search.schedules import cosine, linear
from msgdas.search.search import Search
from msgdas.search.selection import Ranked, select_on_validation
from msgdas.spaces import Space, find_space
from msgdas.spaces.supernet_options import supernet_options
from msgdas.supernet import choices

__all__ = ["check", "search"]

SHORTEST = 1500  # steps that a search without --epochs has at least
LARGE = 112  # image size from which on DropBlock's blocks are larger
LARGE_BLOCK = 7  # their side then


def search(settings: SearchSettings, out: Path, *, resume: bool, view: SearchView) -> Genotype:
    """Search as ``settings`` say; leave a run folder with the genotype and a report.

    Raises:
        InputError: settings, data or folder are wrong; nothing was written then.
        Stopped: a signal came; if the run had begun, it is saved.
    """
    ready = _ready(settings, out if resume else None, view.load)
    settings, data, space, extent, job = ready.settings, ready.data, ready.space, ready.extent, ready.job
    config = run_config("search", settings, data, search=job.describe())
    with run_in(out, config, resume=resume) as run:
        _refuse_another_search(run, config["search"])
        view.start(out, _summary(settings, extent, space, data, job), extent.epochs)
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
        ready.undo()
        genotype = ranked[0].genotype if ranked else genotype
        with stop_on_signals():  # a second or two: finish
            _write_genotype(out, genotype, ranked, space, data)
            report(out)
    view.end(genotype, training(str(out), space.name, data.image_size, gpu=torch.device(settings.device).type != "cpu"))
    return genotype


def check(settings: SearchSettings) -> None:
    """Do all that `search` does before it writes anything.

    Raises:
        InputError: settings or data are wrong.
    """
    _ready(settings, None)


@dataclass(frozen=True)
class _Ready:
    """A search before its first step.

    Attributes:
        settings: with what they leave to the data, the space and the machine filled in.
        undo: gives the network its plain modules back.
    """

    settings: SearchSettings
    data: DataSet
    space: Space
    extent: _Extent
    job: Search
    undo: Callable[[], None]


def _ready(settings: SearchSettings, begun: Path | None, on_image: OnDone | None = None) -> _Ready:
    """Everything that can be refused is refused here.

    Args:
        begun: the run to go on with.
    """
    prepare(settings)
    settings = settings.model_copy(update={"device": find_device(settings.device)})
    space = find_space(settings.space)
    data = find_data(settings, begun, on_image)
    extent = _Extent.of(settings, data, space)
    settings = settings.model_copy(update=asdict(extent))
    torch.manual_seed(settings.seed)
    method = _method(settings, extent, large=data.image_size >= LARGE)
    asked = supernet_options(space, settings.method, method.supernet)
    execution = _execution(settings)
    batch = len(execution.split(torch.empty(min(extent.batch_size, extent.images)))[0])
    build = partial(space.supernet, channels=extent.channels, **input_size(data), **asked)
    refuse_too_large(
        lambda cells: build(cells=cells),
        channels=extent.channels,
        cells=extent.cells,
        batch=batch,
        in_channels=data.channels,
        image_shape=data.image_shape,
        device=settings.device,
    )
    net = build(cells=extent.cells)
    method = _with_cost(method, settings, net, data)
    undo = speed_up(net)
    job = Search(net, method, loss=_loss(settings, data), execution=execution, seed=settings.seed)
    job.draw()  # a wrong k, or too many images, is one line here
    data.halves(settings.seed, extent.images)
    job.steps = extent.epochs * extent.steps_per_epoch
    return _Ready(settings, data, space, extent, job, undo)


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
        warmup = min(round(0.6 * epochs), epochs - 1) if settings.warmup is None else settings.warmup
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


def _method(settings: SearchSettings, extent: _Extent, *, large: bool) -> Method:
    """The method by name, with all that was given; ``large``: with larger blocks of DropBlock.

    Raises:
        InputError: the method is not known, or does not take an option that was given.
    """
    own = own_options(settings.method)
    given = {one.name: getattr(settings, one.name) for one in options(SearchSettings) if one.group is Group.METHOD}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in own:
            raise InputError(f"--{dashed(name)} is not an option of method {settings.method}: leave it out")
    changes = {
        "warmup": extent.warmup / extent.epochs,
        "drop": None if settings.drop is None else linear(settings.drop, 0.0),
        "drop_in_alpha_steps": settings.drop_in_alpha_steps,
        "drop_block": LARGE_BLOCK if large else None,
        "weight_lr": None if settings.weight_lr is None else cosine(settings.weight_lr, 1e-3),
        "alpha_lr": settings.alpha_lr,
        "prior": Prior.read(Path(settings.prior), settings.trust) if settings.prior else None,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    return replace(METHODS[settings.method](**given), **changes)  # type: ignore[arg-type] # checked above, or by it


def _with_cost(method: Method, settings: SearchSettings, net: nn.Module, data: DataSet) -> Method:
    """The method with a penalty on the expected multiply-adds, if one is asked for."""
    if settings.cost_weight is None:
        return method
    if method.learning == "none":
        name = settings.method
        raise InputError(f"--cost-weight is not an option of method {name}, which learns no alphas: leave it out")
    cost = ExpectedCost(candidate_macs(net, data.channels, data.image_shape), settings.cost_weight)
    return replace(method, penalties=(*method.penalties, cost))


def _execution(settings: SearchSettings) -> Execution:
    given: dict[str, Any] = {f.name: getattr(settings, f.name, None) for f in fields(Execution)}
    given = {name: value for name, value in given.items() if value is not None}
    return Execution(**given | {"memory_format": layout(settings.device)})


def _loss(settings: SearchSettings, data: DataSet) -> Callable[[Tensor, Tensor], Tensor]:
    if settings.class_weights == "none":
        return F.cross_entropy
    return partial(F.cross_entropy, weight=data.class_weights().to(settings.device))


def _refuse_another_search(run: Run, now: Mapping[str, Any]) -> None:
    """Raises:
    InputError: the run began as another search than its settings mean now, by the defaults of another version.
    """
    began, versions = run.section("search"), run.section("versions")
    for name, value in json.loads(json.dumps(now)).items():
        if name in began and not _agree(began[name], value):
            raise InputError(
                f"run '{run.path}' began with {dashed(name)} {shown(began[name])} and would go on with {shown(value)}: "
                f"finish it with msgdas {versions.get('msgdas')} as it was, or start anew"
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


# ------------------------------------------------------------------------- what it says and leaves


def _summary(settings: SearchSettings, extent: _Extent, space: Space, data: DataSet, job: Search) -> list[str]:
    """What the search will do, as lines."""
    places = [same[0] for same in choices(job.net).values()]
    size = math.prod(math.comb(len(c.labels), c.keep) if isinstance(c, MixedInput) else len(c.labels) for c in places)
    parameters = sum(p.numel() for p in job.net.parameters())
    height, width = data.image_shape
    cells = f"{extent.cells} cell{'s' if extent.cells > 1 else ''} {space.cells}"
    for_alphas = f"{extent.images:,} for alphas, " if job.method.learning == "alternate" else ""
    paths = f"{size:,}" if size < 10**9 else f"{size:.1e}"
    return [
        f"{settings.method} on {data.name}: {len(places)} choices, {paths} sub-graphs in {space.name}",
        f"super-net: {extent.channels} channels, {cells}, {parameters:,} parameters",
        f"images: {extent.images:,} for weights, {for_alphas}{len(data.val):,} validation, {len(data.test):,} test",
        f"        {data.channels} × {height} × {width} pixels, {data.num_classes} classes, {data.where}",
        *([f"        {data.resizing}"] if data.resizing else []),
        f"        {data.augmentation}",
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
    cost = count(space.network(genotype, **size), data.channels, data.image_shape)
    found = genotype.to_dict() | {"string": str(genotype), **cost._asdict()}
    if ranked:
        found["ranked"] = [{"genotype": str(one.genotype), "accuracy": one.accuracy} for one in ranked]
    write_json(out / "genotype.json", found)
