"""What the tests of the run folder share: names in a folder, a call that fails after some calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def killed_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` for ``calls`` calls, then an error in its place."""
    left = iter(range(calls))

    def call(*args: Any) -> Any:
        if next(left, None) is None:
            raise OSError("injected")
        return function(*args)

    return call
