"""The command line. Bad input is one line on standard error and exit code 2."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from msgdas import __doc__ as about
from msgdas import jobs
from msgdas.jobs import commands
from msgdas.compare.command import compare, find_reference, plan
from msgdas.compare.queue import QueueStopped
from msgdas.compare.specs import Spec, parse_methods, parse_seeds
from msgdas.bench.speed import CLOCKS
from msgdas.bench.command import run as run_speed
from msgdas.bench.setups import Method, Setting, default_methods
from msgdas.compare.tables import read_table
from msgdas.data.check import check_folder, describe
from msgdas.cost import count
from msgdas.errors import InputError
from msgdas.jobs.resolve import find_device, find_genotype, free_folder
from msgdas.fast.memory import keep_freed_memory
from msgdas.methods import GRADIENTS, METHODS
from msgdas.fast.native import use_native
from msgdas.search.precision import PRECISIONS
from msgdas.report.terminal import CountView, SearchView, TrainView
from msgdas.report import to_text
from msgdas.retrain.recipe import CLASS_WEIGHTS, RECIPES
from msgdas.retrain.trained import load
from msgdas.runs import Run
from msgdas.search.loop import Stopped
from msgdas.spaces import SPACES, find_space
from msgdas.spaces.darts import FORMS

__all__ = ["main"]

DATA_HELP = "digits, cifar10, cifar100, svhn, fashion-mnist, imagenet, or a folder of images"
EXIT_GROWN, EXIT_INPUT, EXIT_TERMINATED, EXIT_INTERRUPTED = 1, 2, 75, 130
Command = Callable[..., Any]


@click.group(help=about, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
def cli() -> None:
    pass


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


cells = click.option(
    "--cells", "--layers", "cells", type=click.IntRange(min=1), help="a stage or in all  [default: the space's]"
)
network = click.option("--network", type=click.Choice(FORMS), help="of space darts  [default: by the image size]")
native = click.option(
    "--native", type=bool, is_flag=False, flag_value=True, help="kernels compiled by cc: faster steps on a CPU"
)
common = _options(
    click.option(
        "--data-dir", type=click.Path(), help="official files of a data set by name  [default: ~/.cache/msgdas]"
    ),
    click.option("--download", is_flag=True, help="fetch the official files that are not there"),
    click.option("--image-size", type=int, help="side in pixels  [default: the images' own, at most 96, else 64]"),
    click.option("--on-bad-image", type=click.Choice(["skip", "stop"]), default="skip", show_default=True),
    click.option("--max-memory", type=click.FloatRange(0), help="GiB for images  [default: half of what is free]"),
    click.option(
        "--workers", type=click.IntRange(0), help="that read images from disk  [default: a CPU each, up to 8]"
    ),
    click.option(
        "--class-weights", type=click.Choice(CLASS_WEIGHTS), default="none", show_default=True, help="of the loss"
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, …"),
    click.option("--threads", type=click.IntRange(min=1), help="of the CPU  [default: all]"),
    native,
    click.option("--resume", is_flag=True, help="go on with the run in --out, with its own settings"),
)


@cli.command()
@click.option("--data", help=DATA_HELP)
@click.option("--space", default="nasbench201", show_default=True, help="see msgdas spaces")
@click.option("--method", default="msgdas", show_default=True, help="see msgdas methods")
@click.option("--k", type=int, help="number of exclusive sub-graphs  [default: 3]")
@click.option("--gradient", type=click.Choice(list(GRADIENTS)), help="of the alphas  [default: compare; k=1: probed]")
@click.option("--assignment", type=click.Choice(["rank", "shuffle"]), help="of picks to sub-graphs  [default: shuffle]")
@click.option(
    "--weight-assignment", type=click.Choice(["rank", "shuffle"]), help="of weight steps  [default: the same]"
)
@click.option("--normalise", type=click.Choice(["remaining", "picks", "all"]), help="of gates  [default: remaining]")
@click.option("--drop", type=click.FloatRange(0, 0.9), help="DropBlock-Identity's p at the start  [default: 0.5]")
@click.option("--drop-in-alpha-steps", type=bool, help="DropBlock-Identity there too  [default: msgdas true]")
@click.option("--guidance", type=float, help="weight of the super-net's teaching  [default: 0, off]")
@click.option("--temperature", type=float, help="of the super-net's teaching  [default: 1]")
@click.option("--cost-weight", type=float, help="of the expected multiply-adds in the loss of the alphas  [default: 0]")
@click.option("--alpha-lr", type=float, help="learning rate of the alphas  [default: the method's]")
@click.option("--weight-lr", type=float, help="learning rate of the weights at the start  [default: 0.05]")
@click.option("--prior", type=click.Path(), help="run folder of an earlier search, where the alphas begin")
@click.option("--trust", type=float, default=0.6, show_default=True, help="in the prior; the rest is uniform")
@click.option("--micro-batches", type=int, help="of each batch, one after another: less memory  [default: 1]")
@click.option(
    "--precision",
    type=click.Choice(list(PRECISIONS)),
    help="bfloat16, float16: less memory on a GPU  [default: float32]",
)
@click.option(
    "--recompute", type=bool, is_flag=False, flag_value=True, help="operations in backward: less memory, more time"
)
@click.option("--epochs", type=int, help="[default: 20, more for few images]")
@click.option("--warmup", type=int, help="epochs for weights alone  [default: 60 %]")
@click.option("--channels", type=int, help="of the super-net  [default: the space's]")
@cells
@click.option("--batch-size", type=int, default=64, show_default=True)
@click.option("--samples", type=int, help="rank as many draws on validation, keep the best  [default: the likeliest]")
@click.option("--images", type=int, help="in each half of the training part  [default: all]")
@click.option("--out", type=click.Path(path_type=Path), help="run folder  [default: a new one in runs/]")
@common
@click.pass_context
def search(ctx: click.Context, /, out: Path | None, resume: bool, **settings: Any) -> None:
    """Search a network for the images in DATA."""
    out, settings = _resumed(ctx, out, settings) if resume else (out, settings)
    if not settings["data"]:
        raise InputError(f"--data is missing: give {DATA_HELP}")
    out = out or free_folder(f"{Path(settings['data']).resolve().name}-{settings['method']}")
    settings["device"] = find_device(settings["device"])
    with SearchView(_console()) as view:
        genotype = jobs.search(settings, out, resume=resume, view=view)
        view.say(f"\nfound {genotype}\nnext: msgdas train {out}")


@cli.command()
@click.argument("source", metavar="RUN|GENOTYPE")
@click.option("--data", help=f"{DATA_HELP}  [default: the run's]")
@click.option("--recipe", type=click.Choice(list(RECIPES)), default="short", show_default=True, help="all that follows")
@click.option("--epochs", type=int, help="[default: short 60, darts 600]")
@click.option("--batch-size", type=int, help="[default: short 64, darts 96]")
@click.option("--lr", type=float, help="peak learning rate  [default: short 0.1, darts 0.025]")
@click.option("--weight-decay", type=float, help="[default: short 5e-4, darts 3e-4]")
@click.option("--label-smoothing", type=float, help="[default: short 0.1, darts 0]")
@click.option("--cutout", type=float, help="side, as a fraction of the image's  [default: short 0, darts 0.5]")
@click.option("--auxiliary", type=float, help="weight of the auxiliary head  [default: short 0, darts 0.4]")
@click.option("--drop-path", type=float, help="probability at the end  [default: short 0, darts 0.2]")
@click.option("--channels", type=int, help="of the network  [default: the space's]")
@cells
@network
@click.option("--compile", is_flag=True, help="by torch.compile: minutes first, then, on some machines, faster steps")
@click.option("--out", type=click.Path(path_type=Path), help="[default: RUN/train]")
@common
@click.pass_context
def train(ctx: click.Context, /, source: str, out: Path | None, resume: bool, **settings: Any) -> None:
    """Train the found network from scratch and test it."""
    genotype = find_genotype(source)
    found_in_run = os.path.isdir(source)
    out = out or (Path(source) / "train" if found_in_run else None)
    if out is None:
        raise InputError("--out is missing: a genotype has no run folder of its own")
    if resume:
        out, settings = _resumed(ctx, out, settings)
        settings.pop("genotype", None)
    elif found_in_run:
        of_search = Run.open(source, lock=False).config["settings"]
        names = ("data", "class_weights", *commands.DATA_OPTIONS)
        settings |= {name: of_search[name] for name in names if not _given(ctx, name)}
    if not settings["data"]:
        raise InputError(f"--data is missing: give {DATA_HELP}")
    settings["device"] = find_device(settings["device"])
    with TrainView(_console()) as view:
        result = jobs.train(genotype, settings, out, resume=resume, view=view)
        view.say(
            f"\ntest accuracy {100 * result['test_accuracy']:.2f} %, best epoch {result['best_epoch']} by validation "
            f"({100 * result['val_accuracy']:.2f} %)"
        )
    if found_in_run and out == Path(source) / "train":
        jobs.report(Path(source))


@cli.command()
@click.argument("source", metavar="RUN|FILE|TEXT")
@click.option("--channels", type=click.IntRange(min=1), help="of the network  [default: the space's]")
@cells
@network
@click.option("--classes", type=click.IntRange(min=1), help="[default: the run's, else 10]")
@click.option("--in-channels", type=click.IntRange(min=1), help="[default: the run's, else 3]")
@click.option("--image-size", type=click.IntRange(min=1), help="[default: the run's, else 32]")
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def show(source: str, as_json: bool, network: str | None, **sizes: int | None) -> None:
    """Draw a cell; say what its network costs. TEXT is such as 'darts:DARTS_V2'."""
    genotype = find_genotype(source)
    space = find_space(genotype.space)
    size: dict[str, Any] = {"classes": 10, "in_channels": 3, "image_size": 32}
    if os.path.isdir(source):
        size |= {name: Run.open(source, lock=False).config["dataset"][name] for name in size}
    given = {name: value for name, value in sizes.items() if value is not None}
    size = size | space.network_size(given.get("image_size", size["image_size"]), genotype) | given
    size |= jobs.network_form(space, network)
    cost = count(space.network(genotype, **size), size["in_channels"], size["image_size"])
    if as_json:
        click.echo(json.dumps({"space": genotype.space, "string": str(genotype), **cost._asdict(), **size}))
        return
    console = _console()
    for graph in space.graphs(genotype):
        console.print(to_text(graph, width=min(80, console.width)))
    click.echo(genotype)
    click.echo(f"{cost.params:,} parameters, {cost.macs / 1e6:,.2f} M multiply-adds an image, with")
    click.echo(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in size.items()))


@cli.command()
@click.argument("data", metavar="DATA")
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def check(data: str, as_json: bool) -> None:
    """Look through a folder of images before the first search; propose a command."""
    with CountView(Console(stderr=True), "reading images") as view:
        found = check_folder(data, on_file=view.count)
    click.echo(json.dumps(found.to_dict()) if as_json else "\n".join(describe(found)))


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Write RUN/report.html, one offline page."""
    click.echo(jobs.report(run))


