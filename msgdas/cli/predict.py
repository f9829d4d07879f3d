"""``msgdas predict``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from msgdas.errors import InputError, one_line
from msgdas.retrain.trained import TrainedNetwork, load

__all__ = ["predict"]

EXIT_UNREADABLE = 2


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
def predict(run: str, images: Sequence[str]) -> int:
    """Classify images with the trained network of RUN.

    Prints one line per image: file, most probable class, its probability. An
    image that cannot be read is a line on standard error, and exit code 2 after
    the others.
    """
    trained = load(run)
    told = [_told(trained, image) for image in images]
    return 0 if all(told) else EXIT_UNREADABLE


def _told(trained: TrainedNetwork, image: str) -> bool:
    """Print the line of one image. Returns whether it could be read."""
    try:
        name, probability = next(iter(trained.predict(image).items()))
    except InputError as error:
        click.echo(f"msgdas: error: {error}", err=True)
        return False
    click.echo(f"{one_line(image)}\t{one_line(name)}\t{probability:.4f}")
    return True
