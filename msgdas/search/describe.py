"""A search in words, for the run folder and the report."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

if TYPE_CHECKING:
    from msgdas.search.search import Search

__all__ = ["describe"]


def describe(search: Search) -> dict[str, Any]:
    """Every part and number that a search is made of, as plain JSON values; a schedule as [start, end]."""
    names = (
        "tau",
        "warmup",
        "weight_lr",
        "alpha_lr",
        "drop",
        "drop_block",
        "drop_in_alpha_steps",
        "clip",
        "parallel",
        "micro_batches",
        "precision",
        "recompute",
        "joint",
    )
    parts = (
        "sampler",
        "weight_sampler",
        "warmup_sampler",
        "hypergradient",
        "prior",
        "guidance",
        "loss",
        "after_alpha_step",
        "early_stop",
    )
    return {
        **{name: _plain(getattr(search, name)) for name in names},
        **{name: _part(getattr(search, name)) for name in parts},
        "steps": search.steps,
        "penalties": [_part(penalty) for penalty in search.penalties],
        "weight_optimizer": _part(search.weight_optimizer),
        "alpha_optimizer": _part(search.alpha_optimizer),
    }


def _plain(value: Any) -> Any:
    """A JSON value; a schedule as [start, end]."""
    if callable(value):
        return [value(0.0), value(1.0)]
    return list(value) if isinstance(value, tuple) else value


def _part(part: Any) -> Any:
    """A part by its name, with its fields or defaults where it has some."""
    if part is None:
        return None
    if is_dataclass(part):
        return {"name": type(part).__name__} | {f.name: _plain(getattr(part, f.name)) for f in fields(part)}
    if isinstance(part, Optimizer):
        defaults = {n: _plain(v) for n, v in part.defaults.items() if n != "lr" and isinstance(v, int | float | tuple)}
        return {"name": type(part).__name__} | defaults
    return getattr(part, "__name__", type(part).__name__)
