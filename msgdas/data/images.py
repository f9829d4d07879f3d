"""Images in memory or in files, and data sets of three parts."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import humanize
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msgdas.data.augment import Augment
from msgdas.data.decode import decode_all
from msgdas.data.form import Form
from msgdas.data.split import split
from msgdas.errors import InputError

__all__ = ["AnyImages", "DataSet", "ImageFiles", "Images"]


@dataclass(frozen=True)
class Images:
    """Images of one part in memory. ``pixels``: uint8 ``(N, C, H, W)``; ``labels``: int64 ``(N,)``."""

    pixels: Tensor
    labels: Tensor
    workers: ClassVar[int] = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour; arrays have any number."""
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        """In pixels."""
        return self.pixels.shape[-2]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.pixels.shape[-1]

    @property
    def size(self) -> int:
        """The shorter side in pixels."""
        return min(self.height, self.width)

    def take(self, index: Tensor) -> Images:
        """The images at ``index``, in that order, in channels_last, from which `gather` is fastest."""
        return Images(*self.gather(index)[:2])

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor, list[str]]:
        """Pixels in channels_last and labels at ``index``; no failures, see `ImageFiles.gather`."""
        lines = self.pixels.permute(0, 2, 3, 1)
        return lines.index_select(0, index).permute(0, 3, 1, 2), self.labels[index], []

    def to(self, device: str | torch.device) -> Images:
        """Move to a device."""
        return Images(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageFiles:
    """Images of one part, read from their files in each epoch.

    Attributes:
        paths: ``(N,)`` file names as bytes, in one array, which worker processes share without copying.
        labels: int64 ``(N,)``.
        form: of the decoded images.
        workers: processes that decode batches; 0: the process itself.
        stop: whether an unreadable file is an error.
        reported: failures already warned of, shared with the parts taken from this one.
    """

    paths: npt.NDArray[np.bytes_]
    labels: Tensor
    form: Form
    workers: int = 0
    stop: bool = False
    reported: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, files: Sequence[tuple[Path, int]], form: Form, **kw: Any) -> ImageFiles:
        """Make it from pairs of path and label."""
        paths = np.array([os.fsencode(path) for path, _ in files], dtype=np.bytes_)
        return cls(paths, torch.tensor([label for _, label in files], dtype=torch.int64), form, **kw)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """1 for grey images, else 3."""
        return self.form.channels

    @property
    def height(self) -> int:
        """In pixels."""
        return self.form.height

    @property
    def width(self) -> int:
        """In pixels."""
        return self.form.width

    @property
    def size(self) -> int:
        """The shorter side in pixels."""
        return min(self.height, self.width)

    def take(self, index: Tensor) -> ImageFiles:
        """The images at ``index``, in that order."""
        paths, labels = self.paths[index.numpy()], self.labels[index]
        return ImageFiles(paths, labels, self.form, self.workers, self.stop, self.reported)

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor, list[str]]:
        """Decode the images at ``index``.

        Returns:
            Of the readable files, in order: uint8 pixels ``(B, C, H, W)`` and labels ``(B,)``. Of the others, one line
            each, for `report`.
        """
        paths, labels = [Path(os.fsdecode(path)) for path in self.paths[index.numpy()]], self.labels[index]
        pixels = torch.empty(len(paths), self.channels, self.height, self.width, dtype=torch.uint8)
        bad = decode_all(paths, self.form, pixels)
        if bad:
            keep = [i for i in range(len(paths)) if i not in bad]
            pixels, labels = pixels[keep], labels[keep]
        return pixels, labels, list(bad.values())

    def report(self, failures: Iterable[str], stacklevel: int = 2) -> None:
        """Warn once of each file that could not be read.

        Raises:
            InputError: for the first of them, if ``stop``.
        """
        for line in failures:
            if self.stop:
                raise InputError(line)
            if line not in self.reported:
                self.reported.add(line)
                warnings.warn(f"left out: {line}", stacklevel=1 + stacklevel)

    def to(self, device: str | torch.device) -> ImageFiles:
        """No change: batches move to the device one by one."""
        return self


