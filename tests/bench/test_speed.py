"""``msgdas bench speed``: what a plain network is, that everything runs and is written, and the guard."""

import copy
import csv
import math

import pytest
import torch
from reference import searching

from msgdas.bench import memory, setups, speed
from msgdas.bench.rows import Earlier, Row, write_rows
from msgdas.bench.setups import Contender, Setting, naive, plain_networks, search_of, supernet
from msgdas.cli.main import main
from msgdas.discretize import discretize
from msgdas.errors import InputError
from msgdas.fast import fused, slow_down
from msgdas.methods import METHODS, darts
from msgdas.spaces import SPACES
from msgdas.supernet import select

TINY = ["--channels", "4", "--image-size", "8", "--batch-size", "4", "--rounds", "1"]
CELLS = {"nasbench201": 1, "mbconv": 1, "mbconv-macro": 8}


def setting(space="nasbench201", **others):
    return Setting(space, channels=4, cells=CELLS.get(space, 3), image_size=8, batch_size=4, **others)


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "speed", *map(str, arguments)])
    return stopped.value.code


# ------------------------------------------------------------------- what is plain


@pytest.mark.parametrize("space", ["nasbench201", "darts", "s2", "mbconv", "mbconv-macro"])
def test_the_plain_networks_are_the_sub_graphs_of_the_next_step(space):
    search = search_of(Contender("msgdas", "msgdas", {"k": 2}), setting(space))
    net, kept = plain_networks(search, search.method.sampler, search.net)
    drawn = search.draw()
    x = torch.randn(4, 3, 8, 8)
    assert len(kept) == len(drawn) == 2
    for genotype, subgraph in zip(kept, drawn, strict=True):
        plain = discretize(net, genotype)
        with select(search.net, subgraph):
            assert torch.equal(plain(x), search.net(x))


def test_a_multi_path_method_is_compared_with_a_random_sub_graph_of_a_net_without_options():
    base = supernet(setting("darts"))
    search = search_of(Contender("pc-darts", "pc-darts"), setting("darts"), base)
    assert search.net is not base
    first = plain_networks(search, search.method.sampler, base)
    assert first[0] is base
    assert len(first[1]) == 1
    assert plain_networks(search, search.method.sampler, base) == first
    torch.rand(1, generator=search.generator)
    assert plain_networks(search, search.method.sampler, base)[1] != first[1]


def test_proxylessnas_runs_other_sub_graphs_in_its_two_steps():
    search = search_of(Contender("proxylessnas", "proxylessnas"), setting())
    assert plain_networks(search, search.method.sampler, search.net) != plain_networks(
        search, search.method.weight_sampler, search.net
    )


def test_the_naive_super_net_learns_the_same_alphas():
    net, (x, labels) = supernet(setting("darts")), setups.batch(setting("darts"))
    searches = (
        searching(copy.deepcopy(net), darts(), alpha_lr=0.1),
        searching(copy.deepcopy(net), naive(), alpha_lr=0.1),
    )
    slow_down(searches[1].net)
    for search in searches:
        search.alpha_step((x, labels), (x, labels))
    ours, reference = searches
    for name in ours.alphas.names:
        torch.testing.assert_close(ours.alphas[name], reference.alphas[name], rtol=1e-3, atol=1e-3)
    assert all(p.grad is None for p in reference.net.parameters())


# -------------------------------------------------------------------------- it runs


@pytest.mark.parametrize("space", list(SPACES))
def test_every_space_runs(space):
    contenders = [Contender("k2", "msgdas", {"k": 2}), Contender("darts", "darts")]
    found = speed.measure(setting(space), contenders, rounds=1)
    for text, k in (("k2", 2), ("darts", 1)):
        (one,) = found[text]
        assert one.k == k
        assert all(0 < ratio < math.inf for ratio in one.ratios().values())
        assert set(one.ratios()) == {"weight", "alpha", "step"}


def test_every_method_runs():
    contenders = [Contender(name, name) for name in (*METHODS, "naive")]
    found = speed.measure(setting("s2"), contenders, rounds=1)
    without = {name for name, rounds in found.items() if "alpha" not in rounds[0].ratios()}
    assert without == {name for name, method in METHODS.items() if method().learning != "alternate"}
    assert found["rome"][0].k == 7
    assert (found["gdas"][0].k, found["msgdas"][0].k) == (1, 2)


