"""Find NaN and infinite values and report them by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from msgdas.errors import InputError

__all__ = ["NotANumber", "first_bad", "inputs", "not_a_number", "refuse_not_finite", "tensors"]

WAYS_OUT = {
    "input": "check the images and their mean and std",
    "labels": "check the labels",
    "alpha": "lower the learning rate of the alphas",
    "gate": "check the sampler and its temperature tau",
    "weight": "lower the learning rate",
    "state": "lower the learning rate",
    "guidance": "raise its temperature, or lower its weight",
    "penalty": "check the penalties on the alphas and their weights",
    "alpha_gradient": "lower the learning rate of the alphas, or the weights of their losses",
}
OTHERWISE = "lower the learning rate, or check the loss"


class NotANumber(InputError):
    """A value is NaN or infinite. `go_on` adds whether there is a checkpoint."""


def first_bad(parts: Mapping[str, Iterable[tuple[str, Tensor]]]) -> str | None:
    """``"kind 'name'"`` of the first tensor that holds a NaN or an infinity, or ``None``.

    Args:
        parts: kind → ``(name, tensor)`` pairs, in the order in which they are checked. The name may be empty.
    """
    for kind, named in parts.items():
        for name, tensor in named:
            if not tensor.isfinite().all():
                return f"{kind} {name!r}" if name else kind
    return None


def inputs(batch: Any) -> dict[str, Iterator[tuple[str, Tensor]]]:
    """The tensors of a batch ``(inputs, labels)``, for `refuse_not_finite`."""
    return {kind: tensors(part) for kind, part in zip(("input", "labels"), batch)}


def refuse_not_finite(
    step: int, values: Mapping[str, float], suspects: Mapping[str, Iterable[tuple[str, Tensor]]]
) -> None:
    """Raise if a value of a step is not finite.

    Args:
        step: from 1.
        values: losses and gradient norms, in the order in which they were computed.
        suspects: tensors that may be the cause, as in `first_bad`: what goes into the others first.

    Raises:
        NotANumber: one line that names the step and the first suspect that is not finite, else the value.
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise not_a_number(step, first_bad(suspects) or bad[0])


def not_a_number(step: int, what: str) -> NotANumber:
    """The error that ``what``, as `first_bad` names it, is not finite in ``step``, counted from 1."""
    kind = what.partition(" ")[0]
    way_out = "check the network's first weights" if (step, kind) == (1, "weight") else WAYS_OUT.get(kind, OTHERWISE)
    return NotANumber(f"step {step}: {what} is not a number: {way_out}")


def tensors(state: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested dicts, lists and tuples, with its path such as ``"net.stem.0.weight"``."""
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, dict | list | tuple):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from tensors(value, f"{path}.{key}" if path else str(key))
