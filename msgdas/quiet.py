"""Forward passes that leave no trace in the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from msgdas.ops.drop import DropBlockIdentity

__all__ = ["quiet"]


@contextmanager
def quiet(net: nn.Module, *, drop: bool = False) -> Iterator[None]:
    """Inside, ``net`` in training mode normalises with batch statistics and updates no running statistics.

    Alpha-step, probe, virtual-step and teacher forwards run so. ``drop``: whether DropBlock-Identity stays on.
    """
    norms = [m for m in net.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    drops = [] if drop else [(m, m.p) for m in net.modules() if isinstance(m, DropBlockIdentity)]
    for norm in norms:
        norm.track_running_stats = False
    for module, _ in drops:
        module.p = 0.0
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for module, p in drops:
            module.p = p
