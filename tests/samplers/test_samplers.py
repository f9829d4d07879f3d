"""Samplers: one contract for all, and the distribution that each one draws from."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch

from msgdas import samplers
from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.samplers import (
    Argmax,
    BinaryGates,
    Dirichlet,
    Fixed,
    GumbelSoftmax,
    GumbelTopK,
    SinglePath,
    Softmax,
    Topology,
)
from msgdas.samplers._relax import gumbel_like
from msgdas.subgraph import cut

SIZES = (5, 3, 4)
GUMBEL = [
    GumbelTopK(k, assignment, normalise)
    for k in (1, 2, 3)
    for assignment in ("rank", "shuffle")
    for normalise in ("remaining", "picks", "all")
    if k > 1 or normalise != "picks"
]
FIXED = Fixed(Genotype("custom", {"c0": "4", "c1": "0", "c2": "2"}))
ALL_RUN = [Softmax(), GumbelSoftmax(), Dirichlet()]  # every candidate, at once
WITH_GRADIENT = [*GUMBEL, GumbelTopK(4, reuse=True), BinaryGates(), Topology(), Topology(3)]
NO_GRADIENT = [SinglePath(), SinglePath(uniform=True), Argmax(), FIXED]
EVERY = [*ALL_RUN, *WITH_GRADIENT, *NO_GRADIENT]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def alphas_of(*sizes, seed=0, scale=1.0):
    return Alphas({f"c{i}": n for i, n in enumerate(sizes)}, init=scale, generator=seeded(seed)).double()


def many(logits, copies):
    """``copies`` choices with the same logits: as many independent draws in one call."""
    alphas = Alphas({f"c{i}": len(logits) for i in range(copies)}).double()
    with torch.no_grad():
        for p in alphas.parameters():
            p.copy_(logits)
    return alphas


def actives(subgraphs):
    return [{name: gate.active for name, gate in s.items()} for s in subgraphs]


def plackett_luce(logits, k):
    """Ordered picks → probability, by enumeration."""
    p = logits.softmax(-1).tolist()
    law = {}
    for picks in itertools.permutations(range(len(p)), k):
        law[picks], left = 1.0, 1.0
        for i in picks:
            law[picks] *= p[i] / left
            left -= p[i]
    return law


def assert_follows(counts, law):
    """Pearson's chi-square at six standard deviations."""
    total, freedom = sum(counts.values()), len(law) - 1
    assert set(counts) <= set(law)
    chi_square = sum((counts[event] - total * p) ** 2 / (total * p) for event, p in law.items())
    assert chi_square < freedom + 6 * (2 * freedom) ** 0.5


# the contract


def test_every_sampler_keeps_the_contract():
    assert {type(sampler).__name__ for sampler in EVERY} == set(samplers.__all__) - {"Sampler"}, (
        "add it to ALL_RUN, WITH_GRADIENT or NO_GRADIENT"
    )


