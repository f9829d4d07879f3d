"""What autograd Functions need to know about the backward pass they run in."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from msgdas.fast.private import will_run

__all__ = ["Deferred", "defers", "wanted"]


class Deferred(NamedTuple):
    """A gradient that is not computed yet: ``a · g + b · y + d`` of the gradient ``g``, per channel.

    The kernel that reads the gradient computes it on the way, which saves a pass over memory.

    Attributes:
        y: same shape and strides as ``g``.
        factors: a, b and d, one row of channels each, repeated as the kernels read them.
    """

    y: Tensor
    factors: Tensor


def wanted(ctx: Any, count: int) -> list[bool]:
    """For each of the first ``count`` arguments: whether this backward pass needs its gradient.

    ``ctx.needs_input_grad`` is True for all weights; an alpha step, though, asks only for the gates' gradients.
    """
    needed = ctx.needs_input_grad[:count]
    if torch.compiler.is_compiling():
        return list(needed)
    nodes = ctx.next_functions  # read once: the property builds the tuple anew each time
    return [need and will_run(nodes[i][0]) for i, need in enumerate(needed)]


def defers(node: Any) -> bool:
    """Whether the backward of ``node`` accepts a `Deferred` as ``node.deferred``.

    It does if it reads the gradient only once, that is, computes no weight gradient.
    """
    return getattr(node, "defers", False) and not wanted(node, 2)[1]
