"""``msgdas bench``: ``bench SPACE`` compares methods over seeds, ``bench speed`` measures a search step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from msgdas.bench.command import run as run_speed
from msgdas.bench.setups import CLASSES, Contender, Setting, default_contenders
from msgdas.bench.speed import CLOCKS
from msgdas.cli.options import Command, config_options, given_settings, print_yaml, settings_options
from msgdas.cli.search import search_settings
from msgdas.compare.command import compare, find_reference, make_tasks
from msgdas.compare.queue import Task
from msgdas.compare.specs import Spec, parse_methods, parse_seeds
from msgdas.compare.tables import read_table
from msgdas.data.form import parse_size
from msgdas.errors import InputError
from msgdas.fast import use_native
from msgdas.jobs.memory import refuse_too_large
from msgdas.jobs.option import Group, dashed, options
from msgdas.jobs.resolve import find_device
from msgdas.jobs.search import check
from msgdas.jobs.settings import DATA_HELP, CompareSettings, SearchSettings, method_options
from msgdas.report.terminal import CountView
from msgdas.runs import refuse_irregular
from msgdas.runs.folder import CONFIG
from msgdas.search import Method as SearchMethod
from msgdas.spaces import find_space

__all__ = ["bench", "speed"]

EXIT_GROWN = 1
SIZES = ("space", "channels", "cells", "image_size", "batch_size", "seed", "device", "threads", "native")


@click.command("speed", cls=Command)
@settings_options(SearchSettings, only=SIZES, image_size="32")
@click.option(
    "--methods",
    "texts",
    help="METHOD[:option=value…],…  [default: msgdas with every k, gdas, proxylessnas, darts, darts-2nd]",
)
@click.option(
    "--rounds", type=click.IntRange(1, 1_000_000), metavar="INTEGER", default=8, show_default=True,
    help="rounds; each measures every method once",
)  # fmt: skip
@click.option(
    "--clock", type=click.Choice(list(CLOCKS)), default="wall", show_default=True,
    help="cpu: CPU time of the process, for a machine that is busy",
)  # fmt: skip
@click.option("--memory/--no-memory", default=True, show_default=True, help="measure memory, in a process per method")
@click.option("--out", type=click.Path(path_type=Path), help="CSV file with quartiles, versions and hardware")
@click.option(
    "--compare", "before", type=click.Path(path_type=Path),
    help="CSV file of an earlier run; exit code 1 if a ratio grew",
)  # fmt: skip
@click.pass_context
def speed(
    ctx: click.Context, /, texts: str | None, rounds: int, clock: str, memory: bool, out: Path | None,
    before: Path | None, **_: Any,
) -> int:  # fmt: skip
    """Measure time and memory of a search step.

    As ratios to plain training steps of the same sub-graphs (K of them for K
    sub-graphs), on random images, interleaved in one process.
    """
    if out is not None:
        refuse_irregular(out)  # now, not after the measurement
    given = given_settings(ctx, SearchSettings)
    size = find_space(given.space).search_size
    if given.batch_size < 2:
        raise InputError(f"--batch-size {given.batch_size}: use 2 or more")
    height, width = parse_size(given.image_size or 32)
    if height != width:
        raise InputError(f"--image-size {given.image_size}: steps are measured on squares; give one side")
    setting = Setting(
        given.space,
        channels=given.channels or size["channels"],
        cells=given.cells or size["cells"],
        image_size=height,
        batch_size=given.batch_size,
        device=find_device(given.device),
        threads=given.threads or torch.get_num_threads(),
        seed=given.seed,
        native=given.native,
    )
    space = find_space(setting.space)
    image = {"in_channels": 3, "image_size": setting.image_size}
    refuse_too_large(
        lambda cells: space.supernet(channels=setting.channels, cells=cells, classes=CLASSES, **image),
        channels=setting.channels,
        cells=setting.cells,
        batch=setting.batch_size,
        in_channels=3,
        image_shape=(height, width),
        device=setting.device,
    )
    torch.set_num_threads(setting.threads)
    use_native(setting.native)
    specs = parse_methods(texts, method_options) if texts else []
    contenders = list(map(_measured, specs)) or default_contenders(setting)
    console = Console(highlight=False)
    as_before = run_speed(
        setting, contenders, rounds=rounds, clock=clock, with_memory=memory, out=out, before=before, console=console
    )
    return 0 if as_before else EXIT_GROWN


def _measured(spec: Spec) -> Contender:
    """What a text of ``--methods`` means for a step."""
    meant = search_settings(spec.arguments())
    for name, _ in spec.options:
        if name not in _of_a_step():
            raise InputError(f"--methods {spec.text!r}: {dashed(name)} does not change a step: leave it out")
    return Contender(spec.text, spec.method, {name: getattr(meant, name) for name, _ in spec.options})


def _of_a_step() -> set[str]:
    """The options that change a step: those of some methods, of the execution, and numbers that a `Method` has."""
    of_method = {f.name for f in fields(SearchMethod)}
    return {
        one.name
        for one in options(SearchSettings)
        if one.group in (Group.METHOD, Group.EXECUTION)
        or (one.group is Group.EVERY_METHOD and one.name in of_method and one.type is not str)
    }


class _Bench(Command):
    """``bench SPACE``, and ``bench speed``, which has options of its own."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == [speed.name]:
            return speed.make_context(f"{info_name} {speed.name}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=_Bench)
@click.argument("space", metavar="SPACE", required=False)
@settings_options(CompareSettings, leave_out=("space",))
@click.option("--out", type=click.Path(path_type=Path), help="folder for the searches and the comparison")
@config_options
@click.pass_context
def bench(ctx: click.Context, /, out: Path | None, print_config: bool, **_: Any) -> None:
    """Compare methods over seeds; bench speed: time and memory.

    The same command goes on where it was stopped.

    \b
    msgdas bench SPACE …  compare what methods find, over seeds; options below
    msgdas bench speed …  measure a search step next to plain training:
                          see msgdas bench speed --help
    """
    settings = given_settings(ctx, CompareSettings)
    if print_config:
        print_yaml(settings)
        return
    if not settings.space:
        raise InputError("SPACE is missing: see msgdas spaces")
    find_space(settings.space)
    if not settings.data:
        raise InputError(f"--data is missing: give {DATA_HELP}")
    if out is None:
        raise InputError("--out is missing: give a folder for the searches and the comparison")
    specs, seeds = parse_methods(settings.methods, method_options), parse_seeds(settings.seeds)
    tasks = make_tasks(out, specs, seeds, _shared_arguments(settings), lambda a: search_settings(a).model_dump())
    table = read_table(settings.table, settings.space, settings.column) if settings.table else None
    reference = find_reference(settings.reference, settings.space, table)
    _refuse_if_none_can_run(tasks)
    with CountView(Console(highlight=False), "searches") as view:
        compare(out, settings.space, tasks, view=view, jobs=settings.jobs, table=table, reference=reference)


def _refuse_if_none_can_run(tasks: Sequence[Task]) -> None:
    """Raise, before anything is written, if no method can be searched with. If some can, the rest is told at the end.

    Raises:
        InputError: what is wrong with the first.
    """
    if any(os.path.exists(task.folder / CONFIG) for task in tasks):
        return
    first, *others = {task.spec: task for task in tasks}.values()
    reason = _reason(first)
    if reason and all(map(_reason, others)):
        raise InputError(reason)


def _reason(task: Task) -> str:
    """Why the search of a task is refused; empty if it is not."""
    try:
        check(search_settings(list(task.arguments)))
    except InputError as error:
        return str(error)
    return ""


def _shared_arguments(settings: CompareSettings) -> list[str]:
    """What all searches are told: the options that a comparison and a search both have."""
    shared = {
        name: getattr(settings, name) for name in CompareSettings.model_fields if name in SearchSettings.model_fields
    }
    if os.path.isdir(settings.data or ""):
        shared["data"] = os.path.abspath(str(settings.data))
    return [f"--{dashed(name)}={value}" for name, value in shared.items() if value is not None]
