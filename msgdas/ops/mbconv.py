"""Inverted residuals, the blocks of MobileNetV2."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from msgdas.fast.norm import BatchNorm2d

__all__ = ["InvertedResidual", "conv_norm_activation"]


def conv_norm_activation(*args: Any, **options: Any) -> nn.Sequential:
    """torchvision's `Conv2dNormActivation`, with our BatchNorm."""
    from torchvision.ops import Conv2dNormActivation  # here: it takes a second

    return Conv2dNormActivation(*args, norm_layer=BatchNorm2d, **options)


class InvertedResidual(nn.Module):
    """1 × 1 expansion, depthwise convolution, linear 1 × 1 projection, each with BatchNorm (MobileNetV2, Sandler et al.
    2018, arXiv:1801.04381). ``(B, c_in, H, W) → (B, c_out, ⌈H/stride⌉, ⌈W/stride⌉)``.

    Args:
        kernel: side of the depthwise convolution.
        expansion: hidden channels, in multiples of ``c_in``; 1: no expansion convolution.
        activation: after the first two; a new one each.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        expansion: int,
        stride: int = 1,
        *,
        activation: type[nn.Module] = nn.ReLU6,
    ) -> None:
        super().__init__()
        hidden = c_in * expansion
        widen = [conv_norm_activation(c_in, hidden, 1, activation_layer=activation)] if expansion > 1 else []
        self.layers = nn.Sequential(  # the activations are in place: each on its BatchNorm's output, never on x
            *widen,
            conv_norm_activation(hidden, hidden, kernel, stride, groups=hidden, activation_layer=activation),
            conv_norm_activation(hidden, c_out, 1, activation_layer=None),
        )
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y
