"""``msgdas train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from msgdas.cli.options import Command, begun_settings, config_options, given_settings, print_yaml, settings_options
from msgdas.errors import InputError
from msgdas.jobs.config import begun
from msgdas.jobs.report import report
from msgdas.jobs.resolve import begun_mirror, find_genotype, refuse_other_data
from msgdas.jobs.settings import DATA_HELP, DataSettings, SearchSettings, TrainSettings
from msgdas.jobs.train import train as run_train
from msgdas.report.terminal import TrainView
from msgdas.runs import stop_on_signals

__all__ = ["train"]


@click.command(cls=Command)
@click.argument("source", metavar="RUN|GENOTYPE")
@settings_options(TrainSettings, data="the run's")
@click.option("--out", type=click.Path(path_type=Path), help="folder of the training  [default: RUN/train]")
@click.option("--resume", is_flag=True, help="continue the training in --out, with its own settings")
@config_options
@click.pass_context
def train(ctx: click.Context, /, source: str, out: Path | None, resume: bool, print_config: bool, **_: Any) -> None:
    """Train a found network from scratch and test it.

    Given RUN, the data options are the run's own unless given here. GENOTYPE
    is a JSON file or a text such as darts:DARTS_V2.
    """
    genotype = find_genotype(source)
    of_run = os.path.isdir(source)
    out = out or (Path(source) / "train" if of_run else None)
    if resume:
        out, settings = begun_settings(ctx, TrainSettings, out, "train")
    else:
        below = _data_options(source) if of_run else {}
        settings = given_settings(ctx, TrainSettings, below=below)
        if of_run and settings.data == below["data"]:
            # else searched images might be in the test part
            refuse_other_data(Path(source), settings.data, settings.labels)
    if print_config:
        print_yaml(settings)
        return
    if out is None:
        raise InputError("--out is missing: a genotype has no run folder of its own")
    if not settings.data:
        raise InputError(f"--data is missing: give {DATA_HELP}")
    with TrainView(Console(highlight=False)) as view:
        result = run_train(genotype, settings, out, resume=resume, view=view)
        with stop_on_signals():  # all is done: finish
            view.say(
                f"\ntest accuracy {100 * result['test_accuracy']:.2f} %, best epoch {result['best_epoch']} by "
                f"validation ({100 * result['val_accuracy']:.2f} %)"
            )
            if of_run and out == Path(source) / "train":
                report(Path(source))


def _data_options(run: str) -> dict[str, Any]:
    """What a training takes over from its search."""
    settings = begun(SearchSettings, run, "search")
    of_run = {name: getattr(settings, name) for name in DataSettings.model_fields}
    return of_run | {"mirror": begun_mirror(Path(run), settings.data or "")}
