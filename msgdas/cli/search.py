"""``msgdas search``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from msgdas.cli.options import Command, begun_settings, config_options, given_settings, print_yaml, settings_options
from msgdas.errors import InputError
from msgdas.jobs.resolve import free_folder
from msgdas.jobs.search import search as run_search
from msgdas.jobs.settings import DATA_HELP, SearchSettings
from msgdas.report.terminal import SearchView
from msgdas.runs import Stopped

__all__ = ["search", "search_settings"]


@click.command(cls=Command)
@settings_options(SearchSettings)
@click.option("--out", type=click.Path(path_type=Path), help="run folder  [default: a new one in runs/]")
@click.option("--resume", is_flag=True, help="continue the run in --out, with its own settings")
@config_options
@click.pass_context
def search(ctx: click.Context, /, out: Path | None, resume: bool, print_config: bool, **_: Any) -> None:
    """Search for a network that fits the images in --data.

    Leaves a run folder. A search that was stopped goes on with
    msgdas search --out RUN --resume.
    """
    if resume:
        out, settings = begun_settings(ctx, SearchSettings, out, "search")
    else:
        settings = given_settings(ctx, SearchSettings)
    if print_config:
        print_yaml(settings)
        return
    if not settings.data:
        raise InputError(f"--data is missing: give {DATA_HELP}")
    folder = out or free_folder(f"{Path(settings.data).resolve().name}-{settings.method}")
    with SearchView(Console(highlight=False)) as view:
        try:
            run_search(settings, folder, resume=resume, view=view)
        except Stopped as stopped:
            if stopped.again and out is None:  # the same command would begin another run
                stopped.again = shlex.join(["msgdas", "search", "--out", str(folder), "--resume"])
            raise


def search_settings(arguments: list[str]) -> SearchSettings:
    """What arguments of ``msgdas search`` mean."""
    return given_settings(search.make_context("search", list(arguments)), SearchSettings)
