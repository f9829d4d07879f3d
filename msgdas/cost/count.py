"""Parameters and multiply-adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from msgdas.ops.statistics import quiet

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Cost", "count", "count_flops"]


class Cost(NamedTuple):
    """``params``: all parameters. ``macs``: multiply-adds of convolutions and linear layers, bias not counted, one
    image."""

    params: int
    macs: int


def count(network: nn.Module, in_channels: int = 3, image_size: int = 32) -> Cost:
    """Cost of a network without open choices, by ``torch.utils.flop_counter`` / 2. Published figures often count
    otherwise."""
    counter = count_flops(network, in_channels, image_size)
    return Cost(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)


def count_flops(network: nn.Module, in_channels: int, image_size: int) -> FlopCounterMode:
    """The counter of ``torch.utils.flop_counter`` (two for a multiply-add) after one image in evaluation mode."""
    from torch.utils.flop_counter import FlopCounterMode  # here: it imports Triton, which no search step needs

    like = next(network.parameters())
    x = torch.zeros(1, in_channels, image_size, image_size, dtype=like.dtype, device=like.device)
    was_training = network.training
    with torch.no_grad(), quiet(network), FlopCounterMode(display=False) as counter:
        network.eval()(x)
    network.train(was_training)
    return counter
