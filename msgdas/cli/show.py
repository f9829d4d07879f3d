"""``msgdas show``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from msgdas.cli.options import settings_options
from msgdas.cost import count
from msgdas.data.form import parse_size
from msgdas.errors import InputError, shown
from msgdas.jobs.resolve import begun_form, find_genotype, network_form
from msgdas.jobs.settings import TrainSettings
from msgdas.report import to_text
from msgdas.runs import Run
from msgdas.spaces import find_space

__all__ = ["show"]

SIZE = click.IntRange(1, 1_000_000)


@click.command()
@click.argument("source", metavar="RUN|FILE|TEXT")
@settings_options(TrainSettings, only=("channels", "cells", "network"))
@click.option("--classes", type=SIZE, metavar="INTEGER", help="classes  [default: the run's, else 10]")
@click.option("--in-channels", type=SIZE, metavar="INTEGER", help="channels of an image  [default: the run's, else 3]")
@click.option("--image-size", type=SIZE, metavar="INTEGER", help="side in pixels  [default: the run's, else 32]")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def show(source: str, as_json: bool, network: str | None, **sizes: int | None) -> None:
    """Draw a cell and count the parameters of its network.

    TEXT is a genotype such as 'darts:DARTS_V2'.
    """
    TrainSettings(channels=sizes["channels"], cells=sizes["cells"])
    parse_size(sizes["image_size"] or 32)
    genotype = find_genotype(source)
    space = find_space(genotype.space)
    size: dict[str, Any] = {"classes": 10, "in_channels": 3, "image_size": 32}
    form = None
    if os.path.isdir(source):
        size |= _of_run(Path(source), size)
        form = None if sizes["image_size"] else begun_form(Path(source))
    given = {name: value for name, value in sizes.items() if value is not None}
    size = size | space.network_size(given.get("image_size", size["image_size"]), genotype) | given
    size |= network_form(space, network)
    with torch.device("meta"):  # takes no memory
        shape = (form.height, form.width) if form else size["image_size"]
        cost = count(space.network(genotype, **size), size["in_channels"], shape)
    if as_json:
        click.echo(json.dumps({"space": genotype.space, "string": str(genotype), **cost._asdict(), **size}))
        return
    console = Console(highlight=False)
    for graph in space.graphs(genotype):
        console.print(to_text(graph, width=min(80, console.width)))
    click.echo(genotype)
    click.echo(f"{cost.params:,} parameters, {cost.macs / 1e6:,.2f} M multiply-adds per image, with")
    click.echo(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in size.items()))


def _of_run(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Sizes of the data that a run saw."""
    seen = Run.open(folder, lock=False).section("dataset")
    for name in names:
        if type(seen.get(name)) is not int or not 1 <= seen[name] <= SIZE.max:
            raise InputError(f"run '{folder}' has dataset.{name} {shown(seen.get(name))} in config.json: it is damaged")
    return {name: seen[name] for name in names}
