"""``msgdas check``."""

from __future__ import annotations

import json

import click
from rich.console import Console

from msgdas.data.check import check_folder, describe, to_dict
from msgdas.report.terminal import CountView

__all__ = ["check"]


@click.command()
@click.argument("data", metavar="DATA")
@click.option("--labels", metavar="FILE", help="CSV file with the labels of the images in the folder DATA")
@click.option("--group", help="what must stay in one part: folder, or a regular expression of the path")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def check(data: str, labels: str | None, group: str | None, as_json: bool) -> None:
    """Check images before a search, and propose one.

    DATA is a folder of images, a CSV file with their labels, a zip, tar or npz
    file, a folder of shards, or hf:NAME.
    """
    with CountView(Console(stderr=True), "reading images") as view:
        found = check_folder(data, labels=labels, group=group, on_file=view.count)
    click.echo(json.dumps(to_dict(found)) if as_json else "\n".join(describe(found)))
