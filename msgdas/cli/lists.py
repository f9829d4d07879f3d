"""``msgdas spaces`` and ``msgdas methods``."""

from __future__ import annotations

import click

from msgdas.methods import METHODS
from msgdas.spaces import SPACES

__all__ = ["methods", "spaces"]


@click.command()
def spaces() -> None:
    """List the search spaces."""
    for name, space in SPACES.items():
        click.echo(f"{name:<14}{space.about}")


@click.command()
def methods() -> None:
    """List the search methods."""
    for name, method in METHODS.items():
        click.echo(f"{name:<14}{(method.__doc__ or '').partition(chr(10))[0]}")
