"""Where the image files of a data set are: a folder, a table of labels, an archive."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from msgdas.data.archive import is_archive, is_shards, unpacked
from msgdas.data.decode import SUFFIXES
from msgdas.data.folder import list_folder
from msgdas.data.hub import PREFIX, from_hub, is_saved
from msgdas.data.listing import Files, Listing, part_of, short
from msgdas.data.table import list_table
from msgdas.errors import InputError

__all__ = ["find_files", "is_source"]

BY_FOLDER = "folder"
TABLE = ".csv"
MOST_LABEL = 1000  # bytes of a .cls file


def is_source(spec: str | Path) -> bool:
    """Whether there is a folder or a file of that name, so that it is no data set's name."""
    return str(spec).startswith(PREFIX) or os.path.exists(spec)  # Path.exists raises for a text too long to be a path


def find_files(spec: str | Path, labels: str | Path | None = None, group: str | None = None) -> Listing:
    """List the images of a folder, table or archive by part and class.

    Args:
        spec: a folder of class folders, with parts or without; a CSV file (`list_table`), or a folder that has one but
            no class folders; a zip or tar file of either, or a folder of tar files with a ``.cls`` file beside each
            image, as WebDataset has them; ``hf:NAME``, or a folder that Hugging Face's `datasets` saved.
        labels: a CSV file with the labels of the images in the folder ``spec``.
        group: what keeps images together in one part: ``"folder"``, the first folder below the class; or a regular
            expression, whose first group (or all that it matches) in an image's path is its group.

    Raises:
        InputError: there is nothing, or it is not of such a form.
    """
    path = Path(spec)
    if labels is not None:
        listing = list_table(Path(labels), _opened(path))
    elif path.suffix.lower() == TABLE and path.is_file():
        listing = list_table(path)
    else:
        listing = _list(path)
    return _grouped(listing, group) if group else listing


def _opened(path: Path) -> Path:
    if str(path).startswith(PREFIX) or (os.path.isdir(path) and is_saved(path)):
        return from_hub(path)
    if is_archive(path) or (os.path.isdir(path) and is_shards(path)):
        return unpacked(path)
    if not os.path.isdir(path):
        raise InputError(f"data '{path}' is no folder: give the one that holds the images of the table")
    return path


def _list(path: Path) -> Listing:
    root = _opened(path)
    unpacked_here = root != path
    sidecars = next((root.rglob if unpacked_here else root.glob)("*.cls"), None)
    tables = [p for p in root.iterdir() if p.suffix.lower() == TABLE and p.is_file()]
    if sidecars is not None:
        listing = _list_sidecars(root)
    else:
        try:
            listing = list_folder(root)
        except InputError:
            if len(tables) != 1:
                raise
            listing = list_table(tables[0])
    return replace(listing, name=path.resolve().name.split(".")[0]) if unpacked_here else listing


def _list_sidecars(root: Path) -> Listing:
    """Images with a ``.cls`` file of the same name, which holds the class, as in WebDataset's shards. A folder or a
    shard whose name begins with that of a part is one."""
    found = list[tuple[str, Path, str]]()
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES):
        label = path.with_name(f"{path.name.split('.')[0]}.cls")
        if label.is_file():
            text = label.read_bytes()[:MOST_LABEL].decode("utf-8", "replace").strip()
            found.append((_part(path.relative_to(root)), path, text))
    classes = tuple(sorted({text for _, _, text in found}, key=_numbers_in_order))
    if len(classes) < 2:
        raise InputError(f"'{root}' has .cls files of fewer than 2 classes beside its images: give 2 or more")
    index = {name: i for i, name in enumerate(classes)}
    parts: dict[str, Files] = {"train": [], "val": [], "test": []}
    for part, path, text in found:
        parts[part].append((path, index[text]))
    return Listing(root.name, root, classes, {part: files for part, files in parts.items() if files})


def _numbers_in_order(text: str) -> tuple[int, str]:
    return (len(text) if text.isdecimal() else 0), text


def _part(path: Path) -> str:
    first = path.parts[0].lower() if len(path.parts) > 1 else ""
    return part_of(re.split(r"[^a-z]", first)[0]) or "train"


def _grouped(listing: Listing, group: str) -> Listing:
    if group == BY_FOLDER:
        return replace(listing, groups=_by_folder(listing))
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise InputError(f"--group {short(group)} is no regular expression ({error}): see Python's re") from None
    groups = {}
    for path in listing.files:
        name = path.relative_to(listing.root).as_posix()
        found = pattern.search(name)
        if found is None:
            raise InputError(f"--group {short(group)} does not match {short(name)}: it must match every image's path")
        groups[path] = found[1] if pattern.groups and found[1] is not None else found[0]
    return replace(listing, groups=groups)


def _by_folder(listing: Listing) -> dict[Path, str]:
    """File → the first folder below its class, or below the root if there is a table."""
    groups = {}
    for path, label in (file for part in listing.parts.values() for file in part):
        folders = path.relative_to(listing.root).parts[:-1]
        name = listing.classes[label]
        below = folders[folders.index(name) + 1 :] if name in folders and listing.labels is None else folders
        if not below:
            image = short(path.relative_to(listing.root).as_posix())
            raise InputError(
                f"--group folder: image {image} is in no folder below its class; give a regular expression"
            )
        groups[path] = below[0]
    return groups
