"""Selection on validation: what is drawn, and what is kept."""

from __future__ import annotations

from dataclasses import replace

import torch

from msgdas import methods
from msgdas.data import load_data
from msgdas.search.loop import validation_batches
from msgdas.search.search import Search
from msgdas.search.selection import draw, select_on_validation
from msgdas.spaces import darts, nasbench201, toy


def test_draws_follow_the_final_distribution():
    search = Search(toy.ToyNet(choices=1), methods.gdas())
    logits = search.alphas.logits["part/0"]
    logits.data = torch.tensor([0.5, 0.2, 0.2, 0.1]).log()
    before, generator = logits.clone(), torch.Generator().manual_seed(0)
    drawn = [draw(search, generator)["part/0"][0] for _ in range(2000)]
    shares = [drawn.count(label) / len(drawn) for label in toy.CANDIDATES]
    assert torch.allclose(torch.tensor(shares), torch.tensor([0.5, 0.2, 0.2, 0.1]), atol=0.04)
    assert torch.equal(logits, before)


def test_the_best_on_validation_is_kept_and_each_architecture_is_measured_once(monkeypatch):
    search = Search(nasbench201.supernet(channels=2, cells=1, image_size=8), methods.msgdas())
    measured = []

    def evaluate(genotype, batches):
        measured.append(genotype)
        assert list(batches) == ["batch"]
        return genotype.share("nor_conv_3x3")

    monkeypatch.setattr(search, "evaluate", evaluate)
    ranked = select_on_validation(search, lambda: iter(["batch"]), samples=30, seed=3)
    assert measured[0] == search.derive()
    assert len(set(measured)) == len(measured) == len(ranked)
    assert ranked[0].accuracy == max(g.share("nor_conv_3x3") for g in measured) > 0
    assert [r.accuracy for r in ranked] == sorted((r.accuracy for r in ranked), reverse=True)
    again = select_on_validation(search, lambda: iter(["batch"]), samples=30, seed=3)
    assert again == ranked


def test_without_draws_the_derived_one_is_kept(monkeypatch):
    search = Search(nasbench201.supernet(channels=2, cells=1, image_size=8), methods.msgdas())
    monkeypatch.setattr(search, "evaluate", lambda genotype, batches: 0.5)
    ((genotype, accuracy),) = select_on_validation(search, list, samples=0)
    assert (genotype, accuracy) == (search.derive(), 0.5)


def test_cells_are_drawn_with_two_different_inputs_a_node():
    search = Search(darts.supernet(channels=2, cells=3), methods.darts())
    generator = torch.Generator().manual_seed(0)
    drawn = {draw(search, generator) for _ in range(20)}
    assert len(drawn) == 20
    for genotype in drawn:
        for _, cell in genotype.cells:
            assert all(len({source for _, source in node}) == 2 for node in cell.nodes)
            assert all(label != "none" for node in cell.nodes for label, _ in node)


def test_validation_batches_mix_the_classes():
    """A data set in the order of its classes, as any folder is."""
    data = load_data("digits")
    order = data.val.labels.argsort(stable=True)
    data = replace(data, val=data.val.take(order))
    batches = validation_batches(data, seed=0)
    labels = torch.cat([y for _, y in batches.epoch(0)])
    assert labels.sort().values.equal(data.val.labels)
    first = next(validation_batches(data, seed=0, limit=100).epoch(0))[1]
    assert len(first) == 100
    assert len(first.unique()) == 10
    assert len(labels[:40].unique()) >= 8
