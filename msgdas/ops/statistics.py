"""Forward passes that leave no trace: running statistics stay as they are, DropBlock is off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from msgdas.ops.drop import DropBlockIdentity

__all__ = ["frozen_statistics", "quiet", "recomputable", "recomputed", "tracing"]


def tracing(net: nn.Module) -> list[nn.Module]:
    """The modules that `quiet` acts on. Finding them walks the network, which is too slow for every step."""
    return [m for m in net.modules() if hasattr(m, "track_running_stats") or isinstance(m, DropBlockIdentity)]


@contextmanager
def quiet(net: nn.Module | Sequence[nn.Module], *, drop: bool = False) -> Iterator[None]:
    """Inside, ``net`` in training mode normalises with batch statistics but does not update running statistics.

    For alpha steps, probes, virtual steps and the teacher.

    Args:
        net: the network, or its `tracing` modules.
        drop: leave DropBlock-Identity on.
    """
    modules = tracing(net) if isinstance(net, nn.Module) else net
    norms = [m for m in modules if getattr(m, "track_running_stats", False)]
    drops = [(m, m.p) for m in modules if isinstance(m, DropBlockIdentity) and not drop]
    for norm in norms:
        norm.track_running_stats = False  # type: ignore[assignment]
    for identity, _ in drops:
        identity.p = 0.0
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True  # type: ignore[assignment]
        for identity, p in drops:
            identity.p = p


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Inside, forward passes of ``net`` update copies of its running statistics, which are thrown away."""
    norms = [m for m in net.modules() if getattr(m, "track_running_stats", False)]
    before = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers(recurse=False)]
    for norm, name, buffer in before:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in before:
            setattr(norm, name, buffer)


def recomputed(module: nn.Module, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """``function(*arguments)``, run again in backward instead of keeping its activations (Chen et al. 2016,
    arXiv:1604.06174). Running statistics of ``module`` are updated once.

    Args:
        arguments: tensors among them may be freed and recomputed by another `recomputed` around this one, tensors
            inside of lists may not.
    """
    output: Tensor = checkpoint(
        function, *arguments, use_reentrant=False, context_fn=lambda: (nullcontext(), frozen_statistics(module))
    )
    return output


def recomputable(module: nn.Module, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """``function(*arguments)``, `recomputed` while ``module.recompute`` is true and gradients are recorded.

    For any module whose feature maps `Search` may have recomputed, such as a cell. It sets the attribute:

        >>> class Cell(nn.Module):
        ...     recompute = False
        ...     def forward(self, x):
        ...         return recomputable(self, self.output, x)
    """
    if module.recompute and torch.is_grad_enabled():
        return recomputed(module, function, *arguments)
    return function(*arguments)