@pytest.mark.parametrize("sampler", EVERY, ids=str)
class TestContract:
    def test_the_generator_decides_the_draw(self, sampler):
        alphas = alphas_of(*SIZES)
        first, again = (sampler(alphas, tau=0.7, generator=seeded(3)) for _ in range(2))
        assert actives(first) == actives(again)
        for s, t in zip(first, again, strict=True):
            assert all(torch.equal(s[name].weights, t[name].weights) for name in s)

    def test_without_gradients_the_draw_is_the_same(self, sampler):
        alphas = alphas_of(*SIZES)
        learning = sampler(alphas, tau=0.7, generator=seeded(3))
        with torch.no_grad():
            hard = sampler(alphas, tau=0.7, generator=seeded(3))
        assert actives(learning) == actives(hard)
        for s, t in zip(learning, hard, strict=True):
            for name, gate in s.items():
                torch.testing.assert_close(gate.weights.detach(), t[name].weights, rtol=0, atol=0)
                assert not t[name].weights.requires_grad

    def test_gates_cover_every_choice_and_weigh_all_its_candidates(self, sampler):
        alphas = alphas_of(*SIZES)
        for subgraph in sampler(alphas, tau=0.7, generator=seeded()):
            assert tuple(subgraph) == alphas.names
            for name, gate in subgraph.items():
                size = len(alphas.labels[name])
                assert gate.weights.shape == (size,)
                assert gate.weights.dtype == torch.float64
                assert 0 <= min(gate.active) <= max(gate.active) < size
                torch.testing.assert_close(gate.weights.sum().item(), 1.0, rtol=0, atol=1e-12)

    def test_a_single_path_is_exactly_one_hot(self, sampler):
        if sampler in ALL_RUN:
            pytest.skip("runs every candidate")
        for seed in range(20):
            for subgraph in sampler(alphas_of(*SIZES, seed=seed), tau=0.3, generator=seeded(seed)):
                for gate in subgraph.values():
                    (i,) = gate.active
                    assert gate.weights.tolist() == [float(j == i) for j in range(len(gate.weights))]

    def test_gradients_are_finite(self, sampler):
        alphas = alphas_of(*SIZES, scale=3.0)
        weights = [g.weights for s in sampler(alphas, tau=0.1, generator=seeded()) for g in s.values()]
        if not weights[0].requires_grad:
            assert sampler in NO_GRADIENT
            return
        sum((w * torch.randn_like(w)).sum() for w in weights).backward()
        grads = torch.cat([p.grad for p in alphas.parameters()])
        assert grads.isfinite().all()
        assert grads.any()

    def test_it_changes_neither_the_alphas_nor_the_global_random_state(self, sampler):
        alphas, state = alphas_of(*SIZES), torch.get_rng_state()
        before = {name: alphas[name].detach().clone() for name in alphas.names}
        sampler(alphas, tau=0.7, generator=seeded())
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(alphas[name], value) for name, value in before.items())
        assert all(p.grad is None for p in alphas.parameters())


# laws of Gumbel-TopK


@pytest.mark.parametrize(("k", "size"), [(1, 4), (2, 4), (3, 4), (3, 3)])
def test_ordered_picks_follow_plackett_luce(k, size):
    logits = torch.tensor([0.0, 1.2, -0.9, 0.4], dtype=torch.float64)[:size]
    alphas, generator, counts = many(logits, 2000), seeded(1), Counter()
    with torch.no_grad():
        for _ in range(4):
            draw = GumbelTopK(k)(alphas, generator=generator)
            counts.update(tuple(s[name].active[0] for s in draw) for name in alphas.names)
    assert_follows(counts, plackett_luce(logits, k))


def test_shuffled_subgraphs_are_exchangeable():
    logits = torch.tensor([0.0, 1.5, -1.0, 0.4], dtype=torch.float64)
    with torch.no_grad():
        draw = GumbelTopK(2, "shuffle")(many(logits, 4000), generator=seeded(2))
    law = plackett_luce(logits, 2)
    marginal = {(i,): sum(p for picks, p in law.items() if i in picks) / 2 for i in range(4)}
    for subgraph in draw:
        assert_follows(Counter(gate.active for gate in subgraph.values()), marginal)


def test_single_path_follows_softmax_or_is_uniform():
    logits = torch.tensor([0.0, 1.5, -1.0], dtype=torch.float64)
    alphas = many(logits, 4000)
    for sampler, law in [(SinglePath(), logits.softmax(-1)), (SinglePath(uniform=True), torch.full((3,), 1 / 3))]:
        (draw,) = sampler(alphas, generator=seeded(3))
        assert_follows(Counter(g.active for g in draw.values()), {(i,): p for i, p in enumerate(law.tolist())})


@pytest.mark.parametrize("assignment", ["rank", "shuffle"])
def test_no_two_subgraphs_share_a_candidate(assignment):
    alphas = alphas_of(*SIZES)
    for seed in range(50):
        draw = GumbelTopK(3, assignment)(alphas, generator=seeded(seed))
        for name in alphas.names:
            assert len({s[name].active for s in draw}) == 3


