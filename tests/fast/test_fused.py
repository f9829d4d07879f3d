"""Sums of maps by the compiled kernels are the plain ones, forward and backward."""

from __future__ import annotations

import pytest
import torch
from reference import a_map, fast, threads
from torch import nn
from torch.nn import functional as F

from msgdas.fast import use_native
from msgdas.fast.fused import Statistics, Summand, fused_sum, fusible

pytestmark = pytest.mark.usefixtures("kernels")
STATISTICS = Statistics(None, None, 0.1, 1e-5)


def a_scalar():
    return torch.rand((), dtype=torch.float64, requires_grad=True)


def plain(summand):
    x, weight, statistics, gamma, beta, _ = summand
    y = x if statistics is None else F.batch_norm(x, None, None, gamma, beta, True, 0.0, statistics.eps)
    return y if weight is None else weight * y


def of_every_kind(channels):
    gamma, beta = (torch.randn(channels, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weights = torch.rand(4, dtype=torch.float64, requires_grad=True)
    return [
        Summand(a_map(channels), a_scalar(), STATISTICS),
        Summand(a_map(channels)),
        Summand(a_map(channels, centre=3.0), a_scalar(), STATISTICS, gamma, beta),
        Summand(a_map(channels), a_scalar()),
        Summand(a_map(channels), None, STATISTICS, gamma, beta),
        Summand(a_map(channels), None, STATISTICS, gamma),
        Summand(a_map(channels), weights[3], STATISTICS),
        Summand(a_map(channels), weights[1]),
        Summand(a_map(channels), torch.tensor(0.3, dtype=torch.float64)),
    ]


def leaves(summands):
    tensors = {id(t): t for s in summands for t in (s.x, s.weight, s.gamma, s.beta) if t is not None}
    return [t for t in tensors.values() if t.requires_grad]


@pytest.mark.parametrize("channels", [1, 3, 4, 8, 12, 32, 36, 64])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("which", [slice(0, 1), slice(4, 5), slice(0, 2), slice(1, 4), slice(6, 8), slice(0, 9)])
def test_a_sum_and_its_gradients_are_those_of_the_plain_one(channels, number, which):
    summands = of_every_kind(channels)[which]
    with threads(number):
        y = fused_sum(summands)
        grad = torch.randn_like(y)
        found = torch.autograd.grad(y, leaves(summands), grad)
    like = sum(map(plain, summands))
    wanted = torch.autograd.grad(like, leaves(summands), grad)
    assert type(y.grad_fn).__name__ == "_SumBackward"
    for a, b in zip([y, *found], [like, *wanted], strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-11)


def test_second_derivatives_are_right():
    x, z, weight = a_map(2, 4), a_map(2, 4), a_scalar()
    gamma = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def of(x, z, weight, gamma):
        weights = torch.stack([weight, weight * 2])
        terms = [Summand(x, weight, STATISTICS, gamma), Summand(z), Summand(z, weight), Summand(x, weights[1])]
        return fused_sum([t._replace(x=t.x.contiguous(memory_format=torch.channels_last)) for t in terms])

    assert torch.autograd.gradcheck(of, (x, z, weight, gamma))
    assert torch.autograd.gradgradcheck(of, (x, z, weight, gamma))


def test_running_statistics_are_those_of_pytorch():
    x = a_map(dtype=torch.float32)
    ours, theirs = fast(nn.BatchNorm2d(4)), nn.BatchNorm2d(4)
    for _ in range(3):
        ours(x), theirs(x)
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, rtol=1e-6, atol=1e-6), name


def test_a_mean_far_from_zero_costs_no_digits():
    x = a_map(8, 16, dtype=torch.float32, centre=1000.0)
    y = fused_sum([Summand(x, None, STATISTICS)])
    exact = F.batch_norm(x.double(), None, None, None, None, True)
    assert (y - exact).abs().max() < 1e-3


def test_what_is_not_a_number_stays_so():
    x = a_map().detach()
    x[1, 2, 3, 4] = torch.nan
    y = fused_sum([Summand(x, None, STATISTICS), Summand(a_map())])
    assert y[:, 2].isnan().all()
    assert not y[:, 1].isnan().any()


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, 4, 8, 8),  # contiguous
        torch.zeros(2, 4, 8, 8, dtype=torch.bfloat16).to(memory_format=torch.channels_last),
        torch.zeros(1, 3, 5, 5).to(memory_format=torch.channels_last),  # rows that do not come out even
        torch.zeros(2, 4),
    ],
)
def test_what_the_kernels_cannot_take_is_left_to_pytorch(x):
    assert not fusible(x)


def test_summands_of_several_shapes_are_added_by_pytorch():
    normalised, odd = Summand(a_map(), a_scalar(), STATISTICS), torch.randn(4, 1, 1, 1, dtype=torch.float64)
    assert torch.allclose(fused_sum([normalised, Summand(odd, None)]), plain(normalised) + odd, rtol=1e-12, atol=1e-12)


def test_small_maps_are_left_to_pytorch():
    use_native()
    assert not fusible(a_map(side=8))
    assert fusible(a_map(side=64))
