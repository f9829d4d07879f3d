"""The numbers: closed forms by enumeration, simulation against the closed form."""

import math
from itertools import combinations
from statistics import fmean

import numpy as np
import pytest

from msgdas.compare.specs import parse_methods, parse_seeds
from msgdas.compare.stats import agreement, expected_best, paired, random_search, spread
from msgdas.compare.tables import Table
from msgdas.errors import InputError
from msgdas.genotype import Cell, Genotype
from msgdas.jobs.settings import method_options

VALUES = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_the_expected_best_is_the_mean_over_all_draws(n):
    assert expected_best(VALUES, n) == pytest.approx(fmean(map(max, combinations(VALUES, n))))


def test_random_search_knows_the_best_of_as_many_as_it_trained():
    accuracy = {str(i): value for i, value in enumerate(VALUES)}
    table = Table("t", "accuracy", accuracy, dict.fromkeys(accuracy, 10.0))
    best = random_search(table, [5.0, 10.0, 29.0, 30.0, 1e6], simulations=4000)
    assert best.shape == (4000, 5)
    assert (np.diff(best, axis=1) >= 0).all()
    wanted = [expected_best(VALUES, n) for n in (1, 1, 2, 3, 6)]
    assert best.mean(0) == pytest.approx(wanted, abs=0.15)
    assert (random_search(table, [25.0], simulations=50) == random_search(table, [25.0], simulations=50)).all()


def test_pairs_of_seeds():
    assert paired({0: 3.0, 1: 5.0, 7: 1.0}, {1: 4.0, 0: 3.0, 2: 9.0}) == (2, 0.5, math.sqrt(0.5), 1)
    assert paired({0: 1.0}, {1: 1.0}) is None
    assert spread([]) is None
    assert spread([2.0, 4.0]) == (2, 3.0, math.sqrt(2), 2.0, 4.0)
    assert math.isnan(spread([2.0]).std)


def test_agreement():
    a, b = Genotype("x", {"1": "p", "2": "q"}), Genotype("x", {"1": "p", "2": "r"})
    assert agreement([a, b]) == 0.5
    assert agreement([a, b, a]) == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert math.isnan(agreement([a]))
    cells = [Genotype("x", cells={"n": Cell(((("p", 0), (op, source)),), (2,))}) for op, source in (("q", 1), ("r", 1))]
    assert agreement(cells) == pytest.approx(2 / 3)  # the node's inputs and one of its two edges


def test_specs():
    one, other = parse_methods("msgdas:k=3:alpha-lr=0.1, gdas", method_options)
    assert one.arguments() == ["--method=msgdas", "--k=3", "--alpha-lr=0.1"]
    assert one.folder == "msgdas-k=3-alpha-lr=0.1"
    assert (other.text, other.arguments()) == ("gdas", ["--method=gdas"])
    assert [parse_seeds(text) for text in ("3", "0-3", "0,2,5", "1-2,2,7")] == [[3], [0, 1, 2, 3], [0, 2, 5], [1, 2, 7]]


@pytest.mark.parametrize(
    ("parse", "text", "line"),
    [
        (parse_methods, "", "name one or more of msgdas"),
        (parse_methods, "msgdaz", "method 'msgdaz' is not known"),
        (parse_methods, "gdas:k=2", "'k' is not an option of gdas here"),
        (parse_methods, "msgdas:out=x", "'out' is not an option of msgdas here"),
        (parse_methods, "msgdas:k", "'k' is not an option=value, such as k=3"),
        (parse_methods, "gdas,gdas", "'gdas' is given twice"),
        *((parse_seeds, text, "give 3, 0-3 or 0,2,5") for text in ("", "a", "3-1", "-1", "1,,2", "0-99999999")),
    ],
)
def test_bad_specs(parse, text, line):
    with pytest.raises(InputError, match=line):
        parse(text, method_options) if parse is parse_methods else parse(text)
