"""What the wing's autograd Functions ask about the backward pass that they are part of."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from msgdas.fast.private import will_run

__all__ = ["Deferred", "defers", "wanted"]


class Deferred(NamedTuple):
    """What a backward applies to the gradient ``g`` that it is given before it uses it: ``a · g + b · y + d``.

    Attributes:
        y: same shape and strides as ``g``.
        factors: a, b and d, one row of channels each, repeated as the kernels read them.
    """

    y: Tensor
    factors: Tensor


def wanted(ctx: Any, count: int) -> list[bool]:
    """Whether this backward must compute the gradient of each of its first ``count`` arguments: an alpha step asks for
    no weight gradients."""
    needed = ctx.needs_input_grad[:count]
    if torch.compiler.is_compiling():
        return list(needed)
    nodes = ctx.next_functions  # a property that builds all of them
    return [need and will_run(nodes[i][0]) for i, need in enumerate(needed)]


def defers(node: Any) -> bool:
    """Whether the backward of ``node`` accepts a `Deferred` as ``node.deferred``: it reads the gradient only once,
    because it computes no weight gradient."""
    return getattr(node, "defers", False) and not wanted(node, 2)[1]
