"""Images of Hugging Face's `datasets`, written once into the user's cache folder and read from there as a folder."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msgdas.data.cache import cache_folder
from msgdas.data.listing import part_of, short
from msgdas.errors import InputError
from msgdas.runs.files import staged_folder, write_chunks

__all__ = ["PREFIX", "from_hub", "is_saved"]

PREFIX = "hf:"
SAVED = ("dataset_dict.json", "dataset_info.json")
SUFFIXES = {b"\xff\xd8": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp"}


def is_saved(folder: Path) -> bool:
    """Whether it is a folder that `datasets` wrote by ``save_to_disk``."""
    return any((folder / name).is_file() for name in SAVED)


def from_hub(spec: str | Path) -> Path:
    """The folder with the images of a data set, a folder per part and class; it is written when first asked for.

    Args:
        spec: ``hf:NAME`` or ``hf:NAME:CONFIG``, which is downloaded, or a folder that ``save_to_disk`` wrote.

    Raises:
        InputError: `datasets` is not installed, there is no such data set, or it has no images with one label each.
    """
    if find_spec("datasets") is None:
        raise InputError(f"data '{spec}' needs the package datasets: pip install 'msgdas[hub]'")
    import datasets

    try:
        if str(spec).startswith(PREFIX):
            name, _, config = str(spec)[len(PREFIX) :].partition(":")
            found = datasets.load_dataset(name, config or None)
        else:
            name, found = Path(spec).name, datasets.load_from_disk(str(spec))
    except Exception as error:  # noqa: BLE001 - whatever the package, its files or the network do
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"data '{spec}' cannot be loaded by datasets: {reason}") from None
    splits = dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}
    parts = {part: split for name, split in splits.items() if (part := part_of(name)) is not None}
    if "train" not in parts:
        raise InputError(f"data '{spec}' has no split train, but {', '.join(map(short, splits))}")
    image, label = _columns(spec, parts["train"], datasets)
    key = "-".join(split._fingerprint for split in parts.values())[:60]
    home = cache_folder("unpacked")
    folder = home / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)[:60]}-{key}"
    if not folder.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        with staged_folder(folder) as ready:
            for part, split in parts.items():
                _write(ready / part, split.cast_column(image, datasets.Image(decode=False)), image, label)
    return folder


def _columns(spec: str | Path, split: Any, datasets: Any) -> tuple[str, str]:
    """The columns of images and of labels."""
    images = [name for name, feature in split.features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in split.features.items() if isinstance(feature, datasets.ClassLabel)]
    if not labels:
        usual = ("label", "labels", "class", "category", "target")
        labels = [name for name in usual if isinstance(split.features.get(name), datasets.Value)]
    if not images or not labels:
        raise InputError(
            f"data '{spec}' has no column of {'images' if not images else 'labels'} "
            f"({', '.join(map(short, split.features))}): it must have an image and one label in each row"
        )
    return images[0], labels[0]


def _write(folder: Path, split: Any, image: str, label: str) -> None:
    names = getattr(split.features[label], "names", None)
    for i, row in enumerate(split):
        data, value = row[image]["bytes"], row[label]
        if data is None:
            data = Path(row[image]["path"]).read_bytes()
        if value is None or (names and not 0 <= value < len(names)):
            continue  # without a label
        name = re.sub(r"[/\\\0]", "_", str(names[value] if names else value)).lstrip(".")[:200] or "_"
        suffix = next((kind for start, kind in SUFFIXES.items() if data.startswith(start)), "png")
        write_chunks(folder / name / f"{i:08}.{suffix}", [data])
