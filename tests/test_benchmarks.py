"""The benchmark scripts run and their results are complete."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "memory_and_speed.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("memory_and_speed", SCRIPT)
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
    script.main([*tiny, "--memory", "k4", "--memory-repeats", "1", "--out", str(out)])

    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows)
    for k in (1, 2, 3, 4):
        assert {f"3 weight step, K = {k} / {k} plain", f"3 same + teacher, K = {k} / {k} plain"} <= set(by_name)
    assert {name.split()[0] for name in by_name} == {"1", "2", "3", "3b", "7", "-"}
    for row in rows:
        assert 0 < float(row["q1"]) <= float(row["value"]) <= float(row["q3"])
        optional = set() if row["target"] else {"target", "reached"}
        assert all(value for column, value in row.items() if column not in optional), row
        if row["target"]:
            assert row["reached"] == ("reached" if float(row["value"]) <= float(row["target"]) else "not reached")
        assert (row["channels"], row["batch"], row["threads"]) == ("4", "8", "1")
    assert by_name["- memory k4"]["unit"] == "MiB"
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    assert all(any(line.startswith(name) for line in printed) for name in by_name)


def test_targets_are_judged_by_the_unrounded_median(script: Any) -> None:
    assert script.Row("a", [9.0, 1.0301, 0.5], target=1.03).reached == "not reached"
    assert script.Row("a", [9.0, 1.03, 0.5], target=1.03).reached == "reached"
    assert script.Row("a", [9.0]).reached == ""
