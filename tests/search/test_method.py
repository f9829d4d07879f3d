"""A method is a value, and how it is executed another."""

from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from reference import searching, seeded
from torch import nn

from msgdas import methods
from msgdas.alphas import Alphas
from msgdas.choice import MixedOp
from msgdas.errors import InputError
from msgdas.ops import DropBlockIdentity
from msgdas.samplers import GumbelTopK, SinglePath, Softmax
from msgdas.search.comparing import compare
from msgdas.search.execution import Execution
from msgdas.search.gradients import first_order, probed
from msgdas.search.guidance import SuperNetGuidance
from msgdas.search.method import Method
from msgdas.search.schedules import linear
from msgdas.search.search import Search
from msgdas.search.supernet_training import SuperNetTraining
from msgdas.spaces import nasbench201, toy

NAMES = pytest.mark.parametrize("name", sorted(methods.METHODS))


@NAMES
def test_every_method_is_a_value(name):
    function = methods.METHODS[name]
    method = function()
    assert method == function()
    assert hash(method) == hash(function())
    assert pickle.loads(pickle.dumps(method)) == method
    assert replace(method, clip=1.0) != method
    with pytest.raises(FrozenInstanceError):
        method.clip = 1.0


def test_methods_with_the_same_arguments_are_equal():
    assert methods.msgdas(k=3) == methods.msgdas(k=3) != methods.msgdas(k=2)
    assert methods.msgdas(guidance=linear(0.0, 1.0)) == methods.msgdas(guidance=linear(0.0, 1.0))
    assert replace(methods.r_darts(weight_decay=5e-4), early_stop=None) == methods.darts()
    assert methods.pc_darts() != methods.darts()


@NAMES
def test_for_net_completes_a_method_once(name):
    net = toy.problem()[0]
    method = methods.METHODS[name]().for_net(net)
    assert None not in (method.sampler, method.weight_sampler, method.warmup_sampler)
    assert (method.hypergradient is None) == (method.learning != "alternate")
    assert method.for_net(net) == method
    assert Search(net, methods.METHODS[name]()).method == method


def choices_of(*sizes):
    return nn.Sequential(*(MixedOp(f"c{i}", [nn.Identity() for _ in range(o)]) for i, o in enumerate(sizes)))


@pytest.mark.parametrize(("sizes", "k"), [((2, 5), 2), ((3, 4), 3), ((5, 8), 3)])
def test_k_is_three_or_as_many_as_the_smallest_choice_has(sizes, k):
    net = choices_of(*sizes)
    assert methods.msgdas().for_net(net).sampler == methods.msgdas(k=k).sampler
    alphas = Alphas.of(net)
    together = [GumbelTopK(number)(alphas, generator=seeded()) for number in (None, k)]
    picks = [[[gate.active for gate in one.values()] for one in drawn] for drawn in together]
    assert picks[0] == picks[1]
    assert len(picks[0]) == k


@pytest.mark.parametrize(("assignment", "k"), [("shuffle", 2), ("rank", 3)])
def test_the_default_k_does_not_shuffle_all_of_three_candidates(assignment, k):
    assert methods.msgdas(assignment=assignment).for_net(choices_of(3, 3)).sampler.k == k


@pytest.mark.parametrize("gradient", ["compare", "ranked", "exchange"])
def test_comparing_all_candidates_shuffled_is_warned_of(gradient):
    with pytest.warns(UserWarning, match="k=4 of 4 candidates .* k=3 or less"):
        methods.msgdas(k=4, gradient=gradient).for_net(choices_of(4, 4))


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"k": 4, "assignment": "rank", "gradient": "ranked"}, (4, 4)),
        ({"k": 4, "gradient": "probed"}, (4, 4)),
        ({"k": 4}, (4, 5)),  # the alphas of the second choice make the company of the first
        ({"k": 2}, (2, 2)),  # no other comparison
        ({}, (2, 2)),
        ({}, (3, 3)),
        ({}, (4, 4)),
    ],
    ids=str,
)
def test_other_comparisons_are_not_warned_of(settings, sizes):
    methods.msgdas(**settings).for_net(choices_of(*sizes))  # warnings are errors


@pytest.mark.parametrize(
    ("sampler", "gradient"),
    [(GumbelTopK(2), compare), (GumbelTopK(None), compare), (GumbelTopK(1), probed), (Softmax(), probed)],
    ids=lambda part: getattr(part, "__name__", None) or str(part),
)
def test_exclusive_sub_graphs_are_compared_and_other_ones_probed(sampler, gradient):
    assert Method(sampler).for_net(choices_of(3)).hypergradient is gradient
    assert Method(sampler, hypergradient=probed).for_net(choices_of(3)).hypergradient is probed


def test_steps_that_name_no_sampler_take_that_of_the_step_before():
    net, path = choices_of(3), SinglePath()
    method = Method(Softmax()).for_net(net)
    assert method.weight_sampler == method.warmup_sampler == Softmax()
    method = Method(Softmax(), weight_sampler=path).for_net(net)
    assert (method.sampler, method.weight_sampler, method.warmup_sampler) == (Softmax(), path, path)


