"""What Functions of ours ask autograd."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["wanted"]


def wanted(ctx: Any, count: int) -> list[bool]:
    """Whether this backward needs the gradients of the first arguments: an alpha step asks for no weight gradient."""
    needed = ctx.needs_input_grad[:count]
    if torch.compiler.is_compiling():
        return list(needed)
    nodes = ctx.next_functions  # a property that makes them all
    return [need and _runs(nodes[i][0]) for i, need in enumerate(needed)]


def _runs(node: Any) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # not told for a leaf inside autograd.grad
        return True
