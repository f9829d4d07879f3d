"""Laws of choices, derivation and discretisation."""

import copy
import csv
import gzip
import json
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from msgdas import Alphas, Genotype, InputError, MixedInput, MixedOp, derive, discretize, select
from msgdas.choice import Choice, choices
from msgdas.cost import count
from msgdas.derive import argmax, top_edges
from msgdas.ops import DropBlockIdentity, Zero
from msgdas.ops.drop import drop_block
from msgdas.samplers import Argmax, Fixed
from msgdas.spaces import nasbench201 as nb

TABLE = Path(__file__).parents[2] / "shared/data/nasbench201_valid.csv.gz"


def random_cell(seed):
    rng = random.Random(seed)
    return Genotype("nasbench201", {f"cell/{s}-{t}": rng.choice(list(nb.OPERATIONS)) for s, t in nb.EDGES})


class TwoInputs(nn.Module):
    """A user's own net: two arguments, a dict out, a node that keeps two of three edges."""

    def __init__(self):
        super().__init__()
        self.edges = MixedInput("node", [self.edge(i) for i in range(3)])
        self.scale = nn.Parameter(torch.ones(1))

    def edge(self, i):
        return MixedOp(
            f"edge/{i}", {"none": Zero(), "skip": DropBlockIdentity(), "conv": nn.Conv2d(2, 2, 3, padding=1)}
        )

    def forward(self, a, b):
        return {"logits": self.scale * self.edges([a, b, a + b]).mean((2, 3))}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("training", [False, True])
def test_the_derived_network_is_the_super_net_on_its_sub_graph_bit_for_bit(seed, training):
    torch.manual_seed(seed)
    net, genotype, x = nb.supernet(channels=4, cells=2), random_cell(seed), torch.randn(3, 3, 32, 32)
    net.train(training)
    derived = discretize(net, genotype)
    with select(net, Fixed(genotype)(Alphas.of(net))[0]):
        expected = net(x)
    assert torch.equal(derived(x), expected)
    assert not any(isinstance(m, Choice | DropBlockIdentity) for m in derived.modules())
    assert any(isinstance(m, Choice) for m in net.modules())


def test_discretize_keeps_edges_of_a_node():
    net, alphas = TwoInputs(), None
    alphas = Alphas.of(net, init=1.0, generator=torch.Generator().manual_seed(0))
    genotype = derive(net, alphas, top_edges)
    assert len(genotype["node"]) == 2
    a, b = torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 4)
    (subgraph,) = Fixed(genotype)(alphas)
    with select(net, subgraph):
        expected = net(a, b)["logits"]
    assert torch.equal(discretize(net, genotype)(a, b)["logits"], expected)
    with select(net, Argmax()(alphas)[0]):
        assert not torch.equal(net(a, b)["logits"], expected)  # all three edges run


def test_top_edges_ranks_by_a_softmax_that_includes_none():
    net = TwoInputs()
    alphas = Alphas.of(net)
    for name, logits in {"edge/0": [5.0, 2.0, 0.0], "edge/1": [0.0, 0.5, 0.4], "edge/2": [0.0, 0.3, 0.9]}.items():
        alphas[name].data.copy_(torch.tensor(logits))
    genotype = derive(net, alphas, top_edges)
    assert genotype["node"] == ("1", "2")  # edge/0's skip leads without none, and is last with it
    assert (genotype["edge/0"], genotype["edge/2"]) == (("skip",), ("conv",))
    assert derive(net, alphas, argmax)["edge/0"] == ("none",)


def test_wrong_use_is_one_line():
    net = nb.supernet(channels=2)
    with pytest.raises(InputError, match="inside `with select"):
        net(torch.zeros(1, 3, 32, 32))
    (subgraph,) = Argmax()(Alphas.of(net))
    with pytest.raises(InputError, match="no choice of the network"), select(TwoInputs(), subgraph):
        pass
    with pytest.raises(InputError, match="no gate for choice"), select(net, {}):
        pass
    with pytest.raises(InputError, match="does not decide"):
        discretize(net, Genotype("custom", {}))
    with pytest.raises(InputError, match="no candidate 'x'"):
        discretize(net, Genotype("custom", dict.fromkeys(choices(net), "x")))
    with pytest.raises(InputError, match="without '.'"):
        MixedOp("a.b", [nn.Identity()])
    with pytest.raises(InputError, match="differ"):
        choices(nn.ModuleList([MixedOp("a", [Zero(), Zero()]), MixedOp("a", [Zero()] * 3)]))
    with pytest.raises(InputError, match="no choice to search"):
        Alphas.of(nn.Linear(1, 1))


