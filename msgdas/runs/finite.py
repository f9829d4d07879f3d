"""Find NaN and infinite values and report them by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from msgdas.errors import InputError

__all__ = ["first_bad", "not_a_number", "refuse_not_finite", "tensors"]


def first_bad(parts: Mapping[str, Iterable[tuple[str, Tensor]]]) -> str | None:
    """``"kind 'name'"`` of the first tensor that holds a NaN or an infinity, or ``None``.

    Args:
        parts: kind → ``(name, tensor)`` pairs, in the order in which they are checked.
    """
    for kind, named in parts.items():
        for name, tensor in named:
            if not tensor.isfinite().all():
                return f"{kind} {name!r}"
    return None


def refuse_not_finite(
    step: int, values: Mapping[str, float], suspects: Mapping[str, Iterable[tuple[str, Tensor]]]
) -> None:
    """Raise if a value of a step is not finite.

    Args:
        step: from 1.
        values: losses and gradient norms, in the order in which they were computed.
        suspects: tensors that may be the cause, as in `first_bad`.

    Raises:
        InputError: one line that names the step and the first suspect that is not finite, else the value.
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise not_a_number(step, first_bad(suspects) or bad[0])


def not_a_number(step: int, what: str) -> InputError:
    """The error that ``what`` is not finite in ``step``, counted from 1."""
    return InputError(f"step {step}: {what} is not a number: lower the learning rate; the last checkpoint is kept")


def tensors(state: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested dicts, lists and tuples, with its path such as ``"net.stem.0.weight"``."""
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, dict | list | tuple):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from tensors(value, f"{path}.{key}" if path else str(key))
