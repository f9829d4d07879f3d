"""Mean and standard deviation of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from msgdas.data.images import AnyImages, ImageFiles, Images

__all__ = ["mean_and_std"]

SAMPLE = 2000  # images in files that are looked at
CHUNK = 512  # images that are held at once


def mean_and_std(images: AnyImages) -> tuple[Tensor, Tensor]:
    """Per channel, float32 ``(C,)`` in [0, 1] units, exact, from a histogram of the bytes: of all images in memory, of
    2,000 random ones (always the same) in files."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(images.channels, 256, dtype=torch.float64)
    for some in _chunks(images):
        counts += torch.stack([torch.bincount(plane.flatten(), minlength=256) for plane in some.unbind(1)])
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(1)
    return mean.float(), variance.sqrt().clamp(min=1 / 255).float()


def _chunks(images: AnyImages) -> Iterable[Tensor]:
    if isinstance(images, Images):
        return torch.split(images.pixels, CHUNK)
    return _sampled(images)


def _sampled(images: ImageFiles) -> Iterator[Tensor]:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:SAMPLE]
    for some in torch.split(order, CHUNK):
        pixels, _, failures = images.gather(some)
        images.report(failures, stacklevel=4)  # the caller of load_data
        yield pixels
