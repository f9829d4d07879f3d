"""Inverted residuals, the blocks of MobileNetV2."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["InvertedResidual"]


class InvertedResidual(nn.Module):
    """1 × 1 expansion, depthwise convolution, linear 1 × 1 projection, each with BatchNorm (MobileNetV2, Sandler et al.
    2018, arXiv:1801.04381). ``(B, c_in, H, W) → (B, c_out, ⌈H/stride⌉, ⌈W/stride⌉)``.

    Args:
        kernel: side of the depthwise convolution.
        expansion: hidden channels as a multiple of ``c_in``; 1: no expansion convolution.
        activation: class of the activation after the first two.
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
        from torchvision.ops import Conv2dNormActivation  # here: importing torchvision takes a second

        super().__init__()
        hidden = c_in * expansion
        widen = [Conv2dNormActivation(c_in, hidden, 1, activation_layer=activation)] if expansion > 1 else []
        self.layers = nn.Sequential(  # the activations are in place, but on a BatchNorm's output, never on x
            *widen,
            Conv2dNormActivation(hidden, hidden, kernel, stride, groups=hidden, activation_layer=activation),
            Conv2dNormActivation(hidden, c_out, 1, activation_layer=None),
        )
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y
