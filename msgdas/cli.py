"""The command line. Bad input is one line on standard error and exit code 2."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from msgdas import __doc__ as about
from msgdas import jobs
from msgdas.cost import count
from msgdas.errors import InputError
from msgdas.methods import GRADIENTS, METHODS
from msgdas.progress import SearchView, TrainView
from msgdas.report import to_text
from msgdas.retrain.train import Recipe
from msgdas.retrain.trained import load
from msgdas.runs import Run
from msgdas.search.loop import Stopped
from msgdas.spaces import SPACES, find_space

__all__ = ["main"]

EXIT_INPUT, EXIT_TERMINATED, EXIT_INTERRUPTED = 2, 75, 130
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


common = _options(
    click.option("--image-size", type=int, help="side in pixels  [default: the images' own, at most 96, else 64]"),
    click.option("--batch-size", type=int, default=64, show_default=True),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, …"),
    click.option("--threads", type=click.IntRange(min=1), help="of the CPU  [default: all]"),
    click.option("--resume", is_flag=True, help="go on with the run in --out, with its own settings"),
)


@cli.command()
@click.option("--data", help="digits, or a folder of images")
@click.option("--space", default="nasbench201", show_default=True, help="see msgdas spaces")
@click.option("--method", default="msgdas", show_default=True, help="see msgdas methods")
@click.option("--k", type=int, help="number of exclusive sub-graphs  [default: 3]")
@click.option("--gradient", type=click.Choice(list(GRADIENTS)), help="of the alphas  [default: compare; k=1: probed]")
@click.option("--assignment", type=click.Choice(["rank", "shuffle"]), help="of picks to sub-graphs  [default: shuffle]")
@click.option("--normalise", type=click.Choice(["remaining", "picks", "all"]), help="of gates  [default: remaining]")
@click.option("--drop", type=click.FloatRange(0, 0.9), help="DropBlock-Identity's p at the start  [default: 0.5]")
@click.option("--guidance", type=float, help="weight of the super-net's teaching  [default: 0, off]")
@click.option("--temperature", type=float, help="of the super-net's teaching  [default: 1]")
@click.option("--alpha-lr", type=float, help="learning rate of the alphas  [default: the method's]")
@click.option("--epochs", type=int, help="[default: 20, more for few images]")
@click.option("--warmup", type=int, help="epochs for weights alone  [default: 60 %]")
@click.option("--channels", type=int, help="of the super-net  [default: the space's]")
@click.option("--cells", type=int, help="a stage of the super-net  [default: the space's]")
@click.option("--images", type=int, help="in each half of the training part  [default: all]")
@click.option("--out", type=click.Path(path_type=Path), help="run folder  [default: a new one in runs/]")
@common
@click.pass_context
def search(ctx: click.Context, /, out: Path | None, resume: bool, **settings: Any) -> None:
    """Search a network for the images in DATA."""
    out, settings = _resumed(ctx, out, settings) if resume else (out, settings)
    if not settings["data"]:
        raise InputError("--data is missing: give 'digits' or a folder of images")
    out = out or jobs.free_folder(f"{Path(settings['data']).resolve().name}-{settings['method']}")
    settings["device"] = jobs.find_device(settings["device"])
    with SearchView(_console()) as view:
        genotype = jobs.search(settings, out, resume=resume, view=view)
        view.say(f"\nfound {genotype}\nnext: msgdas train {out}")


@cli.command()
@click.argument("source", metavar="RUN|GENOTYPE")
@click.option("--data", help="digits, or a folder of images  [default: the run's]")
@click.option("--epochs", type=int, default=Recipe.epochs, show_default=True)
@click.option("--lr", type=float, default=Recipe.lr, show_default=True, help="peak learning rate")
@click.option("--weight-decay", type=float, default=Recipe.weight_decay, show_default=True)
@click.option("--label-smoothing", type=click.FloatRange(0, 1), default=Recipe.label_smoothing, show_default=True)
@click.option("--channels", type=int, help="of the network  [default: the space's]")
@click.option("--cells", type=int, help="a stage of the network  [default: the space's]")
@click.option("--out", type=click.Path(path_type=Path), help="[default: RUN/train]")
@common
@click.pass_context
def train(ctx: click.Context, /, source: str, out: Path | None, resume: bool, **settings: Any) -> None:
    """Train the found network from scratch and test it."""
    genotype = jobs.find_genotype(source)
    found_in_run = Path(source).is_dir()
    out = out or (Path(source) / "train" if found_in_run else None)
    if out is None:
        raise InputError("--out is missing: a genotype has no run folder of its own")
    if resume:
        out, settings = _resumed(ctx, out, settings)
        settings.pop("genotype", None)
    elif found_in_run:
        of_search = Run.open(source, lock=False).config["settings"]
        settings["data"] = settings["data"] or of_search["data"]
        settings["image_size"] = settings["image_size"] or of_search["image_size"]
    if not settings["data"]:
        raise InputError("--data is missing: give 'digits' or a folder of images")
    settings["device"] = jobs.find_device(settings["device"])
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
@click.option("--cells", type=click.IntRange(min=1), help="a stage of the network  [default: the space's]")
@click.option("--classes", type=click.IntRange(min=1), help="[default: the run's, else 10]")
@click.option("--in-channels", type=click.IntRange(min=1), help="[default: the run's, else 3]")
@click.option("--image-size", type=click.IntRange(min=1), help="[default: the run's, else 32]")
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def show(source: str, as_json: bool, **sizes: int | None) -> None:
    """Draw a cell; say what its network costs. TEXT is such as 'nasbench201:|op~0|+…'."""
    genotype = jobs.find_genotype(source)
    space = find_space(genotype.space)
    seen = Run.open(source, lock=False).config.get("dataset", {}) if Path(source).is_dir() else {}
    default = {"classes": 10, "in_channels": 3, "image_size": 32} | dict(space.network_size)
    default |= {name: seen[name] for name in ("classes", "in_channels", "image_size") if name in seen}
    if isinstance(default["classes"], list):
        default["classes"] = len(default["classes"])
    size = default | {name: value for name, value in sizes.items() if value is not None}
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
@click.argument("run", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Write RUN/report.html, one offline page."""
    click.echo(jobs.report(run))