def test_one_candidate_needs_no_gate_and_has_no_alpha():
    net = nn.Sequential(MixedOp("a", [nn.Identity()]), MixedOp("b", [nn.Identity(), Zero()]))
    alphas = Alphas.of(net)
    assert alphas.names == ("b",)
    x = torch.randn(2, 3)
    with select(net, Argmax()(alphas)[0]):
        assert net(x).shape == x.shape


def test_genotype_round_trips_and_damage_is_named(tmp_path):
    genotype = random_cell(1)
    file = tmp_path / "genotype.json"
    file.write_text(json.dumps(genotype.to_dict()))
    assert Genotype.read(file) == genotype
    assert hash(Genotype.read(file)) == hash(genotype)
    assert genotype.share("none") == str(genotype).count("none") / 6
    for damage in (
        "",
        "{",
        "[]",
        '{"space": 3}',
        '{"space": "x", "choices": {"a": []}}',
        '{"space": "x", "choices": {"a": "b"}}',
    ):
        file.write_text(damage)
        with pytest.raises(InputError, match="genotype.json"):
            Genotype.read(file)
    with pytest.raises(InputError, match="cannot be read"):
        Genotype.read(tmp_path / "none.json")


def test_official_strings():
    for seed in range(200):
        genotype = random_cell(seed)
        assert nb.from_string(nb.to_string(genotype)) == genotype
    good = nb.to_string(random_cell(0))
    for wrong in ("", "|", good[:-1], good.replace("~0", "~1"), good + "+|none~0|", good.replace("|+|", "|+"), "|x~0|"):
        with pytest.raises(InputError, match="NAS-Bench-201 string"):
            nb.from_string(wrong)
    with pytest.raises(InputError, match="no nasbench201 cell"):
        nb.network(Genotype("custom", {"a": "b"}))


@pytest.mark.skipif(not TABLE.exists(), reason="needs ../shared/data/nasbench201_valid.csv.gz")
def test_parameters_and_macs_are_the_tables():
    with gzip.open(TABLE, "rt") as file:
        rows = random.Random(0).sample(list(csv.DictReader(file)), 6)
    for row in rows:
        genotype = nb.from_string(row["arch_str"])
        for classes, size, data in ((10, 32, "c10"), (100, 32, "c100"), (120, 16, "in16")):
            cost = count(nb.network(genotype, classes=classes, image_size=size), 3, size)
            assert cost.params == int(row[f"params_{data}"])
            assert cost.macs / 1e6 == pytest.approx(float(row[f"flops_m_{data}"]), abs=1e-3)


def test_counting_leaves_the_network_alone():
    network = nb.network(random_cell(3), channels=4, cells=1).train()
    before = copy.deepcopy(network.state_dict())
    count(network)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("size", [4, 8, 9, 15, 16, 32, 33, 64, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_fit_their_input(size, channels):
    halvings, stages = nb.stages(size)
    smallest = size
    for _ in range(halvings + stages - 1):
        smallest = (smallest + 1) // 2
    assert smallest >= 4
    assert stages == 3 or smallest < 8
    net = nb.network(random_cell(0), channels=2, cells=1, classes=7, in_channels=channels, image_size=size)
    assert net(torch.zeros(2, channels, size, size)).shape == (2, 7)


def test_sizes_of_the_rule():
    assert [nb.stages(s) for s in (8, 16, 32, 64, 224)] == [(0, 2), (0, 3), (0, 3), (1, 3), (3, 3)]
    with pytest.raises(InputError, match="4 pixels"):
        nb.stages(3)


@pytest.mark.parametrize("p", [0.1, 0.4])
def test_dropblock_keeps_the_mean_and_drops_about_p_in_blocks(p):
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 9, 9)
    y = drop_block(x, p, 3)
    assert y.mean().item() == pytest.approx(1.0, abs=1e-4)
    # seeds land with probability γ on each of the 7 × 7 inner positions, and blocks may overlap: the centre is covered by 9 seeds
    gamma = p * 81 / (9 * 49)
    assert (y[:, 0, 4, 4] == 0).float().mean().item() == pytest.approx(1 - (1 - gamma) ** 9, abs=0.03)
    assert torch.equal(y[:, 0] == 0, y[:, 1] == 0)


def test_dropblock_identity_returns_its_input_unless_it_trains_with_p():
    x = torch.randn(2, 3, 8, 8)
    assert DropBlockIdentity(0.0).train()(x) is x
    assert DropBlockIdentity(0.5).eval()(x) is x
    assert not torch.equal(DropBlockIdentity(0.5).train()(x), x)
