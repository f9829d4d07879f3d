"""Load data sets by name and folders of images."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import humanize
import torch
from torch import Tensor
from torch.nn import functional as F

from msgdas.data.ahead import available_cpus
from msgdas.data.arrays import is_arrays, read_arrays
from msgdas.data.augment import Augment
from msgdas.data.decode import OnDone
from msgdas.data.duplicates import distinct
from msgdas.data.form import RESIZE, Form, parse_size
from msgdas.data.images import AnyImages, DataSet, Images
from msgdas.data.listing import Files, Listing, beside, some
from msgdas.data.mirror import MIRROR, Mirroring, decide
from msgdas.data.named import IMAGENET, NAMED, NAMES, default_folder, read_imagenet, read_named
from msgdas.data.read import Reading, memory_limit, read
from msgdas.data.source import find_files, is_source
from msgdas.data.split import FRACTIONS, hold_out, split_files
from msgdas.data.statistics import mean_and_std
from msgdas.errors import InputError, shown

__all__ = ["load_data"]

BAD_IMAGE = ("skip", "stop")
IMAGENET_SIZE = (224, 224)  # pixels
MOST_WORKERS = 8  # by default


def load_data(
    spec: str | Path | Mapping[str, Any],
    *,
    labels: str | Path | None = None,
    group: str | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    image_size: int | str | None = None,
    resize: str = "auto",
    val_fraction: float = FRACTIONS["val"],
    test_fraction: float = FRACTIONS["test"],
    split_seed: int = 0,
    on_bad_image: str = "skip",
    drop_duplicates: bool = False,
    max_memory: int | None = None,
    workers: int | None = None,
    mirror: str = "auto",
    form: Form | None = None,
    on_image: OnDone | None = None,
) -> DataSet:
    """Load a data set, held in memory as uint8 if it fits, else read from its files in each epoch.

    Args:
        spec: a name that ``msgdas search --help`` lists, such as ``"digits"`` (1,797 grey 8 × 8 images, offline) or
            ``"cifar10"`` (from its official files); or a folder with ``train/``, ``val/`` (``validation/``, ``valid/``)
            and ``test/``, a folder per class in each, or with class folders only. Missing parts are split off train;
            the named sets have no val part. Or a CSV file, a zip or tar file, a folder of shards: see `find_files`. Or
            a ``.npz`` file, or arrays by name, see `read_arrays`.
        labels: CSV file with the labels of the images in the folder ``spec``.
        group: ``"folder"`` or a regular expression: which images must stay in one part, see `find_files`.
        data_dir: where the official files are, torchvision's ``root``; default: the environment variable
            ``MSGDAS_DATA``, else the user's cache folder (``~/.cache/msgdas`` on Linux).
        download: fetch missing official files (not imagenet's).
        image_size: side in pixels, or ``"32x200"``: height and width; default: that of the images if all are of one
            size with at most 96² pixels, else 64; 224 for imagenet.
        resize: how images of other aspect ratios are brought to that size: ``"crop"`` their centre, ``"pad"`` them with
            black, ``"stretch"`` them; ``"auto"``: as `msgdas.data.form.fitted` says.
        test_fraction, val_fraction: fraction of train for a missing test part, and of the rest for a missing val part.
        split_seed: seed of those splits, 0 or more. It belongs to the data, not to a run: runs share their test part.
        on_bad_image: ``"skip"`` unreadable files with a warning, or ``"stop"`` at the first.
        drop_duplicates: decode all files once before, and keep one of those that are the same or nearly so: that of
            test, else of val; none if their classes differ.
        max_memory: bytes of pixels up to which images are held in memory; default: half of the free memory.
        workers: processes that read images not held in memory, 0 for none; default: one per CPU, up to 8.
        mirror: ``"on"`` or ``"off"``: whether trainings mirror images at random; ``"auto"``: as is usual for a named
            set, and for a folder what `msgdas.data.mirror.decide` says.
        form: what images of a folder are made into, as another `DataSet` has it; overrides ``image_size``, ``resize``.
        on_image: called with how many of how many images of a part are decoded.

    Raises:
        InputError: one line that says what is wrong with an argument, the name, the folder or its images.
    """
    name = spec if isinstance(spec, str) and spec in NAMES else None
    _refuse_arguments(split_seed, max_memory, workers)
    _refuse_choices(on_bad_image=(on_bad_image, BAD_IMAGE), mirror=(mirror, MIRROR), resize=(resize, RESIZE))
    if name or is_arrays(spec):
        _refuse_for_files(labels=labels, group=group, drop_duplicates=drop_duplicates)
    fractions = {"test": test_fraction, "val": val_fraction}
    how = Reading(
        None if image_size is None else parse_size(image_size),
        resize,
        stop=on_bad_image == "stop",
        max_memory=memory_limit() if max_memory is None else max_memory,
        workers=min(available_cpus(), MOST_WORKERS) if workers is None else workers,
        form=form,
        on_image=on_image,
    )
    root = Path(os.path.expanduser(data_dir or default_folder()))  # unlike Path's, without a home it changes nothing
    if name == IMAGENET:
        loaded = _imagenet(root, download, val_fraction, split_seed, how)
    elif name:
        loaded = _named(name, root, download, fractions, split_seed, how)
    elif is_arrays(spec):
        loaded = _arrays(spec, fractions, split_seed, how)
    else:
        listing = find_files(_existing(str(spec)), labels, group)
        loaded = _files(distinct(listing) if drop_duplicates else listing, fractions, split_seed, how)
    _refuse_few(loaded)
    _warn_missing(loaded)
    mean, std = mean_and_std(loaded.parts["train"])
    mirroring = _mirroring(loaded, mirror, usual=name is not None)
    augment = replace(loaded.augment, flip=mirroring.on)
    return DataSet(
        loaded.name,
        loaded.classes,
        **loaded.parts,
        mean=mean,
        std=std,
        augment=augment,
        why_mirrored=mirroring.why,
        form=loaded.form,
        why_resized=loaded.why_resized,
    )


class _Loaded(NamedTuple):
    name: str
    classes: tuple[str, ...]
    parts: Mapping[str, AnyImages]
    augment: Augment
    form: Form
    why_resized: str = ""


def _mirroring(loaded: _Loaded, mirror: str, *, usual: bool) -> Mirroring:
    if mirror != "auto":
        return Mirroring(mirror == "on", "as set")
    if usual:
        return Mirroring(loaded.augment.flip, f"as is usual for {loaded.name}")
    return decide(loaded.classes, loaded.parts["train"])


def _named(name: str, root: Path, download: bool, fractions: dict[str, float], seed: int, how: Reading) -> _Loaded:
    classes, given = read_named(name, root, download=download)
    parts = _split_and_resized(given, classes, fractions, seed, how)
    train = parts["train"]
    return _Loaded(
        name, classes, parts, NAMED[name].augment(train.size), Form(train.channels, train.height, train.width)
    )


def _arrays(spec: Any, fractions: dict[str, float], seed: int, how: Reading) -> _Loaded:
    name = "arrays" if isinstance(spec, Mapping) else Path(_existing(spec)).stem
    classes, given, form = read_arrays(spec, how.max_memory)
    parts = _split_and_resized(given, classes, fractions, seed, how)
    train = parts["train"]
    form = replace(form, height=train.height, width=train.width, resize="stretch")
    return _Loaded(name, classes, parts, _shifted(train), form)


def _split_and_resized(
    parts: dict[str, Images], classes: tuple[str, ...], fractions: dict[str, float], seed: int, how: Reading
) -> dict[str, Images]:
    """Images in memory, missing parts split off train, at the size that was asked for."""
    missing = {part: fraction for part, fraction in fractions.items() if part not in parts}
    index = hold_out(parts["train"].labels, classes, missing, seed)
    return _resized(parts | {part: parts["train"].take(chosen) for part, chosen in index.items()}, how)


def _shifted(train: AnyImages) -> Augment:
    """The augmentation of data that have no name; whether they may be mirrored is decided later."""
    return Augment(crop=max(1, train.size // 8), flip=True)


def _imagenet(root: Path, download: bool, val_fraction: float, seed: int, how: Reading) -> _Loaded:
    classes, files = read_imagenet(root, download=download)
    files = split_files(Listing(IMAGENET, root, classes, files), {"val": val_fraction}, seed)
    usual = "crop" if how.resize == "auto" else how.resize
    # trusted: torchvision checked the archives
    how = how._replace(image_size=how.image_size or IMAGENET_SIZE, resize=usual, trusted=True)
    return _of_files(IMAGENET, classes, files, how)


def _existing(spec: str | Path) -> str | Path:
    """The path, if there is something."""
    if is_source(spec):
        return spec
    near = difflib.get_close_matches(str(spec).lower(), NAMES, 1)
    way = f". Did you mean {near[0]!r}?" if near else ": give the path of a folder with a folder of images per class"
    raise InputError(f"data {shown(str(spec))} is neither a known name ({', '.join(NAMES)}) nor a folder or file{way}")


def _files(listing: Listing, fractions: dict[str, float], seed: int, how: Reading) -> _Loaded:
    if listing.problems:
        raise InputError(f"data {shown(str(listing.root))}: {listing.problems[0]}")
    aside = beside(listing)
    for line in (*listing.warnings, *aside.problems, *aside.warnings):
        _warn(line)
    return _of_files(listing.name, listing.classes, split_files(listing, fractions, seed), how)


def _of_files(name: str, classes: tuple[str, ...], files: dict[str, Files], how: Reading) -> _Loaded:
    parts, form, why = read(files, how)
    return _Loaded(name, classes, parts, _shifted(parts["train"]), form, why)


def _resized(parts: Mapping[str, Images], how: Reading) -> dict[str, Images]:
    """Resize to ``how.image_size``.

    Raises:
        InputError: the result does not fit in memory.
    """
    train, count = parts["train"], sum(map(len, parts.values()))
    height, width = size = how.image_size or (train.height, train.width)
    need = count * train.channels * height * width
    if need > how.max_memory:
        needed, allowed = (humanize.naturalsize(n, binary=True) for n in (need, how.max_memory))
        raise InputError(
            f"{count} images at {height} × {width} need {needed} of memory, more than {allowed}: "
            "lower image_size, or raise max_memory"
        )
    return {part: Images(_resize(images.pixels, size), images.labels) for part, images in parts.items()}


def _resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    if pixels.shape[-2:] == size:
        return pixels
    some = torch.split(pixels, 1024)  # in pieces, since they become floats
    return torch.cat([F.interpolate(s.float(), size, mode="bilinear", antialias=True).round().byte() for s in some])


def _refuse_arguments(split_seed: int, max_memory: int | None, workers: int | None) -> None:
    if not 0 <= split_seed < 2**32:
        raise InputError(f"split_seed={split_seed}: use 0 to 2**32 - 1")
    for name, value in (("max_memory", max_memory), ("workers", workers)):
        if value is not None and value < 0:
            raise InputError(f"{name}={value}: use 0 or more")


def _refuse_choices(**given: tuple[str, tuple[str, ...]]) -> None:
    """Name → its value and those that it may have."""
    for name, (value, known) in given.items():
        if value not in known:
            raise InputError(f"{name}={value!r}: use {' or '.join(map(repr, known))}")


def _refuse_for_files(**given: object) -> None:
    for name, value in given.items():
        if value:
            raise InputError(f"{name}={value!r} is for data of image files: leave it out")


def _refuse_few(loaded: _Loaded) -> None:
    """Require two images of each class in train, one for each half of a search, and no empty part."""
    counts = torch.bincount(loaded.parts["train"].labels, minlength=len(loaded.classes)).tolist()
    for name, count in zip(loaded.classes, counts):
        if count < 2:
            raise InputError(f"class {name!r} has too few readable images in train ({count}): give it 2 or more")
    for part, images in loaded.parts.items():
        if not len(images):
            raise InputError(f"the {part} part has no readable image: add some")


def _warn_missing(loaded: _Loaded) -> None:
    """Warn of classes that a part lacks."""
    for part, images in loaded.parts.items():
        present = set(images.labels.tolist())
        missing = [name for label, name in enumerate(loaded.classes) if label not in present]
        if missing:
            _warn(f"class {some(missing)} without images in {part}: accuracy there does not count it")


def _warn(line: str) -> None:
    """Warn at the line that called `load_data`."""
    warnings.warn(line, stacklevel=4)
