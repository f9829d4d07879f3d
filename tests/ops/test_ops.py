"""Operations: one contract for all of them."""

from __future__ import annotations

import copy

import pytest
import torch

from msgdas import ops

C = 8
EVERY = {  # name → factory of (stride) that keeps the channels
    "relu_conv_bn": lambda stride: ops.relu_conv_bn(C, C, 3, stride),
    "sep_conv": lambda stride: ops.sep_conv(C, 3, stride),
    "dil_conv": lambda stride: ops.dil_conv(C, 5, stride),
    "wide_conv": lambda stride: ops.wide_conv(C, 7, stride),
    "FactorizedReduce": lambda stride: ops.FactorizedReduce(C, C) if stride == 2 else None,
    "InvertedResidual": lambda stride: ops.InvertedResidual(C, C, 3, 3, stride),
    "PartialChannels": lambda stride: ops.PartialChannels(ops.sep_conv(C // 4, 3, stride), 4, stride),
    "Projection": lambda stride: ops.Projection(C, C, stride),
    "DropBlockIdentity": lambda stride: ops.DropBlockIdentity(0.3) if stride == 1 else None,
    "Noise": lambda stride: ops.Noise(stride),
    "Zero": lambda stride: ops.Zero(stride),
}


def test_every_operation_keeps_the_contract():
    assert set(EVERY) == set(ops.__all__), "add it to EVERY"


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", EVERY)
def test_contract(name, stride, size):
    """Candidates agree in shape and share their input, so it must stay as it is; recomputing gives the same."""
    torch.manual_seed(0)
    op = EVERY[name](stride)
    if op is None:
        pytest.skip(f"not for stride {stride}")
    x = torch.randn(2, C, size, size, requires_grad=True)
    given = x.detach().clone()
    twin = copy.deepcopy(op)
    state = torch.get_rng_state()
    y = op(x)
    side = (size + stride - 1) // stride
    assert y.shape == (2, C, side, side)
    if y.requires_grad:
        (y * torch.randn_like(y)).sum().backward()
        assert x.grad.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in op.parameters())
    assert torch.equal(x, given)
    torch.set_rng_state(state)
    assert torch.equal(twin(given), y)
