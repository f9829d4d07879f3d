"""Which number is none: a NaN or an infinity is found by name and is one line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from msgdas.errors import InputError

__all__ = ["first_bad", "not_a_number", "refuse_not_finite", "tensors"]


def first_bad(parts: Mapping[str, Iterable[tuple[str, Tensor]]]) -> str | None:
    """``"kind 'name'"`` of the first tensor that holds a NaN or an infinity, or None.

    Args:
        parts: kind → ``(name, tensor)`` pairs, in the order of the search.
    """
    for kind, named in parts.items():
        for name, tensor in named:
            if not tensor.isfinite().all():
                return f"{kind} {name!r}"
    return None


def refuse_not_finite(
    step: int, values: Mapping[str, float], suspects: Mapping[str, Iterable[tuple[str, Tensor]]]
) -> None:
    """Refuse a step of which a value is not a number.

    Args:
        step: from 1.
        values: losses, and norms of gradients, in the order in which they came about.
        suspects: where the cause may be, as in `first_bad`.

    Raises:
        InputError: one line that names the step and the first of the suspects that is not a number, else the value.
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise not_a_number(step, first_bad(suspects) or bad[0])


def not_a_number(step: int, what: str) -> InputError:
    """The error to raise about ``what`` in ``step``, from 1."""
    return InputError(f"step {step}: {what} is not a number: lower the learning rate; the last checkpoint is kept")


def tensors(state: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts, lists and tuples, with its path ``"net.stem.0.weight"``."""
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, dict | list | tuple):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from tensors(value, f"{path}.{key}" if path else str(key))
