"""Mean and standard deviation of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from msgdas.data.images import AnyImages, ImageFiles, Images

__all__ = ["mean_and_std"]

SAMPLE = 2000
CHUNK = 512  # images held at once


def mean_and_std(images: AnyImages, sample: int = SAMPLE) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, float32 ``(C,)``, of pixels in [0, 1]; exact, from a histogram.

    Args:
        images: all are read if they are in memory; else ``sample`` random ones, always the same.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(images.channels, 256, dtype=torch.float64)
    for some in _chunks(images, sample):
        counts += torch.stack([torch.bincount(plane.flatten(), minlength=256) for plane in some.unbind(1)])
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(1)
    return mean.float(), variance.sqrt().clamp(min=1 / 255).float()


def _chunks(images: AnyImages, sample: int) -> Iterable[Tensor]:
    if isinstance(images, Images):
        return torch.split(images.pixels, CHUNK)
    return _sampled(images, sample)


def _sampled(images: ImageFiles, sample: int) -> Iterator[Tensor]:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:sample]
    for some in torch.split(order, CHUNK):
        pixels, _, failures = images.gather(some)
        images.report(failures, stacklevel=4)  # warn at the caller of load_data
        yield pixels
