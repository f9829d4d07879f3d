"""Read JSON that anyone may have written or damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["parse_json", "read_json"]

LARGEST = 2**26  # bytes of a file
DEEPEST = 50  # objects and lists inside each other

Pairs = Callable[[list[tuple[str, Any]]], Any]


def read_json(path: Path, object_pairs_hook: Pairs | None = None) -> Any:
    """The value in a file.

    Args:
        object_pairs_hook: as `json.loads` takes it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no regular file, larger than 64 MiB, or not JSON in UTF-8; one line.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("it is not a regular file")
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 2**20} MiB")
    return parse_json(data, object_pairs_hook)


def parse_json(text: str | bytes, object_pairs_hook: Pairs | None = None) -> Any:
    """The value that ``text`` says.

    Raises:
        ValueError: it is not JSON in UTF-8, is nested too deeply, or has a number longer than Python reads.
    """
    try:
        value = json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text, object_pairs_hook=object_pairs_hook
        )
    except RecursionError:
        raise _too_deep() from None
    _refuse_deep(value)
    return value


def _refuse_deep(value: Any) -> None:
    """What is not deep can be compared, printed and written without a `RecursionError`."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner = [one for one in level if isinstance(one, dict | list)]
        level = [item for one in inner for item in (one.values() if isinstance(one, dict) else one)]
        if not inner:
            return
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {DEEPEST} deep")
