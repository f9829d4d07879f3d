"""Forward passes that leave no trace in the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from msgdas.ops.drop import DropBlockIdentity

__all__ = ["frozen_statistics", "quiet", "tracing"]


def tracing(net: nn.Module) -> list[nn.Module]:
    """The modules that `quiet` is about. To look for them takes a walk over the network, too long for every step."""
    return [module for module in net.modules() if isinstance(module, (_NormBase, DropBlockIdentity))]


@contextmanager
def quiet(net: nn.Module | Sequence[nn.Module], *, drop: bool = False) -> Iterator[None]:
    """Inside, ``net`` in training mode normalises with batch statistics and updates no running statistics.

    Alpha-step, probe, virtual-step and teacher forwards run so. ``drop``: whether DropBlock-Identity stays on.

    Args:
        net: the network, or what `tracing` has found in it.
    """
    norms: list[_NormBase] = []
    drops: list[tuple[DropBlockIdentity, float]] = []
    for module in tracing(net) if isinstance(net, nn.Module) else net:
        if isinstance(module, _NormBase) and module.track_running_stats:
            norms.append(module)
        elif isinstance(module, DropBlockIdentity) and not drop:
            drops.append((module, module.p))
    for norm in norms:
        vars(norm)["track_running_stats"] = False  # nn.Module's own way takes five times as long
    for identity, _ in drops:
        vars(identity)["p"] = 0.0
    try:
        yield
    finally:
        for norm in norms:
            vars(norm)["track_running_stats"] = True
        for identity, p in drops:
            vars(identity)["p"] = p


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Inside, forwards of ``net`` do all that they did before, but update copies of the running statistics."""
    norms = [module for module in net.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    before = [norm._buffers for norm in norms]
    for norm, buffers in zip(norms, before, strict=True):
        norm._buffers = {name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()}
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            norm._buffers = buffers
