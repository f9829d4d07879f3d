"""BatchNorm on folded maps computes what PyTorch's does: values, gradients, running statistics."""

from __future__ import annotations

import pytest
import torch
from reference import fast
from torch import nn
from torch.nn import functional as F

from msgdas.fast import norm as norms


def BatchNorm2d(*args, **options):
    return fast(nn.BatchNorm2d(*args, **options))


CLOSE = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def small(monkeypatch):
    """Maps of any size are folded."""
    for name in ("ONE_THREAD", "THREADS"):
        monkeypatch.setattr(norms, name, (64, 1))


@pytest.fixture
def never(monkeypatch):
    monkeypatch.setattr(norms._Folded, "apply", lambda *given: pytest.fail("not here"))


def maps(channels=8, batch=4, side=8, dtype=torch.float64):
    x = 2 * torch.randn(batch, channels, side, side, dtype=dtype) + torch.arange(channels)[:, None, None]
    return x.contiguous(memory_format=torch.channels_last)


def pair(channels, **options):
    ours, theirs = (kind(channels, **options).double() for kind in (BatchNorm2d, nn.BatchNorm2d))
    if ours.affine:
        nn.init.normal_(ours.weight)
        nn.init.normal_(ours.bias)
        theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("channels", [1, 6, 8, 12, 36])
@pytest.mark.parametrize("affine", [True, False])
def test_values_gradients_and_statistics_are_those_of_pytorch(channels, affine):
    x = maps(channels).requires_grad_()
    assert norms._fold(x, None) > 1
    ours, theirs = pair(channels, affine=affine)
    y, like = ours(x), theirs(x)
    assert y.stride() == like.stride()
    torch.testing.assert_close(y, like, **CLOSE)
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, theirs.get_buffer(name), **CLOSE)
    grad = torch.randn(x.shape, dtype=x.dtype)  # contiguous, as a gradient may be
    found = torch.autograd.grad(y, [x, *ours.parameters()], grad)
    wanted = torch.autograd.grad(like, [x, *theirs.parameters()], grad)
    torch.testing.assert_close(found, wanted, **CLOSE)


@pytest.mark.usefixtures("small")
def test_in_float32_it_errs_less_than_pytorchs_own_kernel():
    x = maps(batch=64, side=32, dtype=torch.float32) + 10
    exact = F.batch_norm(x.double(), None, None, training=True)
    ours, theirs = BatchNorm2d(8)(x), nn.BatchNorm2d(8)(x)
    assert (ours - exact).abs().max() <= (theirs - exact).abs().max()


@pytest.mark.usefixtures("small")
def test_only_the_gradients_that_are_asked_for_are_formed(monkeypatch):
    asked = []
    gradients = norms._gradients
    monkeypatch.setattr(norms, "_gradients", lambda *given: asked.append(given[-1]) or gradients(*given))
    x, weight = maps().requires_grad_(), torch.ones(8, dtype=torch.float64, requires_grad=True)
    y = norms.batch_norm(x, None, None, weight, None, 0.1, 1e-5).square().sum()
    y.backward(inputs=[weight])
    assert asked == [False]
    assert x.grad is None


@pytest.mark.usefixtures("small")
def test_second_derivatives_are_right():
    x = maps(3, batch=2, side=4).requires_grad_()
    weight = torch.rand(3, dtype=torch.float64, requires_grad=True)

    def normalised(x, weight):
        return norms.batch_norm(x, None, None, weight, None, 0.1, 1e-3)

    assert torch.autograd.gradcheck(normalised, (x, weight))
    assert torch.autograd.gradgradcheck(normalised, (x, weight))


@pytest.mark.usefixtures("small")
def test_what_follows_may_work_in_place():
    x = maps().requires_grad_()
    ours, theirs = pair(8)
    grads = [torch.autograd.grad(F.relu(norm(x), inplace=True).square().sum(), x)[0] for norm in (ours, theirs)]
    torch.testing.assert_close(*grads, **CLOSE)


@pytest.mark.usefixtures("small", "never")
@pytest.mark.parametrize("how", ["evaluation", "contiguous", "bfloat16", "32 channels", "odd pixels", "plain momentum"])
def test_elsewhere_it_is_pytorchs_own(how):
    ours, theirs = pair(32 if how == "32 channels" else 8, momentum=None if how == "plain momentum" else 0.1)
    x = maps(ours.num_features, batch=1, side=5) if how == "odd pixels" else maps(ours.num_features)
    x = {"contiguous": x.contiguous(), "bfloat16": x.bfloat16()}.get(how, x)
    if how == "bfloat16":
        ours, theirs = ours.float(), theirs.float()
    outputs = [norm.train(how != "evaluation")(x) for norm in (ours, theirs)]
    assert torch.equal(*outputs)


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize(("channels", "batch"), [(8, 15), (16, 32), (64, 32)])
def test_small_maps_and_full_cache_lines_are_left_to_pytorch(channels, batch):
    ours, theirs = pair(channels)
    x = maps(channels, batch, 32)
    assert torch.equal(ours(x), theirs(x))


def test_maps_of_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="4D"):
        BatchNorm2d(8)(torch.zeros(4, 8))
