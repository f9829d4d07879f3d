"""Refuse what cannot fit in memory before it is tried, where that can be told cheaply."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import humanize
import psutil
import torch
from torch import nn

from msgdas.errors import InputError

__all__ = ["parameters", "refuse_too_large"]

SURELY_FITS = 100**2 * 20  # channels² · cells
FEW = 6  # cells, a multiple of the three thirds of every space, in which its parts are equal
COPIES = 3  # weights, gradients, momentum
BYTES = 4  # of a float32


def refuse_too_large(
    build: Callable[[int], nn.Module], *, channels: int, cells: int, batch: int, in_channels: int,
    image_shape: tuple[int, int], device: str,
) -> None:  # fmt: skip
    """Raise if the weights and a batch of images alone need more than all memory. Feature maps are not counted.

    Args:
        build: cells → the network, of ``channels`` channels.
        batch: images that are computed at a time.

    Raises:
        InputError: they do.
    """
    height, width = image_shape
    need = batch * in_channels * height * width * BYTES
    if channels**2 * cells > SURELY_FITS:
        need += parameters(build, cells) * COPIES * BYTES
    there = _memory(device)
    if need > there:
        needed, total = (humanize.naturalsize(n, binary=True) for n in (need, there))
        raise InputError(
            f"channels={channels}, cells={cells} and batches of {batch} images of {height} × {width} pixels "
            f"need {needed} or more, and {device} has {total} of memory: make them smaller"
        )


def parameters(build: Callable[[int], nn.Module], cells: int) -> int:
    """Parameters of a network; of one with many cells from two with few, since each third has equal cells."""
    if cells > 2 * FEW:
        with suppress(InputError):  # a space in which the genotype says how many cells there are
            few, more = _count(build, FEW), _count(build, 2 * FEW)
            return few + (more - few) * (cells - FEW) // FEW
    return _count(build, cells)


def _count(build: Callable[[int], nn.Module], cells: int) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(cells).parameters())


def _memory(device: str) -> int:
    """Bytes of the device's memory."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)
