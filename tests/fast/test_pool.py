"""The average poolings compute what PyTorch's do, forward and backward."""

from __future__ import annotations

import pytest
import torch
from reference import fast, threads
from torch import nn
from torch.nn import functional as F

from msgdas.fast import pool as pooling


@pytest.fixture
def everywhere(monkeypatch):
    monkeypatch.setattr(pooling, "PIXELS", 0)


def plain(stride):
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("shape", [(2, 3, 6, 6), (2, 3, 7, 5), (1, 1, 1, 1), (2, 16, 2, 3)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kernels", [False, True], indirect=True)
def test_values_and_gradients_are_those_of_pytorch(shape, stride, channels_last, kernels):
    x = torch.randn(shape, dtype=torch.float64)
    x = (x.to(memory_format=torch.channels_last) if channels_last else x).requires_grad_()
    y, like = fast(plain(stride))(x), plain(stride)(x)
    torch.testing.assert_close(y, like, rtol=1e-14, atol=1e-14)
    assert y.stride() == like.stride()
    grad = torch.randn_like(y)
    found, wanted = (torch.autograd.grad(out, x, grad)[0] for out in (y, like))
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-14)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernels", [False, True], indirect=True)
def test_second_derivatives_are_right(stride, kernels):
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: fast(plain(stride))(x).square(), x)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("number", [1, 3])
def test_the_kernel_runs_forward_and_backward(kernels, number, monkeypatch):
    used = []
    monkeypatch.setattr(pooling, "run", lambda *given, of=pooling.run: (used.append(given[0]), of(*given)))
    x = torch.randn(5, 12, 9, 7).to(memory_format=torch.channels_last).requires_grad_()
    with threads(number):
        y, like = fast(plain(1))(x), plain(1)(x)
        grad = torch.randn_like(y)
        found, wanted = (torch.autograd.grad(out, x, grad)[0] for out in (y, like))
    assert used == ["pool3x3"] * 2
    torch.testing.assert_close(y, like, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("how", ["evaluation", "autocast", "half", "three dimensions", "few pixels"])
def test_elsewhere_it_is_pytorchs_own(how, monkeypatch):
    monkeypatch.setattr(pooling._Pooled, "apply", lambda *given: pytest.fail("not here"))
    pool, x = fast(plain(1)), torch.randn(2, 3, 4, 4)
    if how != "few pixels":
        monkeypatch.setattr(pooling, "PIXELS", 0)
    x = {"half": x.bfloat16(), "three dimensions": x[0]}.get(how, x)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        y = pool.train(how != "evaluation")(x)
    assert torch.equal(y, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))


# --------------------------------------------------------------------------- 2 × 2


@pytest.mark.parametrize("shape", [(2, 8, 6, 4), (3, 24, 2, 10), (2, 8, 7, 5), (2, 12, 4, 4)])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("kernels", [False, True], indirect=True)
def test_halving_is_pytorchs(shape, channels_last, number, kernels):
    x = torch.randn(shape, dtype=torch.float64)
    x = (x.to(memory_format=torch.channels_last) if channels_last else x).requires_grad_()
    with threads(number):
        y, like = fast(nn.AvgPool2d(2))(x), F.avg_pool2d(x, 2)
        grad = torch.randn_like(y)
        found, wanted = (torch.autograd.grad(out, x, grad)[0] for out in (y, like))
    by_kernel = kernels and channels_last and shape in ((2, 8, 6, 4), (3, 24, 2, 10))
    assert (type(y.grad_fn).__name__ == "_HalvedBackward") == by_kernel
    torch.testing.assert_close(y, like, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-14)
    assert y.stride() == like.stride()


def test_halving_in_float32_and_with_a_gradient_in_the_other_layout(kernels):
    x = torch.randn(5, 16, 8, 6).to(memory_format=torch.channels_last).requires_grad_()
    y, like = fast(nn.AvgPool2d(2))(x), F.avg_pool2d(x, 2)
    grad = torch.randn(like.shape)
    found, wanted = (torch.autograd.grad(out, x, grad)[0] for out in (y, like))
    torch.testing.assert_close(y, like, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_second_derivatives_of_halving_are_right(kernels):
    x = torch.randn(1, 8, 4, 2, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: fast(nn.AvgPool2d(2))(x).square(), x)


def test_in_evaluation_halving_is_pytorchs_own(kernels):
    x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    assert type(fast(nn.AvgPool2d(2)).eval()(x).grad_fn).__name__ == "AvgPool2DBackward0"
