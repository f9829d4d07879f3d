"""The engine: what a step may touch, what it must not, and in which order things happen."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import replace

import pytest
import torch
from reference import change, every_edge, searching
from torch import nn
from torch.nn import functional as F

from msgdas import methods
from msgdas.choice import MixedOp
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.ops import DropBlockIdentity
from msgdas.samplers import Fixed
from msgdas.samplers.softmax import full
from msgdas.search.comparing import compare
from msgdas.search.gradients import first_order, probed
from msgdas.search.guidance import SuperNetGuidance, distillation
from msgdas.search.method import Method
from msgdas.search.optimizers import SGD
from msgdas.search.schedules import at, cosine, linear
from msgdas.search.search import Search
from msgdas.spaces import nasbench201, toy
from msgdas.subgraph import Gate, SubGraph
from msgdas.supernet import choices, select

PLAIN = SGD(momentum=0.0, nesterov=False, weight_decay=0.0)
BATCH = (torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)
CONVS = {"nor_conv_1x1", "nor_conv_3x3"}


def supernet():
    return nasbench201.supernet(channels=4, cells=1, classes=3, image_size=8)


def everywhere(op):
    return Fixed(Genotype("nasbench201", {f"cell/{s}-{t}": op for s, t in nasbench201.EDGES}))


def norms(net):
    """Every BatchNorm with the choice and candidate it belongs to, if any."""
    owner = {}
    for name, same in choices(net).items():
        for choice in same:
            for i, candidate in enumerate(choice.candidates):
                owner |= dict.fromkeys(candidate.modules(), (name, i))
    return [(m, owner.get(m)) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


class Recorded:
    """A sampler that remembers what it drew."""

    def __init__(self, sampler):
        self.sampler, self.drawn = sampler, []

    def __call__(self, alphas, *, tau=1.0, generator=None):
        self.drawn += (drawn := self.sampler(alphas, tau=tau, generator=generator))
        return drawn


class Heard:
    """A guidance that remembers what it was given and asks for nothing."""

    weight_step = alpha_step = True

    def __init__(self):
        self.given = []

    def __call__(self, student, teacher, progress):
        self.given.append((teacher, progress))
        return 0 * student.sum()


def flat(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


# which batch teaches whom


@pytest.mark.parametrize("name", [name for name, make in methods.METHODS.items() if make().learning == "alternate"])
def test_alphas_learn_from_the_validation_batch_and_weights_from_the_training_batch(name):
    """Only second order looks at the training batch too, in its virtual step."""
    _, answer, weight = toy.problem(0)
    data = toy.batches(answer, weight)
    train, valid, other = next(data), next(data), next(data)

    def learned(train, valid, alpha_lr):
        torch.manual_seed(0)
        settings = {"alpha_lr": alpha_lr, "alpha_optimizer": PLAIN, "warmup": 0.0}
        search = searching(toy.problem(0)[0], methods.METHODS[name](), **settings)
        search.step(train, valid)
        return flat(search.net), flat(search.alphas)

    _, alphas = learned(train, valid, 1.0)
    assert not torch.equal(learned(train, other, 1.0)[1], alphas)
    assert torch.equal(learned(other, valid, 1.0)[1], alphas) == (name != "darts-2nd")
    weights, _ = learned(train, valid, 0.0)  # else they would follow the validation batch through the alphas
    assert torch.equal(learned(train, other, 0.0)[0], weights)
    assert not torch.equal(learned(other, valid, 0.0)[0], weights)


# what a step touches


@pytest.mark.parametrize("gradient", ["compare", "probed", "picked"])
def test_only_weight_steps_of_modules_that_ran_reach_running_statistics(gradient, monkeypatch):
    """Teacher, alpha step, probes and evaluation leave BatchNorm alone; DropBlock is on only in the weight step."""
    monkeypatch.setattr(nasbench201.Cell, "_incoming", every_edge)  # all that is drawn runs
    net = supernet()
    method = methods.msgdas(k=2, gradient=gradient, guidance=1.0, guide_alpha_steps=True)
    recorded = Recorded(method.sampler)
    search = searching(net, method, weight_sampler=recorded, warmup=0, steps=3, drop=0.5)
    for _ in range(2):
        search.step(BATCH, BATCH)
    search.evaluate(search.derive(), [BATCH])
    for norm, place in norms(net):
        drawn = recorded.drawn
        ran = len(drawn) if place is None else sum(s[place[0]].active == (place[1],) for s in drawn)
        assert norm.num_batches_tracked == ran
        assert bool((norm.running_var != 1).any()) == (ran > 0)
        assert norm.track_running_stats


@pytest.mark.parametrize("hypergradient", [first_order, probed, compare])
def test_an_alpha_step_changes_only_alphas(hypergradient):
    net, seen = supernet(), []
    drops = [m for m in net.modules() if isinstance(m, DropBlockIdentity)]
    params = dict(net.named_parameters())

    def spy(step):
        before = {name: value.clone() for name, value in net.state_dict().items()}
        assert all(m.p == 0 for m in drops)
        hypergradient(step)
        assert all(p.grad is None for p in params.values())
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        seen.append({name: p.grad for name, p in step.alphas.logits.items()})

    method = methods.msgdas(k=2, guidance=1.0)
    search = searching(net, method, warmup=0, hypergradient=spy, steps=1, drop=0.5, drop_in_alpha_steps=False)
    start = {name: p.detach().clone() for name, p in search.alphas.logits.items()}
    search.step(BATCH, BATCH)
    assert len(seen) == 1
    assert all(m.p == 0.5 for m in drops)
    for name, p in search.alphas.logits.items():
        assert p.grad is None
        assert not torch.equal(p, start[name])
    assert all(p.grad is None for p in params.values())


def test_drop_block_in_alpha_steps_is_an_argument():
    for drop_in_alpha_steps, wanted in ((False, 0.0), (True, 0.25)):
        net, seen = supernet(), []
        drop = next(m for m in net.modules() if isinstance(m, DropBlockIdentity))
        settings = {"drop": 0.25, "drop_in_alpha_steps": drop_in_alpha_steps, "warmup": 0}
        spy = lambda step, seen=seen, d=drop: seen.append(d.p)  # noqa: E731
        search = searching(net, methods.msgdas(k=2), hypergradient=spy, **settings)
        search.step(BATCH, BATCH)
        assert seen == [wanted]


@pytest.mark.parametrize("parallel", [False, True])
def test_weights_that_did_not_run_are_not_changed_even_by_momentum_and_decay(parallel):
    net = supernet()
    search = searching(net, methods.random(), weight_sampler=everywhere("nor_conv_3x3"), steps=4, parallel=parallel)
    for _ in range(2):  # momentum builds up
        search.step(BATCH, None)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    change(search, weight_sampler=everywhere("nor_conv_1x1"))
    search.step(BATCH, None)
    changed = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    owner = {p: place for m, place in conv_places(net) for p in m.parameters()}
    wanted = {name for name, p in net.named_parameters() if owner.get(p, ("", 2))[1] == 2}
    assert changed == wanted
    assert len(wanted) < len(before)


def conv_places(net):
    return [
        (m, (name, i))
        for name, same in choices(net).items()
        for choice in same
        for i, candidate in enumerate(choice.candidates)
        for m in candidate.modules()
        if isinstance(m, nn.Conv2d)
    ]


def test_parallel_search_is_the_same_search():
    found = []
    for parallel in (False, True):
        torch.manual_seed(0)
        net, answer, weight = toy.problem(0)
        method = methods.msgdas(k=3, gradient="probed", guidance=1.0)
        search = searching(net.double(), method, warmup=0.2, steps=10, parallel=parallel)
        search.alphas.double()
        data = toy.batches(answer, weight)
        for _ in range(10):
            (x, y), (u, v) = next(data), next(data)
            search.step((x.double(), y), (u.double(), v))
        found.append([*net.parameters(), *search.alphas.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_evaluate_is_the_accuracy_of_the_subgraph_and_leaves_the_mode_alone():
    net, answer, weight = toy.problem(1)
    search = Search(net, methods.darts())
    x, y = next(toy.batches(answer, weight))
    net.eval()
    (subgraph,) = Fixed(answer)(search.alphas)
    with select(net, subgraph):
        wanted = int((net(x).argmax(1) == y).sum()) / len(y)
    assert search.evaluate(answer, [(x, y)]) == wanted
    assert not net.training


def test_penalties_reach_the_alphas():
    def sharp(alphas):
        return sum(p.square().sum() for p in alphas.parameters())

    net, answer, weight = toy.problem(0)
    data = toy.batches(answer, weight)
    grads = []
    for penalties in ((), (sharp,)):
        search = searching(net, methods.msgdas(k=2), warmup=0, penalties=penalties)
        search.alpha_optimizer.step = lambda s=search: grads.append(
            {n: p.grad.clone() for n, p in s.alphas.logits.items()}
        )
        torch.manual_seed(0)
        batch = next(toy.batches(answer, weight))
        change(search, hypergradient=lambda step: sum(p.sum() for p in step.alphas.parameters()).backward())
        search.step(next(data), batch)
    for name, p in search.alphas.logits.items():
        torch.testing.assert_close(grads[1][name] - grads[0][name], 2 * p.detach())


# warm-up and schedules


def test_warm_up_trains_weights_only_and_draws_uniformly():
    net, answer, weight = toy.problem(0)
    search = searching(net, methods.msgdas(k=2), warmup=0.5, steps=8, tau=linear(10.0, 1.0))
    start = {name: p.detach().clone() for name, p in search.alphas.logits.items()}
    calls, sampler = [], search.method.sampler

    def spy(alphas, *, tau, generator):
        calls.append((tau, all(not p.any() for p in alphas.parameters())))
        return sampler(alphas, tau=tau, generator=generator)

    change(search, sampler=spy, weight_sampler=spy, warmup_sampler=spy)
    data = toy.batches(answer, weight)
    for step in range(8):
        assert search.warming_up == (step < 4)
        assert all(torch.equal(search.alphas[n], start[n]) for n in start) == (step <= 4)
        record = search.step(next(data), next(data))
        assert ("valid_loss" in record) == (step >= 4)
    assert calls[:4] == [(1.0, True)] * 4
    assert [tau for tau, _ in calls[4:]] == pytest.approx([10, 10, 7, 7, 4, 4, 1, 1])
    assert not any(flat for _, flat in calls[4:])


def test_schedules_go_from_start_to_end():
    for schedule in (linear(3.0, 1.0), cosine(3.0, 1.0)):
        assert [at(schedule, 0.0), at(schedule, 0.5), at(schedule, 1.0)] == pytest.approx([3, 2, 1])
    assert at(0.3, 0.7) == 0.3
    with pytest.raises(InputError, match="warmup=-1"):
        replace(methods.darts(), warmup=-1)


@pytest.mark.parametrize("name", ["darts", "snas"])
def test_learning_rates_follow_their_schedules_over_the_whole_search(name):
    net, answer, weight = toy.problem(0)
    rates = {"weight_lr": linear(0.5, 0.1), "alpha_lr": linear(1.0, 0.0)}
    search, seen = searching(net, methods.METHODS[name](), warmup=0.4, steps=5, **rates), {"weights": [], "alphas": []}
    for part, optimizer in (("weights", search.weight_optimizer), ("alphas", search.alpha_optimizer)):
        optimizer.register_step_pre_hook(lambda o, *_, part=part: seen[part].append(o.param_groups[0]["lr"]))
    data = toy.batches(answer, weight)
    for _ in range(5):
        search.step(next(data), next(data))
    assert seen["weights"] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])
    assert seen["alphas"] == pytest.approx([0.5, 0.25, 0.0])


@pytest.mark.parametrize("in_alpha_steps", [False, True])
def test_dropblock_follows_its_schedule_over_the_whole_search(in_alpha_steps):
    """In every weight step, warm-up or not; in alpha steps only if asked for."""
    net, seen = supernet(), []
    identity = next(m for m in net.modules() if isinstance(m, DropBlockIdentity))
    identity.register_forward_pre_hook(lambda module, _: seen.append(module.p))
    settings = {"drop": linear(0.8, 0.0), "drop_in_alpha_steps": in_alpha_steps, "warmup": 0.4}
    search = searching(net, methods.darts(), steps=5, **settings)
    for _ in range(5):
        search.step(BATCH, BATCH)
    first, second = (0.4, 0.2) if in_alpha_steps else (0.0, 0.0)
    assert seen == pytest.approx([0.8, 0.6, first, 0.4, second, 0.2, 0.0, 0.0])


@pytest.mark.parametrize("clip", [0.5, 1e9])
def test_a_step_of_the_weights_is_no_longer_than_the_clip(clip):
    net, answer, weight = toy.problem(0)
    x, y = next(toy.batches(answer, weight))
    x, net = x.double(), net.double()

    def steep(logits, labels):
        return 9 * F.cross_entropy(logits, labels)

    settings = {"loss": steep, "clip": clip, "weight_lr": 1.0, "weight_optimizer": PLAIN}
    search = searching(net, Method(Fixed(answer), learning="none"), **settings)
    with select(net, Fixed(answer)(search.alphas)[0]):
        slopes = torch.autograd.grad(steep(net(x), y), list(net.parameters()))
    gradient, before = torch.cat([slope.flatten() for slope in slopes]), flat(net)
    assert gradient.norm() > 1
    search.step((x, y), None)
    wanted = gradient * min(1.0, clip / gradient.norm().item())
    torch.testing.assert_close(before - flat(net), wanted, rtol=1e-6, atol=1e-12)


# guidance


def test_distillation_is_its_formula_and_zero_for_the_teacher_itself():
    student, teacher = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1)).double()
    for t in (0.5, 1.0, 4.0):
        p, q = (teacher / t).softmax(-1), (student / t).softmax(-1)
        wanted = t**2 * (p * (p.log() - q.log())).sum(-1).mean()
        torch.testing.assert_close(distillation(student, teacher, t), wanted, rtol=1e-12, atol=0)
        assert abs(distillation(teacher, teacher, t)) < 1e-15
    guidance = SuperNetGuidance(linear(0.0, 2.0), 3.0)
    torch.testing.assert_close(guidance(student, teacher, 0.5), distillation(student, teacher, 3.0))


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("guide_alpha_steps", [False, True])
def test_the_teacher_runs_once_a_batch_and_never_in_warm_up(k, guide_alpha_steps):
    net, answer, weight = toy.problem(0)
    method = methods.msgdas(k=k, guidance=1.0, guide_alpha_steps=guide_alpha_steps)
    search, forwards = searching(net, method, warmup=0.5, steps=2), []
    net.register_forward_hook(lambda *_: forwards.append(len(net.mixed[0].gate.active)))
    data = toy.batches(answer, weight)
    search.step(next(data), next(data))
    assert forwards == [1] * k
    forwards.clear()
    assert "teacher_accuracy" in search.step(next(data), next(data))
    alpha = [4] * guide_alpha_steps + [1] * k
    assert forwards == [*alpha, 4, *[1] * k]


def test_the_teacher_is_the_whole_super_net_without_dropblock_on_its_pupils_batch():
    net, heard = supernet().double(), Heard()
    (x, y), twin = BATCH, copy.deepcopy(net)
    train, valid = x.double(), x.flip(0).double() + 1
    settings = {"guidance": heard, "warmup": 0.0, "drop": 0.9, "drop_in_alpha_steps": True, "alpha_lr": 0.0}
    search = searching(net, methods.msgdas(k=2, gradient="probed"), **settings)
    search.alphas.double()
    search.step((train, y), (valid, y.flip(0)))
    assert len(heard.given) == 4  # two sub-graphs of the alpha step, two of the weight step
    for (teacher, _), batch in zip(heard.given, (valid, valid, train, train), strict=True):
        with torch.no_grad(), select(twin, full(search.alphas)):
            torch.testing.assert_close(teacher, twin(batch), rtol=1e-9, atol=1e-12)


def test_guidance_is_scheduled_over_the_steps_after_the_warm_up():
    net, answer, weight = toy.problem(0)
    heard, data = Heard(), toy.batches(answer, weight)
    search = searching(net, methods.msgdas(k=2), guidance=heard, warmup=0.5, steps=8)
    for _ in range(8):
        search.step(next(data), next(data))
    progress = [p for _, p in heard.given]
    assert progress == pytest.approx([i / 3 for i in range(4) for _ in range(4)])  # two steps of two sub-graphs each


def test_guidance_is_in_the_weight_gradient():
    """One step with λ = 2 and T = 3 against the loss written out."""
    net, answer, weight = toy.problem(0)
    x, y = next(toy.batches(answer, weight))
    fixed = Fixed(answer)
    search = Search(net, Method(fixed, learning="none", guidance=SuperNetGuidance(2.0, 3.0), clip=1e9))
    grads = []
    search.weight_optimizer.step = lambda: grads.append(net.classifier.weight.grad.clone())
    search.step((x, y), None)
    with torch.no_grad():
        mixed = []
        for choice, part in zip(net.mixed, x.chunk(3, 1), strict=True):
            p = search.alphas[choice.name].softmax(-1)
            mixed.append(sum(w * o(part) for w, o in zip(p, choice.candidates, strict=True)))
        teacher = net.classifier(torch.cat(mixed, 1))
    with select(net, fixed(search.alphas)[0]):
        logits = net(x)
    (F.cross_entropy(logits, y) + 2 * distillation(logits, teacher, 3.0)).backward()
    torch.testing.assert_close(grads[0], net.classifier.weight.grad)


def test_the_fused_optimizer_in_channels_last_is_the_plain_one():
    """Momentum in another memory format than its weights would be read in the wrong order."""
    results = []
    for plain in (False, True):
        torch.manual_seed(0)
        net = nasbench201.supernet(channels=4, image_size=8)
        generator = torch.Generator().manual_seed(0)
        batch = torch.randn(8, 3, 8, 8, generator=generator), torch.randint(0, 10, (8,), generator=generator)
        kw = {"weight_optimizer": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)}
        kw = kw if plain else {}
        form = torch.channels_last
        search = searching(net, methods.msgdas(k=2), warmup=1.0, drop=0.0, steps=6, memory_format=form, **kw)
        for step in range(6):
            if step == 3 and not plain:
                search.to("cpu")  # in the middle, with momentum
            search.step(batch, None)
        results.append({n: p.detach().clone() for n, p in net.named_parameters()})
    for name, p in results[0].items():
        torch.testing.assert_close(p, results[1][name], rtol=1e-4, atol=1e-5)


def test_the_block_of_dropblock_is_an_argument():
    net = nasbench201.supernet(channels=2, image_size=8)
    searching(net, methods.msgdas(), drop_block=5)
    assert {m.block for m in net.modules() if isinstance(m, DropBlockIdentity)} == {5}


def test_select_sees_choices_that_are_added_and_remembers_no_network():
    def choice(name):
        return MixedOp(name, {"a": nn.Identity(), "b": nn.Tanh()})

    def pick(*names):
        return SubGraph({name: Gate((1,), torch.tensor([0.0, 1.0])) for name in names})

    net, x = nn.Sequential(choice("one")), torch.ones(2)
    with select(net, pick("one")):
        assert torch.equal(net(x), x.tanh())
    net.append(choice("two"))
    with select(net, pick("one", "two")):
        assert torch.equal(net(x), x.tanh().tanh())
    for kept in (net, net[0]):  # a choice may be a network by itself
        with select(kept, pick("one")):
            pass
    gone = weakref.ref(net[0])
    del net, kept
    gc.collect()
    assert gone() is None
