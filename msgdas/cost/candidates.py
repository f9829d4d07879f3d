"""What each candidate of a super-net costs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from msgdas.alphas import Alphas
from msgdas.choice import Choice, choices
from msgdas.quiet import quiet
from msgdas.subgraph import full, select

__all__ = ["candidate_macs"]


def candidate_macs(net: nn.Module, in_channels: int = 3, image_size: int = 32) -> dict[str, Tensor]:
    """Multiply-adds of every candidate of every searched choice, for one image; those of choices that share a name
    added up. What is decided by a choice inside a candidate is counted there and not in the candidate.

    Returns:
        Choice name → ``(O,)`` float64.
    """
    like = next(net.parameters())
    x = torch.zeros(1, in_channels, image_size, image_size, dtype=like.dtype, device=like.device)
    names = {module: name for name, module in net.named_modules()}
    was_training = net.training
    net.eval()
    with (
        torch.no_grad(),
        quiet(net),
        select(net, full(Alphas.of(net).to(like))),
        FlopCounterMode(display=False) as counter,
    ):
        net(x)
    net.train(was_training)
    counts = counter.get_flop_counts()

    def flops(module: nn.Module) -> int:
        return sum(counts.get(f"{type(net).__name__}.{names[module]}", {}).values())

    costs = {}
    for name, same in choices(net).items():
        own = [[flops(candidate) - _decided_inside(candidate, flops) for candidate in c.candidates] for c in same]
        costs[name] = torch.tensor(own, dtype=torch.float64).sum(0) / 2
    return costs


def _decided_inside(module: nn.Module, flops: Callable[[nn.Module], int]) -> int:
    """What the outermost searched choices inside ``module`` cost in all."""
    if isinstance(module, Choice) and module.searched:
        return flops(module)
    return sum(_decided_inside(child, flops) for child in module.children())
