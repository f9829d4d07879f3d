"""Multiply-adds of every candidate of a super-net."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from msgdas.alphas import Alphas
from msgdas.choice import Choice
from msgdas.cost.count import count_flops
from msgdas.samplers.softmax import full
from msgdas.supernet import choices, select

__all__ = ["candidate_macs"]


def candidate_macs(net: nn.Module, in_channels: int = 3, image_size: int | tuple[int, int] = 32) -> dict[str, Tensor]:
    """Multiply-adds of every candidate of every searched choice, for one image.

    Choices that share a name are summed. A searched choice inside a candidate counts for itself, not for the candidate.

    Returns:
        Choice name → ``(O,)`` float64.
    """
    with select(net, full(Alphas.of(net).to(next(net.parameters())))):
        counts = count_flops(net, in_channels, image_size)
    names = {module: name for name, module in net.named_modules()}

    def flops(module: nn.Module) -> int:
        return counts.get(f"{type(net).__name__}.{names[module]}", 0)

    costs = {}
    for name, same in choices(net).items():
        own = [[flops(candidate) - _decided_inside(candidate, flops) for candidate in c.candidates] for c in same]
        costs[name] = torch.tensor(own, dtype=torch.float64).sum(0) / 2
    return costs


def _decided_inside(module: nn.Module, flops: Callable[[nn.Module], int]) -> int:
    """Total FLOPs of the outermost searched choices inside ``module``."""
    if isinstance(module, Choice) and module.searched:
        return flops(module)
    return sum(_decided_inside(child, flops) for child in module.children())
