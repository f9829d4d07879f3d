"""The benchmark scripts run and their results are complete."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    return load("memory_and_speed", monkeypatch)


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_memory_and_speed_writes_a_complete_csv(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "result.csv"
    tiny = ["--channels", "4", "--batch", "8", "--rounds", "1", "--threads", "1"]
    tiny += ["--image-size", "8"]
    assert script.main([*tiny, "--memory", "k4", "--memory-repeats", "1", "--out", str(out)]) == 0

    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows)
    for k in (1, 2, 3, 4):
        assert {f"3 weight step, K = {k} / plain", f"3 same + teacher, K = {k} / PyTorch's"} <= set(by_name)
    assert {name.split()[0] for name in by_name} == {"1", "2", "3", "3b", "5", "6", "7", "-"}
    for row in rows:
        assert 0 < float(row["q1"]) <= float(row["value"]) <= float(row["q3"])
        optional = set() if row["target"] else {"target", "reached"}
        assert all(value for column, value in row.items() if column not in optional), row
        if row["target"]:
            assert row["reached"] == ("reached" if float(row["value"]) <= float(row["target"]) else "not reached")
        assert (row["channels"], row["batch"], row["threads"], row["image_size"]) == ("4", "8", "1", "8")
    assert by_name["- memory k4"]["unit"] == "MiB"
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    assert all(any(line.startswith(name) for line in printed) for name in by_name)


def test_the_committed_result_can_be_compared_with(script: Any) -> None:
    setting = script.Setting("nasbench201", 8, 1, threads=2)  # as `make bench` measures
    earlier = script.Earlier.read(script.RESULTS, script.speed.where(setting, "wall"))
    assert {"1 one-path weight step / plain", "3 weight step, K = 4 / plain"} <= set(earlier.ratios)


def test_other_settings_than_the_earlier_ones_are_bad_input(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    assert script.main(["--channels", "4", "--compare", str(script.RESULTS), "--out", str(out)]) == 2
    assert "channels 8, this with 4" in capsys.readouterr().err
    assert not out.exists()


def test_targets_are_judged_by_the_unrounded_median(script: Any) -> None:
    assert script.Row("a", [9.0, 1.0301, 0.5], target=1.03).reached == "not reached"
    assert script.Row("a", [9.0, 1.03, 0.5], target=1.03).reached == "reached"
    assert script.Row("a", [9.0]).reached == ""


def test_supernet_has_a_row_for_everything_that_its_pass_may_recompute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, out = load("supernet", monkeypatch), tmp_path / "supernet.csv"
    tiny = ["--channels", "4", "--cells", "1", "--batch", "4", "--image-size", "8", "--threads", "1", "--rounds", "1"]
    monkeypatch.setattr(script.memory, "measure", lambda setting, asked, repeats: {one.text: [8.0] for one in asked})
    assert script.main([*tiny, "--out", str(out)]) == 0
    values = {row["name"]: float(row["value"]) for row in csv.DictReader(out.read_text(encoding="utf-8").splitlines())}
    for what in ("none", "choice", "cell"):
        assert values[f"{what}: memory / K alone"] == 1
        assert values[f"{what}: time / K alone"] > 1
        assert f"{what}: time beyond plain / darts" in values
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_supernet_quality_measures_each_kind_once(tmp_path, monkeypatch):
    script, out, table = load("supernet_quality", monkeypatch), tmp_path / "quality.csv", tmp_path / "table.csv"
    monkeypatch.setattr(script, "RANDOM", 6)
    monkeypatch.setattr(script, "BEST", 4)
    monkeypatch.setattr(script, "use_native", lambda wanted: None)
    cells = [
        f"|{a}~0|+|{b}~0|none~1|+|none~0|none~1|{a}~2|" for a in script.nasbench201.OPERATIONS for b in ("none", a)
    ]
    rows = [f"{cell},{50 + i}" for i, cell in enumerate(dict.fromkeys(cells))]
    table.write_text("\n".join(["genotype,accuracy", *rows]))
    tiny = ["--data", "digits", "--image-size", "8", "--images", "128", "--channels", "2", "--epochs", "3"]
    asked = [str(table), *tiny, "--seeds", "0", "--kinds", ",".join(script.KINDS), "--out", str(out)]
    threads = script.torch.get_num_threads()
    assert script.main(asked) == 0
    first = out.read_text(encoding="utf-8")
    assert script.main(asked) == 0
    script.torch.set_num_threads(threads)
    assert out.read_text(encoding="utf-8") == first
    found = list(csv.DictReader(first.splitlines()))
    assert [row["kind"] for row in found] == list(script.KINDS)
    by_kind = {row["kind"]: row for row in found}
    assert len({by_kind[kind]["random_accuracy"] for kind in ("plain", "sum", "guided", "trained", "longer")}) == 5
    assert all(-1 <= float(row["random_tau_loss"]) <= 1 for row in found)


@pytest.mark.parametrize(("seeds", "line"), [("3-6", "gdas     88"), ("3-12", "in 8 of 8")])
def test_judged_looks_the_committed_cells_up(seeds, line, tmp_path, monkeypatch, capsys):
    """The table holds what the results say of their cells, so their means must come out again."""
    script = load("judged", monkeypatch)
    known = {script.CELL: "90.1987"}
    for name in ("", "_epochs"):
        file = script.PREFIX.with_name(f"{script.PREFIX.name}{name}.csv")
        text = file.read_text(encoding="utf-8")
        (tmp_path / f"judged{name}.csv").write_text(text, encoding="utf-8")
        known |= {row["genotype"]: row["table_accuracy"] for row in csv.DictReader(text.splitlines())}
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["genotype,accuracy", *(f"{cell},{value}" for cell, value in known.items())]))
    assert script.main([str(table), "--prefix", str(tmp_path / "judged"), "--seeds", seeds]) == 0
    printed = capsys.readouterr().out
    assert line in printed
    assert "3 × 3 convolutions everywhere 90.1987" in printed
    assert (tmp_path / "judged.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert script.main([str(tmp_path / "none.csv")]) == 2
