"""What Functions of ours ask autograd."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["wanted"]


def wanted(ctx: Any, i: int) -> bool:
    """Whether this backward needs the gradient of argument ``i``: an alpha step asks for no weight gradient."""
    if not ctx.needs_input_grad[i] or torch.compiler.is_compiling():
        return bool(ctx.needs_input_grad[i])
    try:
        return torch._C._will_engine_execute_node(ctx.next_functions[i][0])
    except RuntimeError:  # not told for a leaf inside autograd.grad
        return True