@cli.command()
@click.argument("run", metavar="RUN")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
def predict(run: str, images: Sequence[str]) -> None:
    """Class and probability of images, by the trained network of RUN."""
    trained = load(run)
    for image in images:
        name, probability = next(iter(trained.predict(image).items()))
        click.echo(f"{image}\t{name}\t{probability:.4f}")


@click.command("speed")
@click.option("--space", default="nasbench201", show_default=True, help="see msgdas spaces")
@click.option("--channels", type=click.IntRange(min=1), help="of the super-net  [default: the space's]")
@cells
@click.option("--image-size", type=click.IntRange(min=1), default=32, show_default=True, help="side in pixels")
@click.option("--batch-size", type=click.IntRange(min=2), default=64, show_default=True)
@click.option(
    "--methods",
    "texts",
    help="METHOD[:option=value…],…  [default: msgdas with every k, gdas, proxylessnas, darts, darts-2nd]",
)
@click.option("--rounds", type=click.IntRange(min=1), default=8, show_default=True, help="in which all are timed")
@click.option("--threads", type=click.IntRange(min=1), help="of the CPU  [default: all]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, …")
@click.option(
    "--clock",
    type=click.Choice(list(CLOCKS)),
    default="wall",
    show_default=True,
    help="cpu: of the process, on a CPU with other work",
)
@native
@click.option("--memory/--no-memory", default=True, show_default=True, help="a process per method")
@click.option("--out", type=click.Path(path_type=Path), help="CSV with quartiles, versions and hardware")
@click.option("--compare", "before", type=click.Path(path_type=Path), help="earlier CSV; exit code 1 if a ratio grew")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def speed(
    space: str, channels: int | None, cells: int | None, texts: str | None, rounds: int, clock: str, memory: bool,
    out: Path | None, before: Path | None, device: str, threads: int | None, native: bool | None, **sizes: int,
) -> int:  # fmt: skip
    """What a search step costs in time and memory, as ratios.

    To training steps of the plain networks of the very sub-graphs that it runs (K of them for K sub-graphs), on random
    images, interleaved in one process.
    """
    size = find_space(space).search_size
    size = {"channels": channels or size["channels"], "cells": cells or size["cells"]}
    threads = threads or torch.get_num_threads()
    setting = Setting(space, **size, device=find_device(device), threads=threads, native=bool(native), **sizes)
    torch.set_num_threads(setting.threads)
    use_native(setting.native)
    methods = list(map(_measured, parse_methods(texts))) if texts else default_methods(setting)
    as_before = run_speed(
        setting, methods, rounds=rounds, clock=clock, with_memory=memory, out=out, before=before, console=_console()
    )
    return 0 if as_before else EXIT_GROWN


