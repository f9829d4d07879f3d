"""The parts of a search as plain JSON values, for the run folder and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from msgdas.search.schedules import Cosine, Linear, Schedule

__all__ = ["describe", "describe_number"]


def describe_number(value: float | Schedule | None) -> float | list[float] | None:
    """A number as it is; a schedule as ``[start, end]``."""
    return [value(0.0), value(1.0)] if callable(value) else value


def describe(part: Any) -> Any:
    """A part as a JSON value: a dataclass as its name and fields, a function as its name, a schedule as
    ``[start, end]``. Fields with ``repr=False`` are left out."""
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, Linear | Cosine):
        return describe_number(part)
    if isinstance(part, Mapping):
        return {str(name): describe(value) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return [describe(each) for each in part]
    if is_dataclass(part):
        shown = {f.name: describe(getattr(part, f.name)) for f in fields(part) if f.repr}
        return {"name": type(part).__name__} | shown
    return getattr(part, "__name__", type(part).__name__)
