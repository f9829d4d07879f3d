"""Images as arrays: ``.npz`` files, and mappings of arrays in Python."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple, TypeGuard

import humanize
import numpy as np
import numpy.typing as npt
import torch

from msgdas.data.form import Form, Range
from msgdas.data.images import Images
from msgdas.data.listing import PARTS, short
from msgdas.data.pixels import as_bytes, planes
from msgdas.errors import InputError

__all__ = ["Arrays", "is_arrays", "read_arrays"]

IMAGES, LABELS = ("x", "images", "image", "data"), ("y", "labels", "label", "targets", "target")
CLASSES = ("classes", "class_names", "names")
DAMAGE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, SyntaxError, TokenError, RuntimeError)

Array = npt.NDArray[Any]


class Arrays(NamedTuple):
    """A data set of arrays. ``form``: as `Form` says, with any number of channels."""

    classes: tuple[str, ...]
    parts: dict[str, Images]
    form: Form


def is_arrays(spec: object) -> TypeGuard[str | Path | Mapping[str, Array]]:
    """Whether it is a mapping, or a ``.npz`` file by its name."""
    return isinstance(spec, Mapping) or (isinstance(spec, str | Path) and str(spec).lower().endswith(".npz"))


def read_arrays(spec: str | Path | Mapping[str, Array], max_memory: int) -> Arrays:
    """Read images and labels of each part.

    Names are ``x_train``, ``y_train``, ``x_test``, … or ``train_images``, ``train_labels``, …, as common data sets have
    them; without a part, all is train. ``classes`` may name the classes.

    Args:
        spec: a ``.npz`` file, or name → array. Images are ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``, labels
            ``(N,)`` or one-hot ``(N, classes)``. Integers of more than 8 bits and floats are scaled by the largest
            value of the training part.
        max_memory: bytes that the arrays may take.

    Raises:
        InputError: one line that says which array is missing or wrong.
    """
    name = "arrays" if isinstance(spec, Mapping) else f"'{spec}'"
    arrays = {key: np.asarray(array) for key, array in spec.items()} if isinstance(spec, Mapping) else None
    arrays = _loaded(Path(str(spec)), max_memory) if arrays is None else arrays
    found = {part: _pair(name, arrays, names) for part, names in PARTS.items()}
    pairs = {part: pair for part, pair in found.items() if pair is not None}
    if "train" not in pairs:
        whole = _pair(name, arrays, ("",))
        if whole is None:
            raise InputError(
                f"{name} has no images and labels ({', '.join(map(short, list(arrays)[:6])) or 'nothing'}): "
                "name them x_train and y_train, or images and labels"
            )
        pairs = {"train": whole}
    images = {part: planes(f"{name}, {part}", x) for part, (x, _) in pairs.items()}
    shapes = {array.shape[1:] for array in images.values()}
    if len(shapes) > 1:
        raise InputError(f"{name}: images of {' and '.join(map(str, sorted(shapes)))}; give all parts one shape")
    numbers = {part: _numbers(f"{name}, {part}", y) for part, (_, y) in pairs.items()}
    classes, labels = _classes(name, arrays, numbers)
    known = _range(images["train"])
    parts = {}
    for part, array in images.items():
        if len(array) != len(labels[part]):
            raise InputError(f"{name}, {part}: {len(array)} images and {len(labels[part])} labels; give as many")
        parts[part] = Images(torch.from_numpy(as_bytes(array, known)), torch.from_numpy(labels[part]))
    channels, height, width = images["train"].shape[1:]
    form = Form(channels, height, width)
    if images["train"].dtype.kind in "bui":
        return Arrays(classes, parts, replace(form, integers=known))
    return Arrays(classes, parts, replace(form, floats=known))


def _loaded(path: Path, max_memory: int) -> dict[str, Array]:
    """The arrays of a file, no objects among them.

    Raises:
        InputError: it cannot be read, or is larger than the memory.
    """
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            need = sum(_bytes(file, name) for name in file.files)
            if need > max_memory:
                needed, allowed = (humanize.naturalsize(n, binary=True) for n in (need, max_memory))
                raise InputError(
                    f"'{path}' needs {needed} of memory, more than {allowed}: raise --max-memory, or save as files"
                )
            return {name: file[name] for name in file.files}
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"'{path}' cannot be read: {reason}; give a .npz file without objects") from None


def _bytes(file: Any, name: str) -> int:
    """What an array of an open file takes, from its header."""
    with file.zip.open(f"{name}.npy") as array:
        version = np.lib.format.read_magic(array)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(array)
    return math.prod(shape) * int(dtype.itemsize)


def _pair(name: str, arrays: Mapping[str, Array], parts: tuple[str, ...]) -> tuple[Array, Array] | None:
    """Images and labels of a part; ``None`` if it has neither."""
    lower = {key.lower(): array for key, array in arrays.items()}

    def find(words: tuple[str, ...]) -> Array | None:
        names = [f"{a}_{b}" if a and b else a or b for p in parts for w in words for a, b in ((w, p), (p, w))]
        return next((lower[key] for key in names if key in lower), None)

    images, labels = find(IMAGES), find(LABELS)
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        there, missing = ("images", "labels") if labels is None else ("labels", "images")
        raise InputError(f"{name} has {there} but no {missing} of {parts[0] or 'train'}: add them")
    return images, labels


def _numbers(name: str, labels: Array) -> Array:
    """Labels as ``(N,)``."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    if labels.ndim == 2:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()):
            raise InputError(f"{name}: labels of shape {labels.shape} are not one-hot; give one class for each image")
        return labels.argmax(1)
    if labels.ndim != 1 or labels.dtype.kind not in "buiUS":
        raise InputError(f"{name}: labels of shape {labels.shape} and type {labels.dtype}; give whole numbers or texts")
    return labels


def _classes(
    name: str, arrays: Mapping[str, Array], numbers: Mapping[str, Array]
) -> tuple[tuple[str, ...], dict[str, npt.NDArray[np.int64]]]:
    """Class names, and labels as indices of them."""
    known = np.unique(np.concatenate([np.unique(part) for part in numbers.values()]))
    stranger = np.setdiff1d(known, np.unique(numbers["train"]))
    if len(stranger):
        raise InputError(f"{name}: class {short(str(stranger[0]))} has no image in train; add some")
    if len(known) < 2:
        raise InputError(f"{name} has fewer than two classes: give 2 or more")
    texts = [str(value.decode() if isinstance(value, bytes) else value) for value in known]
    given = next((arrays[key] for key in arrays if key.lower() in CLASSES), None)
    if given is not None and known.dtype.kind in "bui" and known.min() >= 0 and known.max() < len(given):
        texts = [str(given[int(value)]) for value in known]
    return tuple(texts), {part: np.searchsorted(known, labels).astype(np.int64) for part, labels in numbers.items()}


def _range(images: Array) -> Range | None:
    """The values of the training part; ``None`` if they have 8 bits or none is above 0."""
    if images.dtype == np.uint8:
        return None
    finite = images if images.dtype.kind in "bui" else images[np.isfinite(images)]
    low, high = (min(0.0, float(finite.min())), float(finite.max())) if finite.size else (0.0, 0.0)
    return (low, high) if high > 0 else (low, 0.0) if low < 0 else None
