"""A search that begins at what an earlier one has learned."""

import json

import pytest
import torch
from reference import searching
from torch import nn

from msgdas.alphas import Alphas
from msgdas.choice import MixedOp
from msgdas.cli.main import main
from msgdas.errors import InputError
from msgdas.methods import METHODS
from msgdas.search.prior import Prior

LABELS = ("a", "b", "c")
KNOWN = {"x": {"a": 0.7, "b": 0.3, "c": 0.0}, "y": {"c": 1.0, "a": 0.0, "b": 0.0}}


def net():
    ops = lambda: {label: nn.Linear(2, 2) for label in LABELS}  # noqa: E731
    return nn.Sequential(MixedOp("x", ops()), MixedOp("y", ops()))


def test_alphas_begin_at_the_smoothed_probabilities():
    alphas = Alphas.of(net())
    Prior(KNOWN, trust=0.7).begin(alphas)
    found = alphas.probabilities()
    torch.testing.assert_close(found["x"], torch.tensor([0.59, 0.31, 0.1]))
    torch.testing.assert_close(found["y"], torch.tensor([0.1, 0.1, 0.8]))


def test_the_warm_up_draws_from_the_prior_and_uniformly_without():
    def share(prior):
        search = searching(net(), METHODS["msgdas"](k=1), warmup=1.0, prior=prior, steps=10)
        return sum(search.draw(search.method.weight_sampler)[0]["y"].active == (2,) for _ in range(2000)) / 2000

    assert share(Prior(KNOWN, trust=0.7)) == pytest.approx(0.8, abs=0.04)
    assert share(None) == pytest.approx(1 / 3, abs=0.04)


@pytest.mark.parametrize("trust", [-0.1, 1.0])
def test_a_prior_is_never_certain(trust):
    with pytest.raises(InputError, match="trust"):
        Prior(KNOWN, trust)


def test_another_networks_prior_is_refused():
    with pytest.raises(InputError, match="'y'"):
        Prior({"x": KNOWN["x"]}).begin(Alphas.of(net()))


def test_from_the_command_line_a_deep_search_begins_where_a_shallow_one_ended(tmp_path, capsys):
    def search(*more):
        small = "--data digits --epochs 2 --warmup 1 --channels 4 --images 64 --batch-size 32"
        with pytest.raises(SystemExit) as stopped:
            main(["search", *small.split(), *map(str, more)])
        return stopped.value.code

    assert search("--out", tmp_path / "shallow") == 0
    deeper = ["--prior", tmp_path / "shallow", "--trust", 0.5, "--cells", 2, "--alpha-lr", 0]
    assert search("--out", tmp_path / "deep", *deeper) == 0
    last = lambda run: json.loads((tmp_path / run / "metrics.jsonl").read_text().splitlines()[-1])["alphas"]  # noqa: E731
    for name, known in last("shallow").items():
        for label, p in known.items():
            assert last("deep")[name][label] == pytest.approx(0.5 * p + 0.1, abs=1e-4)
    (tmp_path / "shallow" / "genotype.json").unlink()
    capsys.readouterr()
    assert search("--out", tmp_path / "other", *deeper) == 2
    assert "has not finished" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
