"""What Functions of ours ask autograd."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Deferred", "defers", "wanted"]


class Deferred(NamedTuple):
    """What a backward does first with the gradient ``g`` that it is given: it becomes ``a · g + b · y + d``.

    Attributes:
        y: like ``g``.
        factors: a, b and d, a row of channels each, repeated as kernels read them.
    """

    y: Tensor
    factors: Tensor


def wanted(ctx: Any, count: int) -> list[bool]:
    """Whether this backward needs the gradients of the first arguments: an alpha step asks for no weight gradient."""
    needed = ctx.needs_input_grad[:count]
    if torch.compiler.is_compiling():
        return list(needed)
    nodes = ctx.next_functions  # a property that makes them all
    return [need and _runs(nodes[i][0]) for i, need in enumerate(needed)]


def defers(node: Any) -> bool:
    """Whether the backward of ``node`` takes a `Deferred`, which it is given as ``node.deferred``: where it reads the
    gradient once, as it forms no weight's."""
    return getattr(node, "defers", False) and not wanted(node, 2)[1]


def _runs(node: Any) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # not told for a leaf inside autograd.grad
        return True
