"""DARTS of second order: finite differences, the exact form and no autograd at all, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from reference import alphas_of, searching, seeded, smooth
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import SGD

from msgdas.errors import InputError
from msgdas.samplers import GumbelTopK, Softmax
from msgdas.samplers.softmax import full
from msgdas.search.gradients import AlphaStep, first_order
from msgdas.search.method import Method
from msgdas.search.schedules import linear
from msgdas.search.unrolled import Unrolled
from msgdas.supernet import select


def gradient(alphas):
    logits = [alphas[name] for name in alphas.names]
    grad = torch.cat([torch.zeros_like(p) if p.grad is None else p.grad for p in logits])
    alphas.zero_grad(set_to_none=True)
    return grad


class SecondOrder:
    """One alpha step on `smooth`, the weights with a history of momentum."""

    def __init__(self):
        self.net = smooth()
        self.alphas = alphas_of(self.net)
        generator = seeded(3)
        self.train, self.valid = torch.randn(2, 16, 3, generator=generator).double()
        self.optimizer = SGD(self.net.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-2)
        self.target = torch.randint(3, (16,), generator=generator)
        for _ in range(2):
            self.run(self.train, Softmax()(self.alphas)).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.alphas.zero_grad()

    def run(self, x, subgraphs):
        with select(self.net, subgraphs[0]):
            return self.objective(x)

    def objective(self, x):
        return F.cross_entropy(self.net(x), self.target)

    def by(self, hypergradient, sampler=None):
        draw = (sampler or Softmax())(self.alphas, generator=seeded(5))
        hypergradient(
            AlphaStep(
                self.net,
                self.alphas,
                draw,
                lambda: self.objective(self.valid),
                False,
                lambda: self.objective(self.train),
                self.optimizer,
            )
        )
        return gradient(self.alphas)


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("weight_decay", [False, True])
def test_unrolled_is_the_exact_double_backward(momentum, weight_decay):
    one = SecondOrder()
    exact = one.by(Unrolled(momentum, weight_decay, exact=True))
    given = one.by(Unrolled(momentum, weight_decay, epsilon=1e-4))
    torch.testing.assert_close(given, exact, rtol=1e-6, atol=1e-8)
    assert (exact - one.by(first_order)).abs().max() > 1e-3  # the second order matters here


@pytest.mark.parametrize("momentum", [False, True])
def test_the_exact_form_is_the_numerical_gradient_of_the_unrolled_loss(momentum):
    """No autograd at all: the validation loss after a real step, at alphas a little to either side."""
    one = SecondOrder()
    exact = one.by(Unrolled(momentum, weight_decay=True, exact=True))

    def unrolled_loss():
        twin = copy.deepcopy(one)
        twin.run(twin.train, Softmax()(twin.alphas)).backward()
        if not momentum:
            twin.optimizer.state.clear()
            twin.optimizer.param_groups[0]["momentum"] = 0.0
        twin.optimizer.step()
        return twin.run(twin.valid, Softmax()(twin.alphas)).item()

    numerical = []
    for p in (one.alphas[name] for name in one.alphas.names):
        for i in range(len(p)):
            values = []
            for way in (1e-5, -1e-5):
                with torch.no_grad():
                    p[i] += way
                values.append(unrolled_loss())
                with torch.no_grad():
                    p[i] -= way
            numerical.append((values[0] - values[1]) / 2e-5)
    torch.testing.assert_close(exact, torch.tensor(numerical).double(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("factor", [1.0, 1000.0])
def test_the_finite_difference_is_as_long_however_steep_the_loss_is(factor):
    """The weights move by ``ε v`` with ``ε = 0.01 / ‖v‖`` (Liu et al. 2019, eq. 8), so by 0.01 to either side."""
    one, seen = SecondOrder(), []

    def train():
        seen.append(torch.cat([p.detach().flatten() for p in one.net.parameters()]))
        return one.objective(one.train)

    batches = {"objective": lambda: factor * one.objective(one.valid), "train_objective": train}
    draw = Softmax()(one.alphas)
    Unrolled()(AlphaStep(one.net, one.alphas, draw, weight_optimizer=one.optimizer, **batches))
    here, ahead, behind = seen
    assert (ahead - here).norm().item() == pytest.approx(0.01, rel=1e-9)
    torch.testing.assert_close(ahead - here, here - behind, rtol=1e-9, atol=1e-12)


def test_a_search_looks_ahead_on_its_training_batch_at_the_learning_rate_of_this_step():
    """The alphas' gradient of the last step is ``∂L_valid(w − ξ ∇_w L_train(w, a), a)/∂a``, ξ where the rate ends."""
    net, generator, grads = smooth(), seeded(3), []
    (x, u), (y, v) = torch.randn(2, 16, 3, generator=generator).double(), torch.randint(3, (2, 16), generator=generator)
    method = Method(Softmax(), hypergradient=Unrolled(momentum=False, weight_decay=False, epsilon=1e-4))
    search = searching(net, method, steps=3, weight_lr=linear(0.9, 0.3))
    search.alphas.double()
    search.alpha_optimizer.step = lambda: grads.append([p.grad.clone() for p in search.alphas.parameters()])
    for _ in range(2):
        search.step((x, y), (u, v))
    weights, alphas = dict(net.named_parameters()), list(search.alphas.parameters())
    with select(net, full(search.alphas)):
        slopes = torch.autograd.grad(F.cross_entropy(net(x), y), list(weights.values()), create_graph=True)
        moved = {name: w - 0.3 * slope for (name, w), slope in zip(weights.items(), slopes, strict=True)}
        wanted = torch.autograd.grad(F.cross_entropy(functional_call(net, moved, (u,)), v), alphas)
    search.step((x, y), (u, v))
    for given, gradient in zip(grads[-1], wanted, strict=True):
        torch.testing.assert_close(given, gradient, rtol=1e-5, atol=1e-8)


def test_unrolled_leaves_weights_gradients_and_momentum_as_they_were():
    one = SecondOrder()
    before = copy.deepcopy(one.net.state_dict()), copy.deepcopy(one.optimizer.state_dict())
    one.by(Unrolled())
    one.by(Unrolled(), GumbelTopK(2))
    assert all(torch.equal(one.net.state_dict()[name], value) for name, value in before[0].items())
    assert all(p.grad is None for p in one.net.parameters())
    for i, state in before[1]["state"].items():
        assert torch.equal(one.optimizer.state_dict()["state"][i]["momentum_buffer"], state["momentum_buffer"])


def test_unrolled_says_what_it_needs():
    one = SecondOrder()
    with pytest.raises(InputError, match="Softmax"):
        one.by(Unrolled(exact=True), GumbelTopK(2))
    with pytest.raises(InputError, match="training batch"):
        Unrolled()(AlphaStep(one.net, one.alphas, Softmax()(one.alphas), lambda: one.objective(one.valid)))
