"""The machine gets in the way: a full disk, a signal, a closed pipe, odd names. One line, and nothing is lost."""

import errno
import io
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

import msgdas
from msgdas.cli import train as training_command
from msgdas.cli.main import main
from msgdas.jobs import report as reporting
from msgdas.jobs import search as searching
from msgdas.jobs import train as training
from msgdas.report.terminal import SearchView
from msgdas.retrain import train as retraining
from msgdas.runs import Run

SIZES = ["--epochs", "2", "--channels", "2", "--cells", "1"]
SMALL = [
    "search",
    "--data",
    "digits",
    *SIZES,
    "--warmup",
    "1",
    "--images",
    "64",
    "--batch-size",
    "32",
    "--samples",
    "2",
]
GENOTYPE = "nasbench201:|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|skip_connect~2|"
TRAIN = ["train", GENOTYPE, "--data", "digits", *SIZES, "--batch-size", "256"]
BEGIN = {"search": SMALL, "train": TRAIN}
RESUME = {"search": ["search", "--resume"], "train": ["train", GENOTYPE, "--resume"]}


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return stopped.value.code


def outcome(folder):
    """Records and results without seconds, and the weights."""
    kept = [Run.open(folder, lock=False).metrics()]
    kept += [json.loads((folder / n).read_text()) for n in ("genotype.json", "result.json") if (folder / n).exists()]
    weights = [file.read_bytes() for file in folder.glob("*.safetensors")]
    return _timeless(kept), weights


def _timeless(value):
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key != "seconds"}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    for name, arguments in BEGIN.items():
        assert run(*arguments, "--out", folder / name) == 0
    return folder


@pytest.fixture
def no_report(monkeypatch):
    """A report takes as long as all the rest."""
    monkeypatch.setattr(reporting, "write_report", lambda *_: None)


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith("msgdas: ")
    return error


# the disk


def failing(monkeypatch, name, after, number):
    """``os.NAME`` fails from call ``after`` on, as on a disk that stays full."""
    real, calls = getattr(os, name), iter(range(after))

    def call(*arguments, **more):
        if next(calls, None) is None:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **more)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("name", list(BEGIN))
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("after", [0, 2, 6, 7, 10, 12])  # config, metrics, record, checkpoint, the next one, results
def test_a_full_disk_is_one_line_and_the_run_goes_on_bit_for_bit(name, after, done, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        failing(patch, "fsync", after, errno.ENOSPC)
        assert run(*BEGIN[name], "--out", out) == 2
    line = one_line(capsys)
    assert f"error: '{out}" in line
    assert "No space left on device: mend that, then" in line
    assert not list(out.glob(".*.tmp"))
    begun = (out / "config.json").exists()
    assert ("the same command with --resume goes on" in line) == begun
    assert run(*(RESUME if begun else BEGIN)[name], "--out", out) == 0
    assert outcome(out) == outcome(done / name)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EFBIG, errno.EACCES])
