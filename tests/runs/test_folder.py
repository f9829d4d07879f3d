"""The run folder: nothing is lost, whatever happens and whenever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from disk import killed_after, names

from msgdas.errors import InputError
from msgdas.runs import Run, checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Any:
    with Run.create(tmp_path / "run", {"seed": 0}) as made:
        yield made


def state(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "lines": step,
        "net": {"weight": torch.full((64,), float(step))},
        "rng": torch.get_rng_state(),
    }


# folders and locks


def test_a_run_is_opened_as_it_was_created(tmp_path: Path) -> None:
    with Run.create(tmp_path / "deep" / "run", {"k": 3, "sizes": (8, 8)}) as made:
        assert made.config == {"k": 3, "sizes": [8, 8]}
        assert made.load() is None
        assert made.metrics() == []
    with Run.open(tmp_path / "deep" / "run") as again:
        assert again.config == made.config
        assert again.path == made.path


def test_create_takes_an_empty_folder_and_refuses_any_other(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    Run.create(tmp_path / "empty", {}).close()
    with pytest.raises(InputError, match=r"empty' already holds a run.*--out.*--resume"):
        Run.create(tmp_path / "empty", {"other": 1})
    assert json.loads((tmp_path / "empty" / "config.json").read_text()) == {}

    (tmp_path / "photos").mkdir()
    for name in ("metrics.jsonl", ".hidden"):
        (tmp_path / "photos" / name).write_text("mine")
        with pytest.raises(InputError, match=rf"photos' is not empty \(it holds '{name}'\)"):
            Run.create(tmp_path / "photos", {})
        assert names(tmp_path / "photos") == {name}
        (tmp_path / "photos" / name).unlink()

    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        Run.create(tmp_path / "file", {})
    with pytest.raises(InputError, match="cannot make"):
        Run.create(tmp_path / "file" / "run", {})


def test_a_create_that_failed_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Run.create(tmp_path / "run", {"lr": float("nan")})
    assert names(tmp_path) == set()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="injected"):
        patch.setattr(os, "replace", killed_after(0, os.replace))
        Run.create(tmp_path / "run", {})
    Run.create(tmp_path / "run", {}).close()


def test_open_names_what_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere' is not a run folder"):
        Run.open(tmp_path / "nowhere")
    assert names(tmp_path) == set()
    Run.create(tmp_path / "run", {}).close()
    for damage in (b'{"seed": ', b"[1]\n", b"\xff\xfe"):
        (tmp_path / "run" / "config.json").write_bytes(damage)
        with pytest.raises(InputError, match=r"config\.json' is damaged"):
            Run.open(tmp_path / "run")


def test_one_writer_and_any_number_of_readers(run: Run) -> None:
    run.log({"epoch": 0})
    run.save(state(1))
    with pytest.raises(InputError, match=r"in use by another process: .*--out"):
        Run.open(run.path)
    reader = Run.open(run.path, lock=False)
    assert reader.metrics() == [{"epoch": 0}]
    assert reader.load() is not None
    for write in (lambda: reader.log({}), lambda: reader.save({}), lambda: reader.cut_metrics(0)):
        with pytest.raises(RuntimeError, match="reading only"):
            write()
    run.close()
    run.close()
    with pytest.raises(RuntimeError, match="reading only"):
        run.log({})
    Run.open(run.path).close()


def test_opening_to_write_clears_what_a_killed_process_left(run: Run) -> None:
    leftover = run.path / f".checkpoint.pt.{'0' * 32}.tmp"
    leftover.touch()
    run.close()
    Run.open(run.path, lock=False)
    assert leftover.exists()
    Run.open(run.path).close()
    assert not leftover.exists()


def test_files_get_the_permissions_of_any_new_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    run.save(state(1))
    for name in ("config.json", "checkpoint.pt"):
        assert (run.path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


# metrics


def test_metrics_are_what_was_logged(run: Run) -> None:
    records: list[dict[str, Any]] = [{"epoch": i, "loss": 0.1 * i, "text": "a\nb\u2028é"} for i in range(3)]
    for record in records:
        run.log(record)
    assert run.metrics() == records


def test_a_loss_that_diverged_is_null(run: Run) -> None:
    run.log({"loss": float("nan"), "parts": (1.0, float("-inf")), "more": {"x": float("inf")}})
    assert run.metrics() == [{"loss": None, "parts": [1.0, None], "more": {"x": None}}]


def test_a_torn_last_line_is_no_record_and_does_not_spoil_the_next(run: Run) -> None:
    for torn in (b'{"epoch": 1', b'{"epoch": 1}'):
        run.cut_metrics(0)
        run.log({"epoch": 0})
        with open(run.path / "metrics.jsonl", "ab") as file:
            file.write(torn)
        assert run.metrics() == [{"epoch": 0}]
        run.log({"epoch": 2})
        assert run.metrics() == [{"epoch": 0}, {"epoch": 2}]


def test_a_file_that_is_one_torn_line(run: Run) -> None:
    (run.path / "metrics.jsonl").write_bytes(b'{"ep')
    assert run.metrics() == []
    run.log({"epoch": 0})
    assert run.metrics() == [{"epoch": 0}]


def test_a_damaged_line_is_named(run: Run) -> None:
    (run.path / "metrics.jsonl").write_bytes(b"{}\n?!\n{}\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl' line 2 is damaged"):
        run.metrics()


@pytest.mark.parametrize("lines", [0, 2, 4])
def test_cut_metrics_is_as_if_the_rest_was_never_logged(run: Run, lines: int) -> None:
    written = []
    for i in range(4):
        run.log({"epoch": i})
        written.append((run.path / "metrics.jsonl").read_bytes())
    run.cut_metrics(lines)
    assert (run.path / "metrics.jsonl").read_bytes() == ([b"", *written])[lines]


def test_cut_metrics_refuses_to_invent_lines(run: Run) -> None:
    run.log({"epoch": 0})
    with pytest.raises(InputError, match="has 1 whole lines and its checkpoint was taken after 2"):
        run.cut_metrics(2)
    assert run.metrics() == [{"epoch": 0}]


# checkpoints


def step_of(run: Run) -> int:
    found = run.load()
    assert found is not None
    torch.testing.assert_close(found["net"]["weight"], torch.full((64,), float(found["step"])), rtol=0, atol=0)
    return int(found["step"])


def test_load_gives_the_state_back_and_the_previous_is_kept(run: Run) -> None:
    for step in range(1, 4):
        saved = state(step)
        run.save(saved)
        assert step_of(run) == step
    loaded = run.load()
    assert loaded is not None
    assert torch.equal(loaded["rng"], saved["rng"])
    assert torch.load(run.path / "checkpoint.pt", weights_only=True)["step"] == 3
    assert torch.load(run.path / "checkpoint.prev.pt", weights_only=True)["step"] == 2
    assert names(run.path) == {".lock", "config.json", "metrics.jsonl", "checkpoint.pt", "checkpoint.prev.pt"}


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "emptied":
        data.clear()
    elif how == "truncated":
        del data[len(data) // 2 :]
    elif how == "last byte lost":
        del data[-1]
    else:
        data[int(how) * (len(data) - 1) // 4] ^= 1  # one bit: in the archive, in the tensors, in the digest
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["emptied", "truncated", "last byte lost", "0", "1", "2", "3", "4"])
def test_damage_is_noticed_and_the_previous_state_used_and_kept(run: Run, how: str) -> None:
    run.save(state(1))
    run.save(state(2))
    damage(run.path / "checkpoint.pt", how)
    with pytest.warns(UserWarning, match=r"damaged checkpoint .*checkpoint\.pt' .*: going on .*prev\.pt"):
        assert step_of(run) == 1
    run.save(state(3))  # must not push the damaged one over the good one
    assert step_of(run) == 3
    assert torch.load(run.path / "checkpoint.prev.pt", weights_only=True)["step"] == 1


def test_no_readable_checkpoint_is_an_error_and_not_a_fresh_start(run: Run) -> None:
    run.save(state(1))
    run.save(state(2))
    damage(run.path / "checkpoint.pt", "2")
    damage(run.path / "checkpoint.prev.pt", "truncated")
    with pytest.raises(InputError, match=r"no readable checkpoint: .*checkpoint\.pt.*checkpoint\.prev\.pt.*--out"):
        run.load()


@pytest.mark.parametrize("renames", [0, 1])
def test_a_save_that_fails_loses_nothing(run: Run, monkeypatch: pytest.MonkeyPatch, renames: int) -> None:
    run.save(state(1))
    run.save(state(2))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="injected"):
        patch.setattr(os, "replace", killed_after(renames, os.replace))
        run.save(state(3))
    assert step_of(run) == 2
    run.save(state(4))
    assert step_of(run) == 4
    assert torch.load(run.path / "checkpoint.prev.pt", weights_only=True)["step"] in (1, 2)


def test_a_save_that_cannot_be_written_loses_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save(state(1))
    before = names(run.path)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="injected"):
        patch.setattr(os, "fsync", killed_after(0, os.fsync))
        run.save(state(2))
    assert step_of(run) == 1
    assert names(run.path) == before


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


def test_pickled_objects_are_neither_saved_nor_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save(state(1))
    target = run.path.parent / "pwned"
    with pytest.raises(TypeError, match=r"was given \w+\.mkdir"):
        run.save({"x": Payload(target)})
    assert step_of(run) == 1
    monkeypatch.setattr(checkpoint, "_refuse_objects", lambda buffer: None)
    run.save({"x": Payload(target)})
    with pytest.warns(UserWarning, match="more than tensors and plain values"):
        assert step_of(run) == 1
    assert not target.exists()


WRITER = """
import sys, torch
from msgdas.runs import Run
with Run.create(sys.argv[1], {}) as run:
    for step in range(1, 100_000):
        run.log({"step": step})
        run.save({"step": step, "lines": step, "net": {"weight": torch.full((64,), float(step))}})
        print(step, flush=True)
"""


def test_a_killed_writer_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        try:
            for _ in range(20):
                last = int(writer.stdout.readline())
            with pytest.raises(InputError, match="in use by another process"):
                Run.open(path)
            with Run.open(path, lock=False) as reader:
                assert step_of(reader) >= last
        finally:
            writer.kill()
        for line in writer.stdout:
            last = int(line)
    with Run.open(path) as run:  # the lock died with its holder
        step = step_of(run)
        assert step in (last, last + 1)
        run.cut_metrics(step)
        assert run.metrics() == [{"step": i} for i in range(1, step + 1)]
        run.log({"step": step + 1})
        run.save(state(step + 1))
        assert step_of(run) == step + 1