@pytest.mark.parametrize("assignment", ["rank", "shuffle"])
def test_reuse_repeats_only_where_candidates_run_out(assignment):
    alphas, sampler = alphas_of(3, 5), GumbelTopK(4, assignment, reuse=True)
    for seed in range(20):
        draw = sampler(alphas, generator=seeded(seed))
        assert sorted(Counter(s["c0"].active for s in draw).values()) == [1, 1, 2]
        assert len({s["c1"].active for s in draw}) == 4


def test_too_many_subgraphs_name_the_choice():
    with pytest.raises(InputError) as error:
        GumbelTopK(4)(alphas_of(5, 3))
    assert str(error.value) == (
        "choice 'c1' has 3 candidates, fewer than k=4 exclusive sub-graphs: lower k, or pass reuse=True"
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"k": 0}, "k=0"),
        ({"assignment": "deal"}, "'deal'"),
        ({"normalise": "some"}, "'some'"),
        ({"k": 1, "normalise": "picks"}, "k=2"),
    ],
)
def test_arguments_out_of_range(settings, line):
    with pytest.raises(InputError, match=line):
        GumbelTopK(**settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gate_is_exactly_one_for_any_alphas_and_temperature(dtype):
    generator = seeded(4)
    for _ in range(100):
        scale, tau = (10 ** torch.empty(2).uniform_(-2, 1.5, generator=generator)).tolist()
        alphas = Alphas({"a": 5, "b": 3}, init=scale, generator=generator).to(dtype)
        for subgraph in GumbelTopK(3)(alphas, tau=tau, generator=generator):
            for gate in subgraph.values():
                assert gate.weights.tolist() == [float(j in gate.active) for j in range(len(gate.weights))]


@pytest.mark.parametrize("sampler", GUMBEL, ids=str)
def test_gate_gradient_is_that_of_the_closed_form_softmax(sampler):
    alphas, tau = alphas_of(*SIZES), 0.6
    noise_CO = gumbel_like(alphas.stack().detach(), seeded(5))
    draw = sampler(alphas, tau=tau, generator=seeded(5))
    for c, name in enumerate(alphas.names):
        logits = alphas[name]
        phi = logits.log_softmax(-1) + noise_CO[c, : len(logits)]
        order = phi.argsort(descending=True).tolist()
        assert {s[name].active[0] for s in draw} == set(order[: sampler.k])
        for subgraph in draw:
            gate = subgraph[name]
            rank = order.index(gate.active[0])
            scope = {"remaining": order[rank:], "picks": order[: sampler.k], "all": order}[sampler.normalise]
            toward = torch.randn(len(logits), dtype=torch.float64)
            expected = (toward[scope] * (phi[scope] / tau).softmax(-1)).sum()
            (wanted,) = torch.autograd.grad(expected, logits, retain_graph=True)
            (given,) = torch.autograd.grad((toward * gate.weights).sum(), logits, retain_graph=True)
            torch.testing.assert_close(given, wanted, rtol=1e-11, atol=1e-13)


def test_the_last_of_all_candidates_has_no_gradient():
    alphas = alphas_of(3)
    first, second, last = GumbelTopK(3)(alphas, generator=seeded())
    toward = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    for subgraph, any_gradient in ((first, True), (second, True), (last, False)):
        (grad,) = torch.autograd.grad((toward * subgraph["c0"].weights).sum(), alphas["c0"], retain_graph=True)
        assert bool(grad.any()) == any_gradient


def test_one_subgraph_is_the_gumbel_max_draw():
    alphas = alphas_of(*SIZES)
    for seed in range(50):
        (draw,) = GumbelTopK(1)(alphas, generator=seeded(seed))
        logits_CO = alphas.stack().detach()
        picks = (logits_CO + gumbel_like(logits_CO, seeded(seed))).argmax(-1).tolist()
        assert [gate.active for gate in draw.values()] == [(i,) for i in picks]


# laws of the others


@pytest.mark.parametrize("sizes", [{"b": 3, "a": 3, "c": 3}, {"b": 3, "a": 2, "c": 3}])
def test_the_rows_of_stacked_logits_follow_the_names(sizes):
    alphas = Alphas(sizes, init=1.0, generator=seeded())
    for name, row, size in zip(alphas.names, alphas.stack(), sizes.values(), strict=True):
        assert torch.equal(row[:size], alphas[name])
        assert (row[size:] == -torch.inf).all()


def test_a_draw_in_inference_mode_does_not_spoil_later_ones():
    alphas = Alphas({"a": 7, "b": 7})
    with torch.inference_mode():
        SinglePath()(alphas, generator=seeded())
    (drawn,) = SinglePath()(alphas, generator=seeded())
    leaves, _ = cut([drawn])
    assert all(gate.weights.requires_grad for gate in leaves[0].values())


def test_argmax_and_fixed_pick_what_they_say():
    alphas = alphas_of(*SIZES)
    (best,) = Argmax()(alphas)
    assert all(gate.active == (int(alphas[name].argmax()),) for name, gate in best.items())
    (fixed,) = FIXED(alphas)
    assert [gate.active for gate in fixed.values()] == [(4,), (0,), (2,)]


def test_softmax_gates_are_the_softmax_at_the_temperature():
    alphas = alphas_of(*SIZES)
    (draw,) = Softmax()(alphas, tau=2.0)
    for name, gate in draw.items():
        assert gate.active == tuple(range(len(alphas[name])))
        weights = (alphas[name] / 2).exp()
        torch.testing.assert_close(gate.weights, weights / weights.sum(), rtol=1e-12, atol=0)


def test_gumbel_softmax_is_its_closed_form_and_its_largest_gate_follows_the_softmax():
    alphas = alphas_of(*SIZES)
    (draw,) = GumbelSoftmax()(alphas, tau=0.7, generator=seeded(5))
    noise_CO = gumbel_like(alphas.stack().detach(), seeded(5))
    for c, (name, gate) in enumerate(draw.items()):
        e = ((alphas[name].log_softmax(-1) + noise_CO[c, : len(gate.weights)]) / 0.7).exp()
        torch.testing.assert_close(gate.weights, e / e.sum(), rtol=1e-10, atol=0)
    logits = torch.tensor([0.0, 1.5, -1.0], dtype=torch.float64)
    (draw,) = GumbelSoftmax()(many(logits, 4000), tau=0.3, generator=seeded(6))
    law = {(i,): p for i, p in enumerate(logits.softmax(-1).tolist())}
    assert_follows(Counter((int(gate.weights.argmax()),) for gate in draw.values()), law)


def test_binary_gates_draw_the_pair_without_replacement_and_run_one_by_its_share_of_it():
    logits = torch.tensor([0.0, 1.2, -0.9, 0.4], dtype=torch.float64)
    (draw,) = BinaryGates()(many(logits, 8000), generator=seeded(7))
    p, law = logits.softmax(-1).tolist(), {}
    for (i, j), q in plackett_luce(logits, 2).items():
        for runs, other in ((i, j), (j, i)):
            law[runs, other] = law.get((runs, other), 0.0) + q * p[runs] / (p[i] + p[j])
    assert_follows(Counter(gate.active + gate.probe for gate in draw.values()), law)


@pytest.mark.parametrize(
    ("kept", "line"),
    [
        ({"c0": "0", "d": "0"}, r"decides 'd', which is not a choice"),
        ({"c0": "0", "c1": "9"}, r"'c1' has no candidate '9': .*0, 1, 2"),
    ],
)
def test_fixed_names_what_does_not_fit(kept, line):
    with pytest.raises(InputError, match=line):
        Fixed(Genotype("custom", kept))(alphas_of(2, 3))