def _measured(spec: Spec) -> Method:
    """What a text of ``--methods`` means."""
    meant = search.make_context("search", spec.arguments()).params
    for name, _ in spec.options:
        if name not in commands.METHOD_OPTIONS + commands.SEARCH_OPTIONS:
            raise InputError(f"--methods {spec.text!r}: {name} is no matter of a step: leave it out")
    return Method(spec.text, spec.method, {name: meant[name] for name, _ in spec.options})


class _Bench(click.Command):
    """``bench SPACE``, and ``bench speed``, which has options of its own."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == [speed.name]:
            return speed.make_context(f"{info_name} {speed.name}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@cli.command(cls=_Bench)
@click.argument("space", metavar="SPACE")
@click.option("--methods", default="msgdas,gdas,darts,random", show_default=True, help="METHOD[:option=value…],…")
@click.option("--seeds", default="0-2", show_default=True, help="3, 0-3 or 0,2,5")
@click.option("--data", help=DATA_HELP)
@click.option("--out", type=click.Path(path_type=Path), help="of all run folders and what they say together")
@click.option("--table", type=click.Path(path_type=Path), help="what each genotype is worth  [default: none]")
@click.option("--column", help="of the table's accuracies; of NATS-Bench files, the data set")
@click.option("--reference", metavar="GENOTYPE", help="to compare with")
@click.option("--jobs", "count", type=click.IntRange(min=1), default=1, show_default=True, help="searches at a time")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="of the CPU, for a search")
@click.option("--epochs", type=int, help="this and the rest: see msgdas search")
@click.option("--warmup", type=int)
@click.option("--images", type=int)
@click.option("--channels", type=int)
@click.option("--cells", "--layers", "cells", type=int)
@click.option("--batch-size", type=int)
@click.option("--samples", type=int)
@click.option("--image-size", type=int)
@click.option("--data-dir", type=click.Path())
@click.option("--device")
@native
def bench(
    space: str, methods: str, seeds: str, out: Path | None, table: Path | None, column: str | None,
    reference: str | None, count: int, **settings: Any,
) -> None:  # fmt: skip
    """Compare methods over seeds; bench speed: what a step costs.

    In SPACE; the same command goes on where it was stopped.

    \b
    msgdas bench SPACE …  what methods find, over seeds: the options below
    msgdas bench speed …  time and memory of a search step next to plain training:
                          see msgdas bench speed --help
    """
    find_space(space)
    if not settings["data"]:
        raise InputError(f"--data is missing: give {DATA_HELP}")
    if out is None:
        raise InputError("--out is missing: give a folder for the searches and the comparison")
    specs, numbers = parse_methods(methods), parse_seeds(seeds)
    if os.path.isdir(settings["data"]):
        settings["data"] = os.path.abspath(settings["data"])
    common = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items() if value is not None]
    tasks = plan(out, specs, numbers, [f"--space={space}", *common], lambda a: search.make_context("search", a).params)
    known = read_table(table, space, column) if table else None
    compared_with = find_reference(reference, space, known)
    with CountView(_console(), "searches") as view:
        compare(out, space, tasks, view=view, jobs=count, table=known, reference=compared_with)


@cli.command()
def spaces() -> None:
    """List the search spaces."""
    for name, space in SPACES.items():
        click.echo(f"{name:<14}{space.about}")


@cli.command()
def methods() -> None:
    """List the search methods."""
    for name, method in METHODS.items():
        click.echo(f"{name:<14}{(method.__doc__ or '').partition(chr(10))[0]}")


def _resumed(ctx: click.Context, out: Path | None, settings: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The settings of the run in ``out``; one given again must be the same."""
    if out is None:
        raise InputError("--resume needs --out: the run to go on with")
    of_run: dict[str, Any] = Run.open(out, lock=False).config["settings"]
    for name in filter(partial(_given, ctx), settings):
        value = settings[name]
        same_folder = name == "data" and Path(value).resolve() == Path(of_run[name]).resolve()
        if value != of_run.get(name) and not same_folder:
            raise InputError(
                f"--{name.replace('_', '-')} {value} is not the run's {of_run.get(name)}: leave it out, or start anew"
            )
    return out, dict(of_run)


def _given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


def _console() -> Console:
    return Console(highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``msgdas``. Exit codes: 0; 1 a ratio has grown; 2 bad input; 75 and 130 stopped by SIGTERM and
    Ctrl-C, saved."""
    keep_freed_memory()
    warnings.showwarning = lambda message, *_, **__: click.echo(f"msgdas: warning: {message}", err=True)
    try:
        code = cli.main(args=arguments, prog_name="msgdas", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = EXIT_INPUT
    except (click.ClickException, InputError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"msgdas: error: {message}", err=True)
        code = EXIT_INPUT
    except Stopped as stopped:
        again = "the same command" if isinstance(stopped, QueueStopped) else "the same command with --resume"
        click.echo(f"msgdas: stopped and saved; {again} goes on", err=True)
        code = EXIT_TERMINATED if stopped.signal == signal.SIGTERM else EXIT_INTERRUPTED
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)
