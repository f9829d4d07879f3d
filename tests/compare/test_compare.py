"""``msgdas bench`` end to end: real searches on digits, stopped and gone on with, with and without a table."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from itertools import product

import pytest

from msgdas.cli.main import main
from msgdas.compare import queue
from msgdas.runs import Run
from msgdas.spaces.nasbench201 import OPERATIONS

SMALL = [
    "--data",
    "digits",
    "--epochs",
    "3",
    "--warmup",
    "1",
    "--channels",
    "2",
    "--images",
    "64",
    "--batch-size",
    "32",
]
CELL = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
BEST = CELL.format(*["nor_conv_3x3"] * 6)


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return stopped.value.code


def assert_fits(printed):
    assert not [line for line in printed.splitlines() if len(line) > 80 and not line.startswith("written in ")]


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """All cells; 3 × 3 convolutions are worth 15 points each, and so are the seconds."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    lines = ["genotype,accuracy,train_seconds"]
    for operations in product(OPERATIONS, repeat=6):
        worth = 5 + 15 * operations.count("nor_conv_3x3")
        lines.append(f"{CELL.format(*operations)},{worth},{worth / 100}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def compared(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "out"
    arguments = ["--methods", "msgdas:k=2,random", "--seeds", "0-1", "--table", table, "--reference", BEST]
    assert run("bench", "nasbench201", *arguments, *SMALL, "--jobs", 2, "--out", out) == 0
    return out


def test_every_search_is_a_run_folder_of_its_own(compared):
    for spec, seed in product(("msgdas-k=2", "random"), (0, 1)):
        folder = compared / spec / f"seed-{seed}"
        settings = Run.open(folder, lock=False).config["settings"]
        assert (settings["seed"], settings["epochs"], settings["threads"]) == (seed, 3, 1)
        assert (folder / "genotype.json").exists()
        memory = json.loads((compared / spec / f"seed-{seed}.json").read_text())["peak_memory_mib"]
        assert 50 < json.loads((compared / "base.json").read_text())["memory_mib"] * 0.9 < memory


def test_epochs_and_results(compared, table):
    worth = {row["genotype"]: float(row["accuracy"]) for row in read(table)}
    epochs, results = read(compared / "epochs.csv"), read(compared / "results.csv")
    assert [(r["method"], r["seed"]) for r in results] == [*product(("msgdas:k=2", "random"), "01")]
    assert [r["epoch"] for r in epochs] == ["1", "2", "3"] * 4
    assert [r["phase"] for r in epochs[:3]] == ["warmup", "search", "search"]
    for row in epochs + results:
        assert float(row["table_accuracy"]) == worth[row["genotype"]]
    for row, last in zip(results, epochs[2::3]):
        kept = ("genotype", "seconds", "skip_share", "derived_accuracy")
        assert [row[name] for name in kept] == [last[name] for name in kept]
        assert float(row["peak_memory_mib"]) > 0
        assert row["threads"] == "1"


def test_summary_and_plot(compared):
    page = (compared / "summary.md").read_text()
    values = [float(r["table_accuracy"]) for r in read(compared / "results.csv")]
    mean = sum(values[:2]) / 2
    assert f"| msgdas:k=2 | 2 | {mean:.2f} ± " in page
    difference = mean - sum(values[2:]) / 2
    ahead = sum(a > b for a, b in zip(values[:2], values[2:]))
    assert f"| random | 2 | {difference:+.2f} ± " in page
    assert f"| {ahead} of 2 |" in page
    assert "| best in the table | 95.00 |" in page
    assert "| reference | 95.00 |" in page
    assert "as random | " in page
    assert "hardware, a GPU" in page
    assert (compared / "plot.png").read_bytes().startswith(b"\x89PNG")
    svg = (compared / "plot.svg").read_text()
    assert all(text in svg for text in ("msgdas:k=2, 2 seeds", "random search", "best in the table, 95.00"))
    skips = (compared / "skips.svg").read_text()
    assert all(text in skips for text in ("msgdas:k=2, 2 seeds", "random, 2 seeds", "epoch"))
    assert not list(compared.rglob("*.tmp"))


def test_done_again_nothing_is_searched_and_all_lines_fit(compared, table, tmp_path, capsys, monkeypatch):
    shutil.copytree(compared, tmp_path / "out")
    monkeypatch.setattr(queue, "_Child", None)
    arguments = ["--methods", "msgdas:k=2,random", "--seeds", "0-1", *SMALL, "--out", tmp_path / "out"]
    assert run("bench", "nasbench201", *arguments, "--table", table, "--reference", BEST) == 0
    printed = capsys.readouterr().out
    assert_fits(printed)
    assert [line.split()[0] for line in printed.splitlines()[1:5]] == ["1/4", "2/4", "3/4", "4/4"]
    assert (tmp_path / "out/results.csv").read_bytes() == (compared / "results.csv").read_bytes()
    assert (tmp_path / "out/plot.svg").read_bytes() == (compared / "plot.svg").read_bytes()


def test_without_a_table(compared, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(compared, out)
    for name in ("plot.svg", "plot.png"):
        (out / name).unlink()
    assert run("bench", "nasbench201", "--methods", "msgdas:k=2,random", "--seeds", "0,1", *SMALL, "--out", out) == 0
    printed = capsys.readouterr().out
    assert_fits(printed)
    page = (out / "summary.md").read_text()
    assert "shared weights %" in page
    assert "agree" in page
    assert "random search" not in page
    assert {row["table_accuracy"] for row in read(out / "results.csv")} == {""}
    assert not (out / "plot.svg").exists()
    assert (out / "skips.png").read_bytes().startswith(b"\x89PNG")


def test_nas_bench_macro_with_its_own_table(tmp_path, capsys):
    """The table in the benchmark's form, by the number of convolutions; all digits of 2 are best."""
    entries = {"".join(d): {"mean_acc": 80 + sum(map(int, d)) / 2} for d in product("012", repeat=8)}
    (tmp_path / "macro.json").write_text(json.dumps(entries))
    arguments = [
        "--methods",
        "proxylessnas",
        "--seeds",
        "0",
        "--table",
        tmp_path / "macro.json",
        "--reference",
        "2" * 8,
    ]
    assert run("bench", "mbconv-macro", *arguments, *SMALL, "--out", tmp_path / "out") == 0
    assert_fits(capsys.readouterr().out)
    (result,) = read(tmp_path / "out/results.csv")
    assert float(result["table_accuracy"]) == entries[result["genotype"]]["mean_acc"]
    page = (tmp_path / "out/summary.md").read_text()
    assert "| best in the table | 88.00 |" in page
    assert "| reference | 88.00 |" in page


def test_a_table_without_seconds_or_with_gaps(compared, table, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(compared, out)
    arguments = ["--methods", "msgdas:k=2,random", "--seeds", "0,1", *SMALL, "--out", out]
    rows = read(table)
    lines = [f"{row['genotype']},{row['accuracy']}" for row in rows]
    (tmp_path / "t.csv").write_text("\n".join(["genotype,accuracy", *lines]))
    assert run("bench", "nasbench201", *arguments, "--table", tmp_path / "t.csv") == 0
    page = (out / "summary.md").read_text()
    assert "random search for" not in page
    assert "| best of 100 random genotypes, mean |" in page
    missing = read(out / "results.csv")[0]["genotype"]
    (tmp_path / "t.csv").write_text("\n".join(["genotype,accuracy", *(x for x in lines if missing not in x)]))
    capsys.readouterr()
    assert run("bench", "nasbench201", *arguments, "--table", tmp_path / "t.csv") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"has no 'accuracy' for {missing}" in error
    assert read(out / "results.csv")[0]["table_accuracy"] == ""


@pytest.mark.parametrize("kill", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_stopped_and_gone_on_with(kill, compared, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(compared / "random", out / "random")  # one that is done, and one that is stopped
    shutil.copy(compared / "base.json", out)
    long = [*SMALL, "--methods", "msgdas:k=2:epochs=60:warmup=1", "--seeds", "0", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "msgdas", "bench", "nasbench201", *long], stderr=subprocess.PIPE, text=True
    )
    folder = out / "msgdas-k=2-epochs=60-warmup=1/seed-0"
    deadline = time.monotonic() + 100
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert run("bench", "nasbench201", *long) == 2  # a second queue in the same folder
    assert "another queue works in" in capsys.readouterr().err
    process.send_signal(kill)
    _, error = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 75, signal.SIGINT: 130}[kill]
    assert error.strip() == "msgdas: stopped and saved; the same command goes on"
    assert not (folder / "genotype.json").exists()
    before = len(Run.open(folder, lock=False).metrics())
    assert 1 <= before < 60
    notes = json.loads(folder.with_name("seed-0.json").read_text())
    folder.with_name("seed-0.json").write_text(json.dumps(notes | {"peak_memory_mib": 10**6}))
    assert run("bench", "nasbench201", *long) == 0
    assert len(Run.open(folder, lock=False).metrics()) == 60
    assert read(out / "results.csv")[0]["peak_memory_mib"] == "1000000"  # the most of all its parts


def test_what_failed_is_said_at_the_end(compared, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(compared, out)
    arguments = ["--methods", "msgdas:k=9,random", "--seeds", "0", *SMALL, "--out", out]
    assert run("bench", "nasbench201", *arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "1 of 2 searches failed, first msgdas:k=9 seed 0: choice 'cell/0-1' has 5 candidates" in printed.err
    assert_fits(printed.out)
    assert [row["method"] for row in read(out / "results.csv")] == ["random"]


def test_other_settings_are_not_reused(compared, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(compared, out)
    arguments = ["bench", "nasbench201", "--methods", "random", "--seeds", "0", *SMALL, "--out", out]

    def fails(line, *more):
        capsys.readouterr()
        assert run(*arguments, *more) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1)
        assert line in printed.err

    fails("seed-0' began with epochs 3, not 4", "--epochs", "4")
    fails("seed-0' began with samples None, not 5", "--samples", "5")
    (out / "random/seed-0.json").write_text("{")
    fails("is damaged")
    (out / "random/seed-0.json").unlink()
    fails("is not of this queue")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nasbench", *SMALL], "space 'nasbench' is not known"),
        (["nasbench201"], "--data is missing"),
        (["nasbench201", *SMALL, "--methods", "x"], "method 'x' is not known"),
        (["nasbench201", *SMALL, "--methods", "msgdas:k=x"], "'--k': 'x' is not a valid integer"),
        (["nasbench201", *SMALL, "--seeds", "x"], "--seeds 'x'"),
        (["nasbench201", *SMALL, "--table", "nowhere.csv"], "No such file"),
        (["nasbench201", *SMALL, "--reference", BEST], "--reference needs --table"),
        (["nasbench201", *SMALL, "--jobs", "0"], "--jobs"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("bench", *arguments, "--out", "out") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert line in printed.err
    assert list(tmp_path.iterdir()) == []


def test_out_is_needed_and_must_be_a_folder(tmp_path, capsys):
    assert run("bench", "nasbench201", *SMALL) == 2
    (tmp_path / "file").touch()
    assert run("bench", "nasbench201", *SMALL, "--out", tmp_path / "file") == 2
    error = capsys.readouterr().err
    assert "--out is missing" in error
    assert f"cannot write in '{tmp_path / 'file'}'" in error
