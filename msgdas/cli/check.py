"""``msgdas check``."""

from __future__ import annotations

import json

import click
from rich.console import Console

from msgdas.data.check import check_folder, describe
from msgdas.report.terminal import CountView

__all__ = ["check"]


@click.command()
@click.argument("data", metavar="DATA")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def check(data: str, as_json: bool) -> None:
    """Check a folder of images and propose a search command."""
    with CountView(Console(stderr=True), "reading images") as view:
        found = check_folder(data, on_file=view.count)
    click.echo(json.dumps(found.to_dict()) if as_json else "\n".join(describe(found)))