def test_k_ends_at_the_candidates_of_the_smallest_choice():
    texts = [contender.text for contender in setups.default_contenders(setting("mbconv-macro"))]
    assert texts == ["msgdas:k=1", "msgdas:k=2", "msgdas:k=3", "gdas", "proxylessnas", "darts", "darts-2nd"]


def test_a_complete_csv_and_a_table_of_80_columns(tmp_path, capsys):
    out = tmp_path / "new" / "speed.csv"
    assert run(*TINY, "--no-memory", "--rounds", 2, "--out", out) == 0
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    texts = [*(f"msgdas:k={k}" for k in range(1, 6)), "gdas", "proxylessnas", "darts", "darts-2nd"]
    ratios = [row["name"] for row in rows if row["unit"] == "ratio"]
    assert ratios == [f"{text} {what} / plain" for text in texts for what in ("weight", "alpha", "step")]
    assert {(row["name"], row["unit"]) for row in rows} >= {
        ("gdas weight", "ms"), ("gdas alpha", "ms"), ("gdas images", "images/s"), ("plain images", "images/s"),
    }  # fmt: skip
    for row in rows:
        assert 0 < float(row["q1"]) <= float(row["value"]) <= float(row["q3"])
        assert all(value for column, value in row.items() if column not in ("target", "reached")), row
        assert (row["space"], row["channels"], row["batch"], row["device"]) == ("nasbench201", "4", "4", "cpu")
        assert row["torch"] == torch.__version__
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    assert [line.split()[0] for line in printed[2:12]] == ["plain", *texts]


def test_one_by_one_the_paths_of_several_steps_are_the_same():
    search = search_of(Contender("k4", "msgdas", {"k": 4}), setting("darts"))

    def drawn(steps):
        pairs = [(search.draw(), search.draw(search.method.weight_sampler)) for _ in range(steps)]
        return [
            [{name: gate.active for name, gate in one.items()} for each in part for one in each]
            for part in zip(*pairs, strict=True)
        ]

    with setups.rewound(search):
        together = drawn(3)
    search.method = memory.one_by_one_of(search.method)
    assert drawn(12) == together


def test_memory_is_in_the_table(tmp_path, capsys):
    out = tmp_path / "speed.csv"
    assert run(*TINY, "--methods", "msgdas:k=2:drop=0.5", "--out", out) == 0
    rows = {row["name"]: row for row in csv.DictReader(out.read_text(encoding="utf-8").splitlines())}
    used = [rows[name] for name in ("plain memory", "msgdas:k=2:drop=0.5 memory")]
    assert all(0 < float(row["value"]) < 1000 and row["unit"] == "MiB" for row in used)
    assert rows["msgdas:k=2:drop=0.5 memory / plain"]["unit"] == "ratio"
    plain = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("plain"))
    assert plain.split()[-1] == "1.00"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--space", "nowhere"], "space 'nowhere' is not known"),
        (["--methods", "magic"], "method 'magic' is not known"),
        (["--methods", "msgdas:k=9"], "fewer than k=9"),
        (["--methods", "gdas:epochs=3"], "epochs does not change a step"),
        (["--methods", "rome"], "needs a super-net with searched_edges"),
        (["--compare", "nowhere.csv"], "cannot be read"),
        (["--out", "."], "is a folder"),
        (["--device", "nowhere"], "is not available"),
    ],
)
def test_bad_input_is_one_line(arguments, words, capsys):
    assert run(*TINY, "--no-memory", *arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_both_commands_are_in_the_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "msgdas bench SPACE" in shown
    assert "msgdas bench speed --help" in shown
    assert run("--help") == 0
    shown += capsys.readouterr().out
    assert "Usage: msgdas bench speed" in shown
    assert max(map(len, shown.splitlines())) <= 80


# ------------------------------------------------------------------------ the guard


def earlier(tmp_path, rows, **changed):
    file = tmp_path / "earlier.csv"
    write_rows(file, rows, speed.where(setting(), "wall") | changed)
    return Earlier.read(file, speed.where(setting(), "wall"))


def test_an_equal_result_has_not_grown(tmp_path):
    rows = [Row("a / plain", [1.0, 1.1, 1.2]), Row("a", [5.0], "ms")]
    assert earlier(tmp_path, rows).compare(rows) == (1, [], [])


def test_what_has_grown_is_named(tmp_path):
    before = earlier(tmp_path, [Row("a / plain", [1.0]), Row("b / plain", [1.0]), Row("gone", [1.0])])
    now = [Row("a / plain", [1.26]), Row("b / plain", [1.24]), Row("new", [9.0])]
    compared, missing, grown = before.compare(now)
    assert (compared, missing) == (2, ["gone"])
    (line,) = grown
    assert line.split() == ["a", "/", "plain", "1.000", "->", "1.260,", "above", "1.250"]
    assert len(line) <= 80


def test_times_of_a_machine_are_not_compared(tmp_path):
    assert earlier(tmp_path, [Row("a", [1.0], "ms")]).compare([Row("a", [9.0], "ms")]) == (0, [], [])


def test_noise_widens_the_limit(tmp_path):
    noisy = [0.9, 1.0, 1.1]  # quartile range 0.1
    assert not earlier(tmp_path, [Row("a", noisy)]).compare([Row("a", [1.34])]).grown
    assert earlier(tmp_path, [Row("a", noisy)]).compare([Row("a", [1.36])]).grown


def test_a_result_of_other_settings_or_a_damaged_one_is_refused(tmp_path):
    with pytest.raises(InputError, match="batch 64, this with 4"):
        earlier(tmp_path, [Row("a", [1.0])], batch=64)
    assert earlier(tmp_path, [Row("a", [1.0])], clock="cpu", date="long ago", cpu="another")
    file = tmp_path / "damaged.csv"
    for text in ("", "name,value\na,b\n", "name,value,q1,q3,unit\na,b,c,d,ratio\n"):
        file.write_text(text)
        with pytest.raises(InputError, match="not a result of a benchmark"):
            Earlier.read(file, speed.where(setting(), "wall"))


@pytest.mark.parametrize(("factor", "code"), [(0.01, 1), (100, 0)])
def test_the_guard_sets_the_exit_code(factor, code, tmp_path, capsys):
    out, doctored = tmp_path / "speed.csv", tmp_path / "doctored.csv"
    arguments = [*TINY, "--no-memory", "--methods", "gdas"]
    assert run(*arguments, "--out", out) == 0
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    with doctored.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {name: float(row[name]) * factor for name in ("value", "q1", "q3")})
    capsys.readouterr()
    assert run(*arguments, "--compare", doctored) == code
    shown = capsys.readouterr().out
    assert f"3 ratios compared, {3 if code else 0} have grown" in shown
    assert ("gdas alpha / plain" in shown) == bool(code)
    assert max(len(line) for line in shown.splitlines() if "against" not in line) <= 80  # that is a path


