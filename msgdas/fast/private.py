"""The private names of PyTorch that this package uses, each with a fallback for versions that lack it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["hooked", "will_run"]

_will_execute = getattr(torch._C, "_will_engine_execute_node", None)
_any_global_hook = getattr(nn.modules.module, "_has_any_global_hook", None)


def will_run(node: Any) -> bool:
    """Whether the backward pass in progress will run ``node``.

    True if PyTorch cannot tell: at worst, a gradient that nobody asked for is computed.
    """
    if _will_execute is None:
        return True
    try:
        return bool(_will_execute(node))
    except RuntimeError:  # for a leaf inside autograd.grad
        return True


def hooked(module: nn.Module) -> bool:
    """Whether the module, or every module (as for a FLOP counter), has hooks, which must see it called.

    True if PyTorch cannot tell: then every module is called, and nothing is fused.
    """
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or (_any_global_hook is None or _any_global_hook())
    )
