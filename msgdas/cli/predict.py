"""``msgdas predict``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from msgdas.retrain.trained import load

__all__ = ["predict"]


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
def predict(run: str, images: Sequence[str]) -> None:
    """Classify images with the trained network of RUN.

    Prints one line per image: file, most probable class, its probability.
    """
    trained = load(run)
    for image in images:
        name, probability = next(iter(trained.predict(image).items()))
        click.echo(f"{image}\t{name}\t{probability:.4f}")
