"""The depthwise convolution computes what PyTorch's does, forward and backward, and forms no gradient in vain."""

from __future__ import annotations

import pytest
import torch
from reference import fast
from torch.nn import functional as F

from msgdas.fast import depthwise
from msgdas.fast.depthwise import DepthwiseConv2d
from msgdas.ops import conv as ops


def depthwise_conv(*sizes, **more):
    return fast(ops.depthwise_conv(*sizes, **more))


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(DepthwiseConv2d, "_pays", lambda self, x: self.dilation[0] > 1)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_are_those_of_conv2d(side, kernel, stride, dilation, channels_last):
    conv = depthwise_conv(3, kernel, stride, dilation).double()
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    x = (x.to(memory_format=torch.channels_last) if channels_last else x).requires_grad_()
    y, like = conv(x), F.conv2d(x, conv.weight, None, stride, conv.padding, dilation, 3)
    assert torch.equal(y, like)
    grad = torch.randn_like(y)
    found, wanted = (torch.autograd.grad(out, (x, conv.weight), grad) for out in (y, like))
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("stride", [1, 2])
def test_second_derivatives_are_right(stride):
    conv = depthwise_conv(2, 3, stride, dilation=2).double()
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv, x)
    assert torch.autograd.gradgradcheck(conv, x)


@pytest.mark.usefixtures("always")
def test_a_backward_for_the_input_alone_forms_no_weight_gradient(monkeypatch):
    """As in an alpha step, which asks for gates only."""
    formed = []
    of_weight = depthwise._of_weight
    monkeypatch.setattr(depthwise, "_of_weight", lambda *given: (formed.append(1), of_weight(*given))[1])
    conv, x = depthwise_conv(2, 3, dilation=2), torch.randn(1, 2, 4, 4, requires_grad=True)
    torch.autograd.backward(conv(x).square().sum(), inputs=[x])
    assert not formed
    assert conv.weight.grad is None
    torch.autograd.backward(conv(x).square().sum())
    assert formed
    assert conv.weight.grad is not None


@pytest.mark.usefixtures("always")
def test_a_layer_far_from_the_input_of_a_backward_is_left_out(monkeypatch):
    """The last layer's weights are wanted, the input's gradient is not."""
    conv, x = depthwise_conv(2, 3, dilation=2), torch.randn(1, 2, 4, 4)
    monkeypatch.setattr(depthwise, "_of_input", lambda *given: pytest.fail("the data need no gradient"))
    conv(x).sum().backward()
    assert conv.weight.grad is not None


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "batch", "side", "ours"),
    [
        (3, 2, 2, 64, 16, True),  # halves a large map
        (5, 1, 2, 64, 8, True),  # wider than the map
        (5, 1, 2, 64, 16, False),
        (3, 2, 2, 2, 16, False),  # few pixels
        (5, 2, 1, 64, 16, False),  # not dilated
    ],
)
def test_it_is_ours_where_that_pays(kernel, stride, dilation, batch, side, ours):
    y = depthwise_conv(2, kernel, stride, dilation)(torch.randn(batch, 2, side, side))
    assert ("Dilated" in type(y.grad_fn).__name__) is ours


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("channels", [4, 32, 48])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_gradients_of_the_kernels_are_those_of_conv2d(side, channels, kernel, stride, dilation):
    conv = depthwise_conv(channels, kernel, stride, dilation).double()
    x = torch.randn(8, channels, side, side, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    y = conv(x)
    like = F.conv2d(x, conv.weight, None, stride, conv.padding, dilation, channels)
    assert torch.equal(y, like)
    assert type(y.grad_fn).__name__ == ("_NativeBackward" if kernel > 3 or dilation > 1 else "ConvolutionBackward0")
    grad = torch.randn_like(y)
    wanted = torch.autograd.grad(like, (x, conv.weight), grad)
    for a, b in zip(torch.autograd.grad(y, (x, conv.weight), grad), wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("kernels")
def test_second_derivatives_of_the_kernels_are_right():
    conv = depthwise_conv(2, 3, dilation=2).double()
    x = torch.randn(4, 2, 4, 4, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradcheck(conv, x)
    assert torch.autograd.gradgradcheck(conv, x)
