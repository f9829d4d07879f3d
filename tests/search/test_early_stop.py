"""R-DARTS: the curvature of the loss in the alphas, and searches that end early."""

from __future__ import annotations

import pytest
import torch
from reference import X, Y, alphas_of, searching, small_net, smooth
from torch.nn import functional as F

from msgdas import methods
from msgdas.data import load_data
from msgdas.ops import DropBlockIdentity
from msgdas.runs import Run
from msgdas.search.early_stop import CurvatureStop, largest_eigenvalue
from msgdas.search.loop import fit
from msgdas.spaces import nasbench201


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_eigenvalue_is_the_hessians(sign):
    """The largest, not the largest by magnitude: that of ``−L`` is the smallest of ``L`` with the other sign."""
    net = smooth()
    alphas = alphas_of(net)
    x, labels = torch.randn(16, 3).double(), torch.randint(3, (16,))

    def loss(flat):
        gates, at = {}, 0
        for name in alphas.names:
            gates[name] = flat[at : at + 3].softmax(-1)
            at += 3
        h = net[0](x)
        for i in range(3):
            h = sum(w * o(h) for w, o in zip(gates[f"c{i}"], net[i + 1].candidates, strict=True))
        return F.cross_entropy(net[4](h), labels)

    flat = torch.cat([alphas[name].detach() for name in alphas.names])
    wanted = torch.linalg.eigvalsh(sign * torch.autograd.functional.hessian(loss, flat))[-1].item()
    given = largest_eigenvalue(net, alphas, lambda: sign * F.cross_entropy(net(x), labels))
    assert given == pytest.approx(wanted, rel=1e-3, abs=1e-6)
    assert all(p.grad is None for p in [*net.parameters(), *alphas.parameters()])


def test_the_curvature_is_measured_without_dropblock_and_leaves_no_trace():
    net = small_net(cells=1)
    drops = [m for m in net.modules() if isinstance(m, DropBlockIdentity)]
    for module in drops:
        module.p = 0.5
    net.eval()
    alphas, before = alphas_of(net), {name: value.clone() for name, value in net.state_dict().items()}
    first, again = (largest_eigenvalue(net, alphas, lambda: F.cross_entropy(net(X), Y)) for _ in range(2))
    assert first == again
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert {m.p for m in drops} == {0.5}
    assert not net.training


@pytest.mark.parametrize(
    ("values", "epoch"),
    [([1, 1, 1, 1], None), ([1, 1], None), ([1, 1, 1, 2], 1), ([3, 2, 1, 1], None), ([1.0, 1.2, 1.3, 1.4], 1)],
)
def test_curvature_stop_goes_back_when_the_mean_has_grown(values, epoch):
    assert CurvatureStop(window=1, back=2, ratio=0.9).stops(values) == epoch
    assert CurvatureStop(window=1, back=1).stops([-1e-9, -1e-9]) is None


def test_curvature_stop_takes_means_over_its_window():
    rule = CurvatureStop(window=2, back=2, ratio=0.75)
    assert rule.stops([1, 1, 1, 1.4]) is None  # 1 / 1.2
    assert rule.stops([1, 1, 1.4, 1.4]) == 1  # 1 / 1.4


class StopAfterThree:
    """Ends at the third watched epoch, for the first."""

    def measure(self, net, alphas, objective):
        return 1.0

    def stops(self, values):
        return 0 if len(values) >= 3 else None


def stopping():
    torch.manual_seed(0)
    net = nasbench201.supernet(channels=2, cells=1, classes=10, in_channels=1, image_size=8)
    return searching(net, methods.darts(), warmup=0.2, early_stop=StopAfterThree(), alpha_lr=0.3)


def test_an_early_stop_ends_the_search_and_goes_back():
    records = []
    found = fit(stopping(), load_data("digits"), epochs=10, images=128, on_epoch=records.append)
    assert len(records) == 5
    assert [r.get("early_stop") for r in records] == [None, None, 1.0, 1.0, 1.0]
    assert str(found) == records[2]["genotype"]


class Crash(Exception):
    pass


def test_an_interrupted_search_remembers_the_epochs_that_were_watched(tmp_path):
    """The first watched epoch is in the checkpoint, so two more end the search, for the first one."""
    data, records = load_data("digits"), []

    def on_epoch(record):
        records.append(record)
        if len(records) == 4:
            raise Crash

    with Run.create(tmp_path / "run", {}) as run, pytest.raises(Crash):
        fit(stopping(), data, epochs=10, images=128, run=run, on_epoch=on_epoch)
    with Run.open(tmp_path / "run") as run:
        found = fit(stopping(), data, epochs=10, images=128, run=run, on_epoch=on_epoch)
    assert [r["epoch"] for r in records] == [1, 2, 3, 4, 4, 5]
    assert str(found) == records[2]["genotype"]
