"""Every method finds the candidates that generated the data."""

from __future__ import annotations

import copy

import pytest
import torch
from reference import searching

from msgdas import methods
from msgdas.errors import InputError
from msgdas.search.search import Search
from msgdas.spaces import toy

STEPS = 120


def searched(method, seed, steps=STEPS, **settings):
    torch.manual_seed(seed)
    net, answer, weight = toy.problem(seed)
    search = searching(net, method, steps=steps, alpha_lr=0.05, seed=seed, **settings)
    data = toy.batches(answer, weight, seed=seed)
    for _ in range(steps):
        search.step(next(data), next(data))
    return search, answer


@pytest.mark.filterwarnings("ignore:k=4 of 4 candidates")
@pytest.mark.parametrize("gradient", ["compare", "probed", "picked"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_msgdas_finds_the_answer(k, gradient):
    search, answer = searched(methods.msgdas(k=k, gradient=gradient), k, warmup=0.3)
    assert search.derive() == answer


@pytest.mark.parametrize("name", sorted(methods.METHODS.keys() - {"msgdas", "random"}))
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_other_methods_find_it_too(name, seed):
    search, answer = searched(methods.METHODS[name](), seed)
    assert search.derive() == answer


@pytest.mark.parametrize("gradient", ["added", "probed"])
def test_gdas_finds_it_by_its_other_gradients(gradient):
    search, answer = searched(methods.gdas(gradient=gradient), 1)
    assert search.derive() == answer


def test_random_search_does_not_learn():
    search, _ = searched(methods.random(), 1, steps=5)
    torch.manual_seed(1)
    start = Search(toy.problem(1)[0], methods.random(), seed=1)
    for name in start.alphas.names:
        assert torch.equal(search.alphas[name], start.alphas[name])


def test_the_answer_generates_the_labels():
    """The super-net on the answer's sub-graph with the generating matrix makes no mistake."""
    net, answer, weight = toy.problem(2)
    with torch.no_grad():
        net.classifier.weight.copy_(weight)
        net.classifier.bias.zero_()
    search = Search(net, methods.random())
    data = toy.batches(answer, weight)
    assert search.evaluate(answer, [next(data) for _ in range(3)]) == 1.0


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"gradient": "guess"}, "gradient 'guess': use picked, added, probed, compare"),
        ({"gradient": "compare", "k": 1}, "k=2 or more"),
        ({"k": 1, "normalise": "picks"}, "'picks' with k=1"),
    ],
)
def test_settings_that_make_no_sense(settings, line):
    with pytest.raises(InputError, match=line):
        methods.msgdas(**settings)


def test_one_subgraph_probes_and_several_compare():
    net = toy.problem()[0]
    for k, gradient in ((1, "probed"), (2, "compare"), (None, "compare")):
        assert methods.msgdas(k=k).hypergradient is None
        assert Search(net, methods.msgdas(k=k)).method.hypergradient is methods.GRADIENTS[gradient]


def test_a_restored_search_goes_on_bit_for_bit():
    def make(seed):
        torch.manual_seed(seed)
        net, answer, weight = toy.problem(0)
        search = searching(net, methods.msgdas(k=3, guidance=1.0), steps=12, warmup=0.3, seed=seed)
        return search, toy.batches(answer, weight)

    search, data = make(0)
    batches = [(next(data), next(data)) for _ in range(12)]
    for batch in batches[:6]:
        search.step(*batch)
    state = copy.deepcopy(search.state_dict())
    straight = [search.step(*batch) for batch in batches[6:]]
    other, _ = make(9)
    other.load_state_dict(state)
    assert [other.step(*batch) for batch in batches[6:]] == straight
    assert other.done == search.done == 12
    for part in ("net", "alphas"):
        for name, value in search.state_dict()[part].items():
            assert torch.equal(other.state_dict()[part][name], value)
    assert torch.equal(other.generator.get_state(), search.generator.get_state())
