"""Dense convolutions by the compiled kernels are PyTorch's, forward and backward, where they pay."""

from __future__ import annotations

import pytest
import torch
from reference import a_map, fast, threads
from torch import nn
from torch.nn import functional as F

from msgdas.fast import dense, use_native
from msgdas.fast.combine import _output as output
from msgdas.fast.combine import _summand as summand
from msgdas.fast.combine import sharing
from msgdas.fast.fused import Summand, fused_sum
from msgdas.ops import conv as ops

pytestmark = pytest.mark.usefixtures("kernels")


def dense_conv(*sizes):
    return fast(ops.conv(*sizes))


def relu_conv_bn(*sizes):
    return fast(ops.relu_conv_bn(*sizes))


KERNELS = [(1, 1), (3, 1), (3, 2), (3, 3)]  # sides and strides of dense convolutions that have kernels


SHAPES = [(8, 8, 1, 1), (8, 24, 7, 5), (40, 16, 9, 14)]  # channels in and out, height, width
IMAGES = [(1, 8, 1, 1), (3, 24, 7, 5), (5, 40, 9, 14), (3, 16, 4, 16), (3, 8, 5, 2100)]  # the last one in strips


@pytest.mark.parametrize(
    ("kernel", "stride", "c_in", "c_out", "height", "width"),
    [(*k, *shape) for k in KERNELS for shape in SHAPES + (IMAGES if k[0] == 3 else [])],
)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("number", [1, 3])
def test_a_dense_convolution_and_its_gradients_are_those_of_pytorch(
    kernel, stride, c_in, c_out, height, width, relu, number
):
    conv = dense_conv(c_in, c_out, kernel, stride).double()
    x = torch.randn(4, c_in, height, width, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    assert conv.has_kernel(x)
    with threads(number):
        y = conv.native(x, relu=True) if relu else conv(x)
        grad = torch.randn_like(y)
        found = torch.autograd.grad(y, (x, conv.weight), grad)
    assert type(y.grad_fn).__name__ == "_NativeBackward"
    like = F.conv2d(x.relu() if relu else x, conv.weight, None, stride, kernel // 2)
    wanted = torch.autograd.grad(like, (x, conv.weight), grad)
    for a, b in zip([y, *found], [like, *wanted], strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride"), KERNELS)
@pytest.mark.parametrize(("c_in", "c_out"), [(56, 24), (24, 56), (3, 24)])
def test_columns_that_fill_no_vector_of_float32(kernel, stride, c_in, c_out):
    """Of float64 eight columns fill one."""
    conv, x = dense_conv(c_in, c_out, kernel, stride), a_map(c_in, 7, dtype=torch.float32)
    y = conv.native(x) if conv.has_kernel(x) else conv(x)
    grad = torch.randn_like(y)
    found = torch.autograd.grad(y, (x, conv.weight), grad)
    exact, weight = (t.detach().double().requires_grad_() for t in (x, conv.weight))
    like = F.conv2d(exact, weight, None, stride, kernel // 2)
    wanted = torch.autograd.grad(like, (exact, weight), grad.double())
    for a, b in zip([y, *found], [like, *wanted], strict=True):
        assert torch.allclose(a.double(), b, rtol=1e-4, atol=1e-4)


def a_normalised_convolution(c_in, c_out, side, kernel):
    """In a sum; the leaves, its convolution's weight the first; the same sum by PyTorch."""
    candidate = relu_conv_bn(c_in, c_out, kernel).double()
    (_, conv, norm), x, other = candidate, a_map(c_in, side), a_map(c_out, side)
    gate = torch.rand(3, dtype=torch.float64, requires_grad=True)
    y = F.conv2d(x.relu(), conv.weight, None, 1, kernel // 2)
    like = gate[1] * F.batch_norm(y, None, None, norm.weight, norm.bias, True, 0.0, norm.eps) + other
    found = fused_sum([summand(candidate, x, gate[1]), Summand(other)])
    return found, [conv.weight, x, gate, norm.weight, norm.bias, other], like


@pytest.fixture
def deferred(monkeypatch):
    """Names of kernels, whenever one is given a gradient that it is to compute where it reads it."""
    names = []

    def spy(kernel, *arguments):
        if kernel in ("conv1x1", "conv3x3") and arguments[-4] is not None:
            names.append(kernel)
        run(kernel, *arguments)

    run = dense.run
    monkeypatch.setattr(dense, "run", spy)
    return names


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("c_in", "c_out", "side"), [(8, 8, 8), (8, 24, 6), (40, 16, 9), (16, 64, 4)])
@pytest.mark.parametrize("number", [1, 3])
def test_a_convolution_whose_weight_is_not_asked_for_computes_the_gradient_of_its_map_itself(
    kernel, c_in, c_out, side, number, deferred
):
    with threads(number):
        y, leaves, like = a_normalised_convolution(c_in, c_out, side, kernel)
        grad = torch.randn_like(y)
        for wanting in (leaves[1:], leaves, leaves[1:3], leaves[:1]):  # one graph, of which nothing is left over
            found = torch.autograd.grad(y, wanting, grad, retain_graph=True)
            wanted = torch.autograd.grad(like, wanting, grad, retain_graph=True)
            for a, b in zip(found, wanted, strict=True):
                assert torch.allclose(a, b, rtol=1e-11, atol=1e-11)
    assert deferred == [f"conv{kernel}x{kernel}"] * 2


def test_by_a_backward_too(deferred):
    y, leaves, like = a_normalised_convolution(8, 16, 8, 3)
    grad = torch.randn_like(y)
    torch.autograd.backward(y, grad, inputs=leaves[1:])
    wanted = torch.autograd.grad(like, leaves[1:], grad)
    for leaf, b in zip(leaves[1:], wanted, strict=True):
        assert torch.allclose(leaf.grad, b, rtol=1e-11, atol=1e-11)
    assert leaves[0].grad is None
    assert deferred == ["conv3x3"]


def test_who_watches_a_convolution_sees_its_gradient(deferred):
    candidate, x, seen = relu_conv_bn(8, 8, 3).double(), a_map(8), []
    candidate[1].register_forward_hook(lambda module, args, y: y.register_hook(seen.append) and None)
    y = fused_sum([summand(candidate, x, None), Summand(a_map(8))])
    grad = torch.randn_like(y)
    torch.autograd.grad(y, x, grad)
    of_conv = F.conv2d(x.relu(), candidate[1].weight, None, 1, 1).detach().requires_grad_()
    (wanted,) = torch.autograd.grad(F.batch_norm(of_conv, None, None, *candidate[2].parameters(), True), of_conv, grad)
    assert torch.allclose(seen[0], wanted, rtol=1e-11, atol=1e-11)
    assert not deferred


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "c_in"), [*((*k, 8) for k in KERNELS), (3, 1, 3), (3, 2, 3)])
def test_second_derivatives_of_a_dense_convolution(kernel, stride, c_in, relu):
    conv = dense_conv(c_in, 8, kernel, stride).double()
    x = torch.randn(1, c_in, 2, 3, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    take = lambda x, weight: dense._Native.apply(x, weight, stride, relu)  # noqa: E731
    assert torch.autograd.gradgradcheck(take, (x, conv.weight), fast_mode=True)


def test_a_kernel_takes_the_relu_before_it_in(monkeypatch):
    """To the bit; not where somebody watches the ReLU or the convolution."""
    called = []
    monkeypatch.setattr(nn.ReLU, "forward", lambda s, x: called.append(s) or F.relu(x))
    candidate, x = relu_conv_bn(8, 8, 3), a_map(8, dtype=torch.float32)
    found = []
    for watched in (None, candidate[0], candidate[1]):
        if watched:
            handle = watched.register_forward_hook(lambda *_: None)
        with sharing():
            found.append(output(candidate, x))
        if watched:
            handle.remove()
    assert called == [candidate[0]] * 2
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_winograd_rounds_as_a_direct_convolution_does():
    """With the usual points the error is five times that of PyTorch's own in float32."""
    conv, x = dense_conv(32, 32, 3), a_map(32, 16, dtype=torch.float32)
    like = F.conv2d(x.double(), conv.weight.double(), padding=1)
    ours, theirs = (((y - like).norm() / like.norm()).item() for y in (conv(x), F.conv2d(x, conv.weight, padding=1)))
    assert ours < 4 * theirs


@pytest.mark.parametrize(
    ("c_in", "c_out", "kernel", "stride", "training"),
    [
        (8, 8, 3, 1, False),
        (8, 8, 5, 1, True),
        (8, 8, 1, 2, True),
        (12, 8, 3, 1, True),
        (3, 8, 1, 1, True),
        (8, 12, 3, 1, True),
    ],
)
def test_other_dense_convolutions_are_left_to_pytorch(c_in, c_out, kernel, stride, training):
    conv, x = dense_conv(c_in, c_out, kernel, stride).train(training), a_map(c_in, dtype=torch.float32)
    assert not conv.has_kernel(x)
    assert torch.equal(conv(x), F.conv2d(x, conv.weight, None, conv.stride, conv.padding))


def test_a_wide_weight_that_few_pixels_share_is_left_to_pytorch():
    use_native()
    few, many = a_map(64, 8, dtype=torch.float32), a_map(64, 16, dtype=torch.float32)
    for stride in (1, 2):
        conv = dense_conv(64, 64, 3, stride)
        assert (conv.has_kernel(few), conv.has_kernel(many)) == (False, True)
    assert dense_conv(64, 64, 1).has_kernel(few)


def test_a_dense_convolution_of_what_does_not_fit_says_what_pytorch_says():
    with pytest.raises(RuntimeError, match="expected input"):
        dense_conv(8, 8, 3)(a_map(16, dtype=torch.float32))
    with pytest.raises(RuntimeError, match="scalar type"):
        dense_conv(8, 8, 3)(a_map(8))
