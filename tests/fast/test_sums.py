"""Weighted sums of maps: values and gradients are those of the formula, also where one is wider than the other."""

from __future__ import annotations

import pytest
import torch

from msgdas.fast.sums import inner, plus, times


def tensors(*shapes):
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("wide", [1, 3], ids=["broadcast", "alike"])
@pytest.mark.parametrize("learns", [False, True])
def test_a_weighted_sum_and_its_gradients_are_those_of_the_formula(learns, wide, channels_last):
    first, y, weight, other = tensors((2, 3, 4, 4), (2, wide, 4, 4), (), ())
    weight.requires_grad_(learns)
    leaves = [t for t in (first, y, weight, other) if t.requires_grad]
    given = [t.to(memory_format=torch.channels_last) if channels_last and t.dim() == 4 else t for t in (first, y)]
    total = plus(plus(None, given[0], other), given[1], weight)
    torch.testing.assert_close(total, other * first + weight * y, rtol=1e-14, atol=1e-14)
    grad = torch.randn_like(total)
    found = torch.autograd.grad(total, leaves, grad)
    wanted = torch.autograd.grad(other * first + weight * y, leaves, grad)
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)


def test_second_derivatives_are_right():
    assert torch.autograd.gradgradcheck(
        lambda x, y, a, b: plus(plus(None, x, a), y, b).square(), tensors((1, 2, 3, 3), (1, 2, 3, 3), (), ())
    )


def test_the_sum_is_made_in_the_memory_of_the_total():
    x, y, weight = tensors((1, 2, 3, 3), (1, 2, 3, 3), ())
    total = plus(None, x, weight)
    assert plus(total, y, weight).data_ptr() == total.data_ptr()


def test_only_what_is_asked_for_is_computed(monkeypatch):
    x, y, weight = tensors((1, 2, 3, 3), (1, 2, 3, 3), ())
    total = plus(plus(None, x, weight), y, weight).sum()
    monkeypatch.setattr("msgdas.fast.sums.inner", lambda *given: pytest.fail("no gate's gradient was asked for"))
    torch.autograd.backward(total, inputs=[x, y])
    torch.testing.assert_close(x.grad, weight.detach().expand_as(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    a = torch.full((1, 4, 64, 64), 1.0, dtype=dtype)
    assert inner(a, a).dtype is torch.float32
    assert inner(a, a) == a.numel()


def test_a_weight_of_one_costs_no_copy_and_has_its_gradient():
    y, _ = tensors((1, 2, 3, 3), ())
    one, half = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (1.0, 0.5))
    assert times(one, y).data_ptr() == y.data_ptr() != times(half, y).data_ptr()
    for weight in (one, half):
        assert torch.autograd.gradcheck(lambda y: times(weight, y), y)  # noqa: B023
        found, wanted = (torch.autograd.grad(z.square().sum(), (y, weight)) for z in (times(weight, y), weight * y))
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    for product in (times(one, y), one * y):  # differentiated twice
        of_y, of_weight = torch.autograd.grad(product.pow(3).sum(), (y, one), create_graph=True)
        twice = torch.autograd.grad(of_y.square().sum() + of_weight, (y, one))
        torch.testing.assert_close(twice[0], 36 * y**3 + 9 * y**2, rtol=1e-12, atol=1e-12)
