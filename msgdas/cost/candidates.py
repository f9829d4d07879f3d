"""What each candidate of a super-net costs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from msgdas.alphas import Alphas
from msgdas.choice import all_choices
from msgdas.quiet import quiet
from msgdas.subgraph import full, select

__all__ = ["candidate_macs"]


def candidate_macs(net: nn.Module, in_channels: int = 3, image_size: int = 32) -> dict[str, Tensor]:
    """Multiply-adds of every candidate of every searched choice, for one image; those of choices that share a name
    added up.

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
    costs = {}
    for name, same in all_choices(net).items():
        if same[0].searched:
            keys = [[f"{type(net).__name__}.{names[m]}" for m in choice.candidates] for choice in same]
            flops = [[sum(counts.get(key, {}).values()) for key in row] for row in keys]
            costs[name] = torch.tensor(flops, dtype=torch.float64).sum(0) / 2
    return costs
