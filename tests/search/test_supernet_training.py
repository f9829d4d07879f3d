"""The super-net that learns next to its sub-graphs: what one weight step computes, written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from reference import change, searching, seeded
from torch import nn
from torch.nn import functional as F

from msgdas import methods
from msgdas.choice import MixedOp
from msgdas.errors import InputError
from msgdas.fast import speed_up
from msgdas.ops import DropBlockIdentity
from msgdas.ops.statistics import quiet, recomputable
from msgdas.samplers import GumbelSoftmax, GumbelTopK
from msgdas.samplers.softmax import full
from msgdas.search.guidance import SuperNetGuidance, distillation
from msgdas.search.method import Method
from msgdas.search.schedules import linear
from msgdas.search.supernet_training import RECOMPUTE, SuperNetTraining
from msgdas.spaces import darts, nasbench201, toy
from msgdas.supernet import select

SPACES = {
    "nasbench201": lambda: nasbench201.supernet(channels=4, cells=2, classes=3, image_size=8),
    "darts": lambda: darts.supernet(channels=4, cells=3, classes=3, image_size=16),
}
Y = torch.tensor([0, 1, 2, 0])
DROP = 0.3


def a_search(space="nasbench201", fast=False, *, method=None, **settings):
    torch.manual_seed(0)
    net = SPACES[space]().double()
    if fast:
        speed_up(net)
    method = method or Method(GumbelTopK(2), learning="none", drop=DROP, clip=1e9)
    search = searching(net, method, steps=settings.pop("steps", 2), **settings)
    search.alphas.double()
    with torch.no_grad():
        for p in search.alphas.parameters():
            p.add_(torch.randn(len(p), generator=seeded(2)))
    return search


def images(space="nasbench201"):
    side = 16 if space == "darts" else 8
    return torch.randn(4, 3, side, side, generator=seeded()).double()


def gradients_of(search, batch):
    """The weight gradients that a step would move by, and the running statistics after it."""
    found = {}
    search.weight_optimizer.step = lambda: found.update(gradients(search.net))
    means = search.step(batch, None)
    return found | {name: buffer.clone() for name, buffer in search.net.named_buffers()}, means


def gradients(net):
    return {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (value is None) == (found[name] is None), name
        if value is not None:
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12, msg=lambda m, n=name: n + m)


def written_out(search, batch, *, drop, weight, guidance=0.0):
    """``weight · L(super-net) + mean of L(sub-graph) + guidance · distillation``: gradients and running statistics."""
    net, (x, y) = search.net, batch
    for module in net.modules():
        if isinstance(module, DropBlockIdentity):
            module.p = DROP
    with torch.no_grad():
        gates, drawn = full(search.alphas), search.draw(search.method.weight_sampler)
    with quiet(net, drop=drop), select(net, gates):
        teacher = net(x)
        (weight * F.cross_entropy(teacher, y)).backward()
    for subgraph in drawn:
        with select(net, subgraph):
            logits = net(x)
            loss = F.cross_entropy(logits, y) + guidance * distillation(logits, teacher.detach())
            (loss / len(drawn)).backward()
    return gradients(net) | {name: buffer.clone() for name, buffer in net.named_buffers()}


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("recompute", "drop"), [(r, d) for r in RECOMPUTE for d in (False, True)])
def test_a_weight_step_is_its_formula(space, recompute, drop, fast):
    """Whatever is recomputed: the same gradients, masks of DropBlock and running statistics. One pass also teaches."""
    batch = images(space), Y
    search = a_search(
        space,
        fast,
        guidance=SuperNetGuidance(0.7),
        supernet_training=SuperNetTraining(0.5, drop, recompute),
    )
    torch.manual_seed(5)
    found, _ = gradients_of(search, batch)
    torch.manual_seed(5)
    plain = a_search(space)
    torch.manual_seed(5)
    wanted = written_out(plain, batch, drop=drop, weight=0.5, guidance=0.7)
    assert_same(found, wanted)


def test_every_candidate_with_weights_gets_a_gradient():
    search = a_search(supernet_training=SuperNetTraining())
    found, _ = gradients_of(search, (images(), Y))
    assert all(found[name] is not None for name, _ in search.net.named_parameters())
    without, _ = gradients_of(a_search(), (images(), Y))
    assert any(without[name] is None for name, _ in search.net.named_parameters())


@pytest.mark.parametrize("learning", ["alternate", "joint", "none"])
def test_the_alphas_learn_nothing_from_it(learning):
    found = []
    for training in (None, SuperNetTraining()):
        sampler = GumbelSoftmax() if learning == "joint" else GumbelTopK(2)
        search = a_search(method=Method(sampler, learning=learning, weight_lr=1e-9), supernet_training=training)
        start = [p.detach().clone() for p in search.alphas.parameters()]
        batch = images(), Y
        search.step(batch, batch)
        found.append([p.detach() - s for p, s in zip(search.alphas.parameters(), start, strict=True)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert any(move.any() for move in found[0]) == (learning != "none")


def test_gates_are_uniform_in_the_warm_up_and_probabilities_afterwards():
    net, answer, weight = toy.problem(0)
    method = methods.msgdas(k=2, guidance=1.0, supernet_weight=1.0)
    search, seen = searching(net, method, warmup=0.5, steps=2, alpha_lr=0.0), []
    with torch.no_grad():
        search.alphas["part/0"].copy_(torch.tensor([2.0, 0.0, -1.0, 0.5]))
    net.register_forward_hook(lambda *_: seen.append(net.mixed[0].gate))
    data = toy.batches(answer, weight)
    told = [search.step(next(data), next(data)) for _ in range(2)]
    runs = [gate.weights for gate in seen if len(gate.active) == 4]  # once a step: the pass that learns also teaches
    torch.testing.assert_close(
        torch.stack(runs), torch.stack([torch.full((4,), 0.25), search.alphas["part/0"].softmax(-1)])
    )
    assert not any(run.requires_grad for run in runs)
    assert ["teacher_accuracy" in each for each in told] == [False, True]
    assert all({"supernet_loss", "supernet_accuracy"} <= each.keys() for each in told)
    assert told[1]["teacher_accuracy"] == told[1]["supernet_accuracy"]


def test_a_prior_holds_in_the_warm_up_too():
    net, answer, weight = toy.problem(0)
    search = searching(net, methods.msgdas(k=2, supernet_weight=1.0), warmup=1.0, steps=2)

    class Sure:
        def begin(self, alphas):
            pass

    change(search, prior=Sure())
    with torch.no_grad():
        search.alphas["part/0"].copy_(torch.tensor([2.0, 0.0, -1.0, 0.5]))
    seen = []
    net.register_forward_hook(lambda *_: seen.append(net.mixed[0].gate))
    search.step(next(toy.batches(answer, weight)), None)
    torch.testing.assert_close(seen[0].weights, search.alphas["part/0"].softmax(-1).detach())


def test_its_weight_is_read_on_the_whole_search_and_nothing_runs_at_zero():
    net, answer, weight = toy.problem(0)
    schedule = SuperNetTraining(lambda progress: max(0.0, 1.0 - 2 * progress))
    method = replace(methods.msgdas(k=2, guidance=1.0), supernet_training=schedule, warmup=0.2)
    search, forwards, data = searching(net, method, steps=5), [], toy.batches(answer, weight)
    net.register_forward_hook(
        lambda *_: forwards.append(torch.is_grad_enabled() and len(net.mixed[0].gate.active) == 4)
    )
    trained = []
    for _ in range(5):
        forwards.clear()
        means = search.step(next(data), next(data))
        trained.append(sum(forwards))
        assert ("supernet_loss" in means) == (trained[-1] == 1)
    assert trained == [1, 1, 0, 0, 0]
    assert "teacher_accuracy" in means  # an untrained teacher then


def test_its_loss_is_weighed_and_accumulated():
    """Twice the weight is twice the super-net's part of the gradient, whatever the schedule."""
    found = []
    for weight in (None, 1.0, linear(2.0, 0.0)):
        training = weight and SuperNetTraining(weight)
        found.append(gradients_of(a_search(supernet_training=training, drop=0.0), (images(), Y))[0])
    none, once, twice = ({n: g for n, g in each.items() if n.startswith("classifier")} for each in found)
    for name in none:
        torch.testing.assert_close(twice[name] - none[name], 2 * (once[name] - none[name]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_only_this_pass_recomputes_even_if_it_fails(recompute):
    class Cell(nn.Module):
        recompute = False

        def __init__(self):
            super().__init__()
            self.choice = MixedOp("c", {"a": nn.Linear(3, 3), "b": nn.Identity(), "c": nn.Tanh()})

        def forward(self, x):
            seen.append((len(self.choice.gate.active), self.choice.recompute, self.recompute))
            return recomputable(self, self.choice, x)

    seen, net = [], nn.Sequential(Cell(), nn.Linear(3, 2))
    batch = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    method = methods.msgdas(k=1, supernet_weight=1.0, supernet_recompute=recompute)
    search = searching(net, method, warmup=1.0)
    search.step(batch, None)
    assert seen == [(3, recompute != "none", recompute == "cell"), (1, False, False)]
    search.loss = lambda logits, labels: 1 / 0
    with pytest.raises(ZeroDivisionError):
        search.step(batch, None)
    assert (net[0].recompute, net[0].choice.recompute) == (False, False)


@pytest.mark.parametrize(
    ("settings", "line"),
    [({"weight": 0.0}, "weight=0.0"), ({"recompute": "all"}, "'all' of the super-net's pass: use none, choice, cell")],
)
def test_values_that_make_no_sense_are_one_line(settings, line):
    with pytest.raises(InputError, match=line):
        SuperNetTraining(**settings)


def test_a_super_net_that_diverges_is_named():
    search = a_search(supernet_training=SuperNetTraining())
    losses = iter([float("nan"), 1.0, 1.0])
    search.loss = lambda logits, labels: F.cross_entropy(logits, labels) * next(losses)
    with pytest.raises(InputError, match="supernet_loss is not a number"):
        search.step((images(), Y), None)