@cli.command()
@click.argument("run", metavar="RUN")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
def predict(run: str, images: Sequence[str]) -> None:
    """Class and probability of images, by the trained network of RUN."""
    network = load(run)
    for image in images:
        name, probability = next(iter(network.predict(image).items()))
        click.echo(f"{image}\t{name}\t{probability:.4f}")


@cli.command()
def spaces() -> None:
    """List the search spaces."""
    for name, space in SPACES.items():
        click.echo(f"{name:<14}{space.about}")


@cli.command()
def methods() -> None:
    """List the search methods."""
    for name, method in METHODS.items():
        click.echo(f"{name:<10}{(method.__doc__ or '').partition(chr(10))[0]}")


def _resumed(ctx: click.Context, out: Path | None, settings: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The settings of the run in ``out``; one given again must be the same."""
    if out is None:
        raise InputError("--resume needs --out: the run to go on with")
    of_run: dict[str, Any] = Run.open(out, lock=False).config["settings"]
    given = [n for n in settings if ctx.get_parameter_source(n) == click.core.ParameterSource.COMMANDLINE]
    for name in given:
        value = settings[name]
        same_folder = name == "data" and Path(value).resolve() == Path(of_run[name]).resolve()
        if value != of_run.get(name) and not same_folder:
            raise InputError(
                f"--{name.replace('_', '-')} {value} is not the run's {of_run.get(name)}: leave it out, or start anew"
            )
    return out, dict(of_run)


def _console() -> Console:
    return Console(highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``msgdas``. Exit codes: 0; 2 bad input; 75 and 130 stopped by SIGTERM and Ctrl-C, saved."""
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
        click.echo("msgdas: stopped and saved; the same command with --resume goes on", err=True)
        code = EXIT_TERMINATED if stopped.signal == signal.SIGTERM else EXIT_INTERRUPTED
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)