def test_what_else_a_disk_refuses_is_one_line(number, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        failing(patch, "replace", 0, number)
        assert run(*SMALL, "--out", tmp_path / "run") == 2
    assert os.strerror(number) in one_line(capsys)


def test_a_run_folder_that_vanishes_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(SearchView, "epoch", lambda view, record: shutil.rmtree(tmp_path / "run"))
    assert run(*SMALL, "--out", tmp_path / "run") == 2
    line = one_line(capsys)
    assert f"'{tmp_path / 'run/checkpoint.pt'}': No such file or directory: mend that, then give the same" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_report")
def test_a_user_without_a_home_and_a_name_searches(tmp_path, monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME")
    assert run(*SMALL, "--out", tmp_path / "run") == 0


# signals


def first_signal(function, number):
    """``function`` that gets a signal before its first call."""
    left = [number]

    def call(*arguments, **more):
        if left:
            signal.raise_signal(left.pop())
        return function(*arguments, **more)

    return call


@pytest.mark.parametrize(
    ("name", "number", "code"),
    [("search", signal.SIGTERM, 75), ("train", signal.SIGTERM, 75), ("train", signal.SIGINT, 130)],
)
def test_a_signal_before_anything_is_written_leaves_nothing(name, number, code, tmp_path, capsys, monkeypatch):
    module = {"search": searching, "train": training}[name]
    monkeypatch.setattr(module, "find_data", first_signal(module.find_data, number))
    assert run(*BEGIN[name], "--out", tmp_path / "run") == code
    assert capsys.readouterr().err == "msgdas: stopped; the same command starts anew\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(
    ("name", "module", "function", "number", "code"),
    [
        ("search", searching, "fit", signal.SIGTERM, 75),  # the run has begun, its loop has not
        ("search", searching, "select_on_validation", signal.SIGTERM, 75),
        ("search", searching, "select_on_validation", signal.SIGINT, 130),
        ("train", retraining, "resume", signal.SIGTERM, 75),
        ("train", training, "slow_down", signal.SIGTERM, 75),  # trained, and nothing of it written
    ],
)
def test_a_signal_outside_the_loop_says_how_to_go_on(
    name, module, function, number, code, done, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(module, function, first_signal(getattr(module, function), number))
        assert run(*BEGIN[name], "--out", out) == code
    assert capsys.readouterr().err == "msgdas: stopped and saved; the same command with --resume goes on\n"
    assert not (out / "genotype.json").exists()
    assert not (out / "result.json").exists()
    assert run(*RESUME[name], "--out", out) == 0
    assert outcome(out) == outcome(done / name)


@pytest.mark.parametrize(
    ("name", "module", "function"),
    [
        ("search", searching, "_write_genotype"),
        ("search", searching, "report"),
        ("train", training, "save_trained"),
        ("train", training, "write_json"),
    ],
)
def test_a_signal_while_results_are_written_lets_it_finish(name, module, function, done, tmp_path, monkeypatch):
    monkeypatch.setattr(module, function, first_signal(getattr(module, function), signal.SIGTERM))
    assert run(*BEGIN[name], "--out", tmp_path / "run") == 0
    assert outcome(tmp_path / "run") == outcome(done / name)
    assert (tmp_path / "run/report.html").exists() == (name == "search")


def test_a_signal_while_the_report_of_a_training_is_written_lets_it_finish(done, tmp_path, monkeypatch):
    shutil.copytree(done / "search", tmp_path / "run")
    monkeypatch.setattr(training_command, "report", first_signal(training_command.report, signal.SIGTERM))
    assert run("train", tmp_path / "run", *SIZES, "--batch-size", "256") == 0
    assert "test accuracy per class" in (tmp_path / "run/report.html").read_text()


@pytest.mark.usefixtures("no_report")
def test_a_stopped_search_names_the_folder_that_it_chose(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(searching, "_ranked", first_signal(searching._ranked, signal.SIGTERM))
    assert run(*SMALL) == 75
    again = "msgdas search --out runs/digits-msgdas --resume"
    assert capsys.readouterr().err == f"msgdas: stopped and saved; {again} goes on\n"
    assert run(*again.split()[1:]) == 0


# the terminal


@contextmanager
def no_reader(monkeypatch):
    """Standard output is a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    with suppress(BrokenPipeError), open(writing, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield


@pytest.mark.usefixtures("no_report")
@pytest.mark.filterwarnings("always")
def test_a_search_whose_output_is_closed_goes_on(done, tmp_path, capfd, monkeypatch):
    with no_reader(monkeypatch):
        assert run(*SMALL, "--out", tmp_path / "run") == 0
    said = capfd.readouterr().err
    assert said == "msgdas: warning: progress cannot be printed (Broken pipe): going on without\n"
    assert outcome(tmp_path / "run") == outcome(done / "search")


def test_a_list_whose_output_is_closed_ends_quietly(capfd, monkeypatch):
    with no_reader(monkeypatch):
        assert run("methods") == 141
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_list_that_cannot_be_written_is_one_line(capfd, monkeypatch):
    with suppress(OSError), open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run("methods") == 2
    assert "No space left on device" in one_line(capfd)


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(("encoding", "times"), [("latin-1", "×".encode("latin-1")), ("ascii", rb"\xd7")])
def test_a_terminal_that_has_not_every_character_shows_the_rest(encoding, times, done, tmp_path, monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding, write_through=True))
    assert run(*SMALL, "--out", tmp_path / "run") == 0
    assert b"1 " + times + b" 8 " + times + b" 8 pixels" in out.getvalue()
    assert rb"\u2013" in out.getvalue()


# names

ODD = (b"Cat", b"a\nb", b"caf\xe9", b"cat", b"x\x1b[31m")


def images(folder, names, count=12):
    for label, name in enumerate(names):
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(path)
        for i in range(count):
            pixels = np.random.default_rng(100 * label + i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(os.fsdecode(os.path.join(path, b"%d.png" % i)))
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="names must be UTF-8 there")
def test_names_that_are_no_text_survive_to_the_trained_network(tmp_path, capsys):
    data = images(tmp_path / "data\udce9", ODD)
    out = tmp_path / "a\nrun"
    size = ["--channels", "2", "--cells", "1", "--batch-size", "8", "--epochs", "1"]
    assert run("search", "--data", data, *size, "--out", out) == 0
    assert run("train", out, *size) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert rf"run folder: {tmp_path}/a\nrun" in printed.out.splitlines()
    classes = sorted(map(os.fsdecode, ODD))
    assert list(msgdas.load(out).classes) == classes
    assert json.loads((out / "train/model.json").read_text())["classes"] == classes
    assert list(json.loads((out / "train/result.json").read_text())["per_class"]) == classes
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in (r"caf\xe9", r"x\x1b[31m"))

    odd = [os.path.join(data, os.fsdecode(name), "0.png") for name in ODD]
    assert run("predict", out, *odd) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        rf"{tmp_path}/data\xe9/{name}/0.png" for name in ("Cat", r"a\nb", r"caf\xe9", "cat", r"x\x1b[31m")
    ]
    assert {line.split("\t")[1] for line in lines} <= {"Cat", r"a\nb", r"caf\xe9", "cat", r"x\x1b[31m"}
    assert run("predict", out, f"{data}/a\nb/none.png") == 2
    assert r"a\nb/none.png" in one_line(capsys)
    assert run("search", "--out", out, "--resume") == 0


@pytest.fixture
def deep(tmp_path):
    """A path of 3,000 characters. It is removed here, since Python's own functions are recursive."""
    yield tmp_path.joinpath(*["d"] * 1500)
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


@pytest.mark.usefixtures("no_report")
@pytest.mark.skipif(os.pathconf("/", "PC_PATH_MAX") < 4096, reason="a path must be shorter there")
def test_a_path_of_3000_characters_is_a_run_folder_like_any_other(deep, capsys):
    assert run(*SMALL, "--out", deep) == 0
    assert run(*SMALL, "--out", deep) == 2
    line = one_line(capsys)
    assert "already holds a run: give another --out, or go on with it by --resume" in line
    assert len(line) < 1100


def test_a_name_of_3000_characters_is_one_short_line_and_makes_nothing(tmp_path, capsys):
    assert run(*SMALL, "--out", tmp_path / "new" / ("x" * 3000)) == 2
    line = one_line(capsys)
    assert "File name too long): give another --out" in line
    assert len(line) < 1100
    assert list(tmp_path.iterdir()) == []


# data that change under a run

STREAMED = [
    "--max-memory",
    "0",
    "--workers",
    "0",
    "--epochs",
    "3",
    "--channels",
    "2",
    "--cells",
    "1",
    "--batch-size",
    "8",
]


@pytest.mark.usefixtures("no_report")
@pytest.mark.filterwarnings("always")
def test_a_file_that_vanishes_and_one_that_appears_during_a_search(tmp_path, capsys, monkeypatch):
    data = images(tmp_path / "data", (b"a", b"b"), 40)

    def change(view, record):
        if record["epoch"] == 1:
            for file in (data / "a").iterdir():
                file.unlink()
            (data / "a/new.png").write_bytes(b"no image: whoever reads it warns")

    monkeypatch.setattr(SearchView, "epoch", change)
    assert run("search", "--data", data, *STREAMED, "--out", tmp_path / "run") == 0
    said = capsys.readouterr().err.splitlines()
    assert 0 < len(said) <= 40  # each file once
    assert "new.png" not in "".join(said)
    assert all(line.startswith(f"msgdas: warning: left out: image '{data}/a/") for line in said)
    assert len(Run.open(tmp_path / "run", lock=False).metrics()) == 3
    assert run("train", tmp_path / "run", "--epochs", 1) == 2
    assert "1 added ('a/new.png')" in one_line(capsys)


@pytest.mark.usefixtures("no_report")
@pytest.mark.filterwarnings("ignore:left out")
def test_data_that_vanish_during_a_search_are_one_line_and_the_run_stays(tmp_path, capsys, monkeypatch):
    data = images(tmp_path / "data", (b"a", b"b"), 40)
    with monkeypatch.context() as patch:
        patch.setattr(SearchView, "epoch", lambda view, record: data.rename(tmp_path / "moved"))
        assert run("search", "--data", data, *STREAMED, "--out", tmp_path / "run") == 2
    assert "image files can be read any more" in one_line(capsys)
    (tmp_path / "moved").rename(data)
    assert run("search", "--resume", "--out", tmp_path / "run") == 0
    with FileLock(tmp_path / "run/.lock", blocking=False):  # nobody holds it
        assert len(Run.open(tmp_path / "run", lock=False).metrics()) == 3
