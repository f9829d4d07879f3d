"""Curves: every name and number shown, whatever is missing."""

import math
import re
from xml.etree import ElementTree

import matplotlib
import pytest

from msgdas.report import plots
from msgdas.report.palette import KINDS, kind_of, line_colours

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def epochs(count, choices=("cell/0-1", "cell/0-2"), ops=OPS):
    uniform = {op: 1 / len(ops) for op in ops}
    return [
        {
            "epoch": e, "phase": "warmup" if e <= count // 2 else "search", "train_loss": 2 / e, "valid_loss": None,
            "derived_accuracy": 1 - 1 / e, "teacher_accuracy": None, "skip_share": 0.5, "genotype": str(e // 3),
            "alphas": dict.fromkeys(choices, uniform),
        }
        for e in range(1, count + 1)
    ]  # fmt: skip


def test_every_plot_is_one_svg_element_without_references():
    for draw in (plots.losses, plots.accuracies, plots.skip_share, plots.alphas):
        svg = draw(epochs(9))
        assert svg.startswith("<svg ")
        assert svg.rstrip().endswith("</svg>")
        assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', svg))
        assert len(svg) < 30_000


@pytest.mark.parametrize("count", [6, 28])
def test_alphas_name_every_choice_and_candidate(count):
    names = [f"normal/{i}-{i + 1}" for i in range(count)]
    svg = plots.alphas(epochs(4, names))
    for name in [*names, *OPS]:
        assert f">{name}<" in svg


def test_alphas_keep_their_panels_apart():
    root = ElementTree.fromstring(plots.alphas(epochs(4, [f"c/{i}" for i in range(28)])))
    width, height = map(float, root.get("viewBox", "").split()[2:])
    assert width == 980
    assert height > 28 / 4 * 100


def test_the_leader_is_named_and_a_tie_is_not():
    records = epochs(3, ["c"])
    assert plots.alphas(records).count("undecided") == 1
    records[-1]["alphas"] = {"c": {**dict.fromkeys(OPS, 0.1), "nor_conv_3x3": 0.6}}
    svg = plots.alphas(records)
    assert "undecided" not in svg
    assert svg.count(">nor_conv_3x3<") == 2


@pytest.mark.parametrize("name", ["<b>", "$x$", "_hidden", "a & b"])
def test_names_are_only_text(name):
    svg = plots.alphas(epochs(2, [name], (name, "none")))
    shown = [
        t.text.strip("\u200b") for t in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text") if t.text
    ]
    assert shown.count(name) == 2  # panel and legend


def test_warmup_is_in_the_legend_when_there_was_one():
    assert "warm-up" in plots.losses(epochs(6))
    assert "warm-up" not in plots.losses([{**record, "phase": "search"} for record in epochs(6)])


@pytest.mark.parametrize("records", [[], [{}], [{"epoch": 1, "alphas": None, "train_loss": math.nan}], epochs(1)])
def test_gaps_break_nothing(records):
    for draw in (plots.losses, plots.accuracies, plots.skip_share, plots.alphas, plots.retrain_losses):
        assert draw(records).startswith("<svg ")
    assert plots.retrain_accuracies(records, best_epoch=1).startswith("<svg ")


def test_a_curve_without_numbers_is_left_out():
    assert "super-net" not in plots.accuracies(epochs(5))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"teacher_accuracy": 0.4}, "super-net teacher"),
        ({"teacher_accuracy": 0.4, "supernet_accuracy": 0.4}, "super-net"),
    ],
)
def test_a_super_net_that_learns_or_teaches_has_one_line(given, line):
    plot = plots.accuracies([record | given for record in epochs(5)])
    assert plot.count("super-net") == 1
    assert line in plot
    assert ("teacher" in plot) == ("teacher" in line)


def test_the_kept_checkpoint_is_marked():
    records = [{"epoch": e, "train_accuracy": 0.5, "val_accuracy": 0.4} for e in (1, 2, 3)]
    assert "kept, epoch 2" in plots.retrain_accuracies(records, best_epoch=2)
    assert "kept" not in plots.retrain_accuracies(records, best_epoch=7)


def test_drawing_is_repeatable_and_leaves_matplotlib_alone():
    before = dict(matplotlib.rcParams)
    assert plots.alphas(epochs(4)) == plots.alphas(epochs(4))
    assert dict(matplotlib.rcParams) == before


def test_kinds():
    assert [kind_of(op) for op in OPS] == ["none", "skip", "conv", "conv", "pool"]
    assert [kind_of(op) for op in ("", "concat", "identity", "zero", "mbconv3_3x3", "attention")] == [
        "link", "link", "skip", "none", "conv", "other",
    ]  # fmt: skip
    assert len(set(line_colours(OPS).values())) == len(OPS)
    assert set(line_colours([f"conv{i}" for i in range(20)]).values()) == set(KINDS["conv"].lines)