RESIZED = {"crop": "cropped", "pad": "padded", "stretch": "stretched"}
AnyImages = Images | ImageFiles


@dataclass(frozen=True)
class DataSet:
    """Training, validation and test parts with their class names.

    Attributes:
        mean, std: float32 ``(C,)``, per channel, of the training part in [0, 1].
        augment: augmentation in training.
        why_mirrored: why images are mirrored or not.
        form: what images were made into; ``None``: squares of the training part's size.
        why_resized: why so, where they had other aspect ratios.
    """

    name: str
    classes: tuple[str, ...]
    train: AnyImages
    val: AnyImages
    test: AnyImages
    mean: Tensor
    std: Tensor
    augment: Augment
    why_mirrored: str = ""
    form: Form | None = None
    why_resized: str = ""

    @property
    def channels(self) -> int:
        """1 for grey images, else 3."""
        return self.train.channels

    @property
    def image_size(self) -> int:
        """The images' shorter side in pixels."""
        return self.train.size

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.train.height, self.train.width

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def streams(self) -> bool:
        """Whether images are read from their files in each epoch, because they do not fit in memory."""
        return isinstance(self.train, ImageFiles)

    @property
    def where(self) -> str:
        """Where the images are, such as ``"in memory (12.0 MiB)"``."""
        count = len(self.train) + len(self.val) + len(self.test)
        size = humanize.naturalsize(count * self.channels * math.prod(self.image_shape), binary=True)
        if not self.streams:
            return f"in memory ({size})"
        workers = self.train.workers
        reader = f"{workers} worker{'s' if workers > 1 else ''}" if workers else "this process"
        return f"read from disk by {reader} ({size} would not fit in memory)"

    @property
    def resizing(self) -> str:
        """How images were resized and their values scaled, in words; empty if nothing was lost or changed in shape."""
        said = []
        if self.form and self.why_resized:
            said.append(f"{RESIZED[self.form.resize]}: {self.why_resized}")
        if self.form:
            known = {"integers": self.form.integers, "numbers": self.form.floats}
            said += [f"{kind} {r[0]:,g} to {r[1]:,g} scaled to 8 bits" for kind, r in known.items() if r]
        return "; ".join(said)

    @property
    def augmentation(self) -> str:
        """Augmentation in training, in words."""
        mirrored = "mirrored at random" if self.augment.flip else "not mirrored"
        return f"shifted by up to {self.augment.crop} pixels, {mirrored}" + (
            f": {self.why_mirrored}" if self.why_mirrored else ""
        )

    def halves(self, seed: int, limit: int | None = None) -> tuple[AnyImages, AnyImages]:
        """Split the training part into the weight half and the alpha half: disjoint, stratified, equal in size.

        Every class is in both, however rare.

        Args:
            limit: images in each half; default: all.

        Raises:
            InputError: ``limit`` is out of range.
        """
        size = len(self.train) // 2 if limit is None else limit
        if not self.num_classes <= size <= len(self.train) // 2:
            raise InputError(
                f"images={size} in each half: use {self.num_classes} (one per class) to {len(self.train) // 2} (all)"
            )
        first, second = split(self.train.labels, size, seed)
        return self.train.take(first), self.train.take(second)

    def class_weights(self) -> Tensor:
        """Balanced class weights for a loss, float32 ``(classes,)``: ``n / (classes · count)``, with ``n`` training
        images, ``count`` of them in the class. Averaged over the images, the weight is 1."""
        from sklearn.utils.class_weight import compute_class_weight  # lazy: it takes a second

        labels = self.train.labels.numpy()
        weights = compute_class_weight("balanced", classes=np.arange(self.num_classes), y=labels)
        return torch.from_numpy(weights).float()