# -------------------------------------------------------------- PyTorch's own operations


@pytest.mark.parametrize("space", ["nasbench201", "darts"])
def test_a_plain_network_of_pytorchs_own_operations_computes_the_same(space):
    search = search_of(Contender("random", "random"), setting(space))
    net, (kept,) = plain_networks(search, search.method.sampler, search.net)
    ours, theirs = (setups.Plain(net, kept, pytorch=own).net for own in (False, True))
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(theirs(x), ours(x))
    assert not any(type(module).__module__.startswith("msgdas.fast") for module in theirs.modules())


def test_it_runs_without_the_kernels(kernels, monkeypatch):
    search = search_of(Contender("random", "random"), setting())
    net, (kept,) = plain_networks(search, search.method.sampler, search.net)
    ours, theirs = (setups.Plain(net, kept, pytorch=own) for own in (False, True))
    ran = []
    monkeypatch.setattr(fused, "_run", lambda *given, of=fused._run: (ran.append(1), of(*given)))
    theirs.step(setups.batch(setting()))
    assert not ran
    ours.step(setups.batch(setting()))
    assert ran


def test_ratios_to_pytorch_are_of_its_own_plain_steps():
    (one,) = speed.measure(setting(), [Contender("gdas", "gdas")], rounds=1, pytorch=True)["gdas"]
    assert one.pytorch is not None
    assert one.ratios_to_pytorch()["weight"] == pytest.approx(one.weight / one.pytorch)
    assert one.plain_alpha == one.plain
    assert one.ratios_to_pytorch()["alpha"] == pytest.approx(one.alpha / one.pytorch)


@pytest.mark.parametrize("turn", [0, 2, 10])
def test_within_two_rounds_each_runs_as_often_before_any_other_as_after_it(turn):
    names = ["plain", "weight", "pytorch", "alpha"]
    first, second = speed.in_turn(names, turn), speed.in_turn(names, turn + 1)
    assert sorted(first) == sorted(names)
    assert second == first[::-1]


def test_who_runs_before_whom_changes():
    before = {tuple(order[i : i + 2]) for t in range(20) for order in [speed.in_turn("abcd", t)] for i in range(3)}
    assert len(before) == 4 * 3
