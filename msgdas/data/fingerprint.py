"""What image files a data folder holds, without reading them: enough to tell whether it is still the same data."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from msgdas.data.arrays import is_arrays
from msgdas.data.listing import some
from msgdas.data.source import find_files

__all__ = ["changes", "fingerprint"]

NAMES = 5_000  # files up to which each is kept by name; above, only the counts say what changed
SHOWN = 3


def fingerprint(spec: str | Path, labels: str | Path | None = None) -> dict[str, Any]:
    """The image files of a folder, table or archive, as `find_files` takes it: relative paths, sizes in bytes, classes.

    Returns:
        ``digest`` of all of it, ``classes``, ``counts`` (part → class → files) and, up to 5,000 files, ``files``
        (path → part, class, size). Names that are not UTF-8 are written with backslashes.

    Raises:
        InputError: there are no data, as in `load_data`.
    """
    if is_arrays(spec):
        return _of_arrays(Path(spec))
    listing = find_files(spec, labels)
    classes, parts = listing.classes, listing.parts
    files = {
        _text(os.path.relpath(path, listing.root)): [part, _text(classes[label]), _size(path)]
        for part, found in parts.items()
        for path, label in found
    }
    counts = Counter((part, name) for part, name, _ in files.values())
    names = list(map(_text, classes))
    seen = {
        "digest": hashlib.sha256(json.dumps([names, sorted(files.items())]).encode()).hexdigest(),
        "classes": names,
        "counts": {part: {name: counts[part, name] for name in names} for part in parts},
    }
    return seen | ({"files": files} if len(files) <= NAMES else {})


def _of_arrays(path: Path) -> dict[str, Any]:
    """By the content of the file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return {"digest": digest.hexdigest(), "classes": [], "counts": {}}


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two fingerprints, in words; empty if nothing does."""
    if before["digest"] == now["digest"]:
        return ""
    said = []
    if before["classes"] != now["classes"]:
        for word, names in (
            ("gone", [name for name in before["classes"] if name not in now["classes"]]),
            ("new", [name for name in now["classes"] if name not in before["classes"]]),
        ):
            if names:
                said.append(f"classes {word}: {some(names)}")
    if "files" in before and "files" in now:
        old, new = before["files"], now["files"]
        both = [path for path in old if path in new]
        for word, paths in (
            ("removed", [path for path in old if path not in new]),
            ("added", [path for path in new if path not in old]),
            ("changed", [path for path in both if old[path] != new[path]]),
        ):
            if paths:
                said.append(f"{len(paths)} {word} ({some(paths)})")
    else:
        said += [
            f"{part}/{name}: {count} images, now {now['counts'].get(part, {}).get(name, 0)}"
            for part, by_class in before["counts"].items()
            for name, count in by_class.items()
            if count != now["counts"].get(part, {}).get(name, 0)
        ][:SHOWN]
    return "; ".join(said) or "files of other names or sizes"


def _size(path: Path) -> int:
    """In bytes; -1 for what cannot be reached."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
