"""Parameters and multiply-adds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from msgdas.ops.statistics import quiet

__all__ = ["Cost", "count", "count_flops"]


class Cost(NamedTuple):
    """Cost of a network.

    Attributes:
        params: number of parameters.
        macs: multiply-adds of convolutions and linear layers for one image, without biases.
    """

    params: int
    macs: int


def count(network: nn.Module, in_channels: int = 3, image_size: int | tuple[int, int] = 32) -> Cost:
    """Cost of a network without undecided choices.

    ``image_size`` is the side of a square, or height and width. Multiply-adds are half the FLOPs of
    ``torch.utils.flop_counter``. Published figures are often counted differently.

    Examples:
        >>> count(nn.Conv2d(3, 8, 3, padding=1, bias=False), image_size=32)
        Cost(params=216, macs=221184)
    """
    flops = count_flops(network, in_channels, image_size)
    return Cost(sum(p.numel() for p in network.parameters()), flops.get("Global", 0) // 2)


def count_flops(network: nn.Module, in_channels: int, image_size: int | tuple[int, int]) -> dict[str, int]:
    """FLOPs (two per multiply-add) of one image in evaluation mode, by ``torch.utils.flop_counter``.

    Returns:
        ``"ClassName.path.to.module"`` → FLOPs of that module; ``"Global"`` → their total. Modules without any are
        missing.
    """
    from torch.utils.flop_counter import FlopCounterMode  # lazy: it imports Triton

    like = next(network.parameters())
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    x = torch.zeros(1, in_channels, height, width, dtype=like.dtype, device=like.device)
    was_training = network.training
    with torch.no_grad(), quiet(network), FlopCounterMode(display=False) as counter:
        network.eval()(x)
    network.train(was_training)
    return {name: sum(flops.values()) for name, flops in counter.get_flop_counts().items()}