@NAMES
def test_a_method_is_described_by_its_fields_as_json(name):
    described = methods.METHODS[name]().describe()
    assert json.loads(json.dumps(described)) == described
    assert described.keys() == Method.__dataclass_fields__.keys()
    search = Search(toy.problem()[0], methods.METHODS[name](), execution=Execution(memory_format=torch.channels_last))
    assert json.loads(json.dumps(search.describe()))["memory_format"] == "channels_last"


def test_descriptions_have_schedules_as_two_numbers_and_parts_with_their_fields():
    described = replace(methods.r_darts(), tau=lambda progress: 2 * progress).describe()
    assert described["tau"] == [0.0, 2.0]
    assert described["weight_lr"] == [0.05, 0.001]
    assert described["early_stop"] == {"name": "CurvatureStop", "window": 5, "back": 5, "ratio": 0.75}
    assert described["hypergradient"] == "first_order"
    assert methods.drnas().describe()["penalties"] == [{"name": "DirichletKL", "weight": 1e-3}]
    assert methods.msgdas(guidance=linear(0, 1)).describe()["guidance"]["weight"] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "line"),
    [({"warmup": 1.5}, "warmup=1.5"), ({"learning": "both"}, "learning 'both': use alternate, joint, none")],
)
def test_a_method_that_makes_no_sense_is_one_line(changes, line):
    with pytest.raises(InputError, match=line):
        replace(methods.gdas(), **changes)


def test_a_search_holds_its_network_and_images_in_the_memory_format():
    net = nasbench201.supernet(channels=4, cells=1, classes=3, image_size=8)
    seen, weight = [], net.classifier.weight
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last)))
    search = searching(net, methods.gdas(), memory_format=torch.channels_last)
    batch = torch.randn(6, 3, 8, 8), torch.arange(6) % 3
    search.step(batch, batch)
    assert seen == [True, True]
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convs)
    assert net.classifier.weight is weight
    other = searching(nasbench201.supernet(channels=4, cells=1, classes=3, image_size=8), methods.gdas())
    assert all(p.is_contiguous() for p in other.to("cpu").net.parameters())


def test_a_search_leaves_the_method_that_it_was_given_alone():
    net, method = nasbench201.supernet(channels=2, image_size=8), methods.msgdas(k=2)
    search = searching(net, method, drop_block=5)
    assert search.describe()["drop_block"] == [5]
    assert method == methods.msgdas(k=2)
    assert any(isinstance(m, DropBlockIdentity) for m in net.modules())


# presets of MSG-DAS


def test_the_preset_paper_has_the_parts_of_the_abstract_and_nothing_else():
    """Each part next to what the abstract of arXiv:2107.04324 says; the rest is as for the other methods here."""
    wanted = Method(
        GumbelTopK(None, "rank", "remaining"),  # "mutually exclusive single-path sub-graphs", "Gumbel-TopK"
        weight_sampler=GumbelTopK(None, "rank", "remaining"),
        hypergradient=first_order,  # "differentiable sampler"
        drop=linear(0.5, 0.0),  # "Dropblock-Identity module"
        drop_in_alpha_steps=True,
        guidance=SuperNetGuidance(1.0, 1.0),  # "super-net guidance distillation"
        supernet_training=SuperNetTraining(1.0),  # "best use of the available models (super-net and sub-graphs)"
        tau=linear(10.0, 0.1),  # GDAS
        preset="paper",
    )
    assert methods.msgdas(preset="paper") == wanted
    assert methods.msgdas(preset="paper", supernet_weight=0) == replace(wanted, supernet_training=None)
    assert methods.msgdas(preset="paper", guidance=0).guidance is None


def test_the_preset_default_is_the_default():
    wanted = Method(
        GumbelTopK(None, "shuffle"),
        weight_sampler=GumbelTopK(None, "shuffle"),
        warmup=0.6,
        drop=linear(0.5, 0.0),
        drop_in_alpha_steps=True,
        tau=linear(10.0, 0.1),
        alpha_lr=0.03,
        preset="default",
    )
    assert methods.msgdas() == methods.msgdas(preset="default") == wanted


def test_arguments_override_a_preset_and_its_name_is_described():
    method = methods.msgdas(preset="paper", gradient="compare", assignment="shuffle", supernet_recompute="cell")
    assert (method.hypergradient, method.sampler.assignment) == (compare, "shuffle")
    described = method.describe()
    assert described["preset"] == "paper"
    assert described["supernet_training"] == {
        "name": "SuperNetTraining", "weight": 1.0, "drop": False, "recompute": "cell"
    }  # fmt: skip
    assert methods.gdas().describe()["preset"] is None
    with pytest.raises(InputError, match="preset 'papers': use default, paper"):
        methods.msgdas(preset="papers")
