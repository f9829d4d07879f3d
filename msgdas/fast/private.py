"""The private names of PyTorch that this wing uses, each with a fallback for a version that lacks it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["hooked", "will_run"]

_will_execute = getattr(torch._C, "_will_engine_execute_node", None)
_any_global_hook = getattr(nn.modules.module, "_has_any_global_hook", None)


def will_run(node: Any) -> bool:
    """Whether the backward pass in progress will run ``node``. True where PyTorch does not tell: then a gradient may be
    computed that nobody asked for."""
    if _will_execute is None:
        return True
    try:
        return bool(_will_execute(node))
    except RuntimeError:  # PyTorch does not tell for a leaf inside autograd.grad
        return True


def hooked(module: nn.Module) -> bool:
    """Whether hooks watch the module, or all modules (as a FLOP counter's do), and must see it called. True where
    PyTorch does not tell: then modules are called one by one."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or (_any_global_hook is None or _any_global_hook())
    )
