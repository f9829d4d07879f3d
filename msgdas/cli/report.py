"""``msgdas report``."""

from __future__ import annotations

from pathlib import Path

import click

from msgdas.jobs.report import report as write_report

__all__ = ["report"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Write RUN/report.html, a page that works offline."""
    click.echo(write_report(run))
