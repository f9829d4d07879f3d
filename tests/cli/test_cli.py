"""The command line end to end on small runs: what it leaves, resuming bit for bit, and one line for bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import msgdas
from msgdas.cli.main import main
from msgdas.data import fingerprint
from msgdas.data.form import Form
from msgdas.jobs.resolve import begun_form, begun_mirror, find_data
from msgdas.jobs.settings import SearchSettings
from msgdas.methods import METHODS
from msgdas.runs import Run, write_json
from msgdas.spaces import SPACES

SMALL = [
    "--data",
    "digits",
    "--epochs",
    "4",
    "--warmup",
    "2",
    "--channels",
    "4",
    "--images",
    "128",
    "--batch-size",
    "32",
]
PROGRAM = [sys.executable, "-c", "from msgdas.cli.main import main; main()"]


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return stopped.value.code


def same_search(a, b):
    a, b = Run.open(a, lock=False), Run.open(b, lock=False)
    drop = lambda records: [{k: v for k, v in r.items() if k != "seconds"} for r in records]  # noqa: E731
    assert drop(a.metrics()) == drop(b.metrics())
    same_values(a.load(), b.load())


def same_values(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a.keys() - {"seconds"}:
            same_values(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same_values(x, y)
    else:
        assert a == b


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run("search", *SMALL, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def trained(searched):
    assert run("train", searched, "--epochs", "3", "--channels", "4", "--cells", "1") == 0
    return searched


def test_a_search_leaves_its_run_folder(searched):
    files = {p.name for p in searched.iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoint.pt", "genotype.json", "report.html"} <= files
    records = Run.open(searched, lock=False).metrics()
    assert [r["epoch"] for r in records] == [1, 2, 3, 4]
    assert [r["phase"] for r in records] == ["warmup", "warmup", "search", "search"]
    assert records[-1]["genotype"] == json.loads((searched / "genotype.json").read_text())["string"]
    config = json.loads((searched / "config.json").read_text())
    assert config["settings"]["seed"] == 0
    assert config["search"]["sampler"] == {
        "name": "GumbelTopK",
        "k": 3,
        "assignment": "shuffle",
        "normalise": "remaining",
        "reuse": False,
    }
    assert config["search"]["hypergradient"] == "compare"
    assert config["search"]["drop"] == [0.5, 0.0]
    assert config["search"]["weight_optimizer"]["momentum"] == 0.9
    assert config["versions"]["threads"] == torch.get_num_threads()


def test_the_same_seed_gives_the_same_search_and_another_seed_another(searched, tmp_path):
    assert run("search", *SMALL, "--out", tmp_path / "again") == 0
    same_search(searched, tmp_path / "again")
    assert run("search", *SMALL, "--seed", 1, "--out", tmp_path / "other") == 0
    losses = [Run.open(p, lock=False).metrics()[0]["train_loss"] for p in (searched, tmp_path / "other")]
    assert losses[0] != losses[1]


def test_a_run_from_before_an_option_goes_on_and_one_of_other_defaults_does_not(searched, tmp_path, capsys):
    old = tmp_path / "old"
    shutil.copytree(searched, old)
    config = json.loads((old / "config.json").read_text())
    del config["settings"]["cost_weight"], config["settings"]["drop_in_alpha_steps"], config["search"]["learning"]
    del config["version"]
    config["search"]["weight_optimizer"]["dampening"] = 0  # described by an older version alone
    write_json(old / "config.json", config)
    assert run("search", "--out", old, "--resume") == 0
    config["search"]["clip"] = 3.0
    write_json(old / "config.json", config)
    capsys.readouterr()
    assert run("search", "--out", old, "--resume") == 2
    assert "began with clip 3.0 and would go on with 5.0: finish it with msgdas" in capsys.readouterr().err


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"msgdas"}))
def test_every_method_searches_from_the_command_line(method, tmp_path):
    space = "s2" if method == "rome" else "nasbench201"
    sizes = ["--space", space, "--epochs", 3, "--warmup", 1, "--images", 64, "--channels", 4]
    cells = ["--cells", 3] if space == "s2" else []
    cost = ["--cost-weight", 0.5] if method in ("proxylessnas", "snas") else []
    out = tmp_path / "run"
    assert run("search", "--data", "digits", "--method", method, *sizes, *cells, *cost, "--out", out) == 0
    config = json.loads((out / "config.json").read_text())
    assert len(config["search"]["penalties"]) == bool(cost) + (method == "drnas")
    assert json.loads((out / "genotype.json").read_text())["space"] == space


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_search_goes_on_bit_for_bit(searched, tmp_path, kill):
    out = tmp_path / "run"
    slow = f"import time, msgdas.search.search as s; step = s.Search.step; n = [0]\n{PAUSE}"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{slow}\nfrom msgdas.cli.main import main; main()", "search", *SMALL, "--out", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not (out / "paused").exists():  # in the middle of the third epoch
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(kill)
    _, error = process.communicate(timeout=100)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 75, signal.SIGINT: 130}[kill]
    if kill != signal.SIGKILL:
        assert error.strip().splitlines()[-1].startswith("msgdas: stopped and saved")
    assert not (out / "genotype.json").exists()
    assert len(Run.open(out, lock=False).metrics()) == 2
    os.remove(out / "paused")
    assert run("search", "--out", out, "--resume") == 0
    same_search(searched, out)


PAUSE = """
def paused(self, *a):
    n[0] += 1
    if n[0] == 6 + 10:  # six trial steps for the estimate, then step 2 of epoch 3
        import pathlib, sys
        pathlib.Path(sys.argv[sys.argv.index("--out") + 1], "paused").touch()
        time.sleep(3)
    return step(self, *a)
s.Search.step = paused
"""


def test_a_training_leaves_a_network_that_predicts(trained, tmp_path, capsys):
    result = json.loads((trained / "train/result.json").read_text())
    assert 0 <= result["test_accuracy"] <= 1
    assert result["params"] > 0
    assert sum(map(sum, result["confusion"])) == 359
    correct = sum(result["confusion"][i][i] for i in range(10))
    assert correct / 359 == pytest.approx(result["test_accuracy"])
    network = msgdas.load(trained)
    data = msgdas.load_data("digits")
    predicted = network(data.test.pixels).argmax(1)
    assert (predicted == data.test.labels).double().mean().item() == pytest.approx(result["test_accuracy"], abs=1e-9)
    image = tmp_path / "7.png"
    Image.fromarray(data.test.pixels[0, 0].numpy()).resize((40, 30)).convert("RGBA").save(image)
    capsys.readouterr()
    assert run("predict", trained, image) == 0
    path, name, probability = capsys.readouterr().out.strip().split("\t")
    assert (path, name) == (str(image), next(iter(network.predict(image))))
    assert 0.1 <= float(probability) <= 1
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert run("predict", trained, broken, image) == 2
    said = capsys.readouterr()
    assert said.out.strip().split("\t") == [path, name, f"{probability}"]
    assert said.err.splitlines() == [
        f"msgdas: error: image '{broken}' cannot be read: cannot identify image file '{broken}'"
    ]
    assert f"{100 * result['test_accuracy']:.2f}"[:4] in (trained / "report.html").read_text()


def test_a_training_goes_on_bit_for_bit(trained, tmp_path):
    options = ["--data", "digits", "--epochs", "3", "--channels", "4", "--cells", "1"]
    genotype = trained / "genotype.json"
    process = subprocess.Popen(
        [*PROGRAM, "train", str(genotype), *options, "--out", str(tmp_path / "t")], stdout=subprocess.DEVNULL
    )
    while not (tmp_path / "t/checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert run("train", genotype, "--out", tmp_path / "t", "--resume") == 0
    same_search(trained / "train", tmp_path / "t")
    results = [json.loads((p / "result.json").read_text()) for p in (trained / "train", tmp_path / "t")]
    assert results[0]["confusion"] == results[1]["confusion"]


def test_show(trained, capsys):
    assert run("show", trained) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 95 for line in shown.splitlines())
    assert run("show", trained, "--json") == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["string"] == json.loads((trained / "genotype.json").read_text())["string"]
    assert (seen["in_channels"], seen["image_size"]) == (1, 8)
    text = "nasbench201:|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
    assert run("show", text, "--json") == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["space"], seen["params"], seen["macs"]) == ("nasbench201", 802426, 113951360)


@pytest.mark.parametrize(
    ("arguments", "params", "macs"),
    [
        (["--channels", 36, "--layers", 20], 3_349_342, 528_359_040),
        (["--network", "imagenet", "--channels", 48, "--layers", 14, "--classes", 1000, "--image-size", 224], 4_718_752,
         529_911_552),
    ],
)  # fmt: skip
def test_show_a_published_cell(arguments, params, macs, tmp_path, capsys):
    assert run("show", "darts:DARTS_V2", *arguments, "--json") == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["params"], seen["macs"]) == (params, macs)
    file = tmp_path / "cell.txt"
    file.write_text(f"darts:{seen['string']}\n")
    for source in (f"darts:{seen['string']}", file):  # a text longer than any path, and a file of it
        assert run("show", source, *arguments, "--json") == 0
        assert json.loads(capsys.readouterr().out) == seen


def test_the_darts_space_end_to_end(tmp_path, capsys):
    small = ["--channels", "4", "--cells", "3"]
    options = ["--epochs", "2", "--warmup", "1", "--images", "64", "--batch-size", "32", "--samples", "3"]
    assert run("search", "--data", "digits", "--space", "darts", *small, *options, "--out", tmp_path / "run") == 0
    found = json.loads((tmp_path / "run/genotype.json").read_text())
    assert found["string"] == found["ranked"][0]["genotype"]
    assert len(found["ranked"]) == 4
    assert found["string"].startswith("Genotype(normal=[")
    capsys.readouterr()
    assert run("train", tmp_path / "run", *small, "--recipe", "darts", "--epochs", "1") == 0
    config = json.loads((tmp_path / "run/train/config.json").read_text())["settings"]
    assert (config["auxiliary"], config["drop_path"], config["batch_size"]) == (0.4, 0.2, 96)
    result = json.loads((tmp_path / "run/train/result.json").read_text())
    network = msgdas.load(tmp_path / "run")
    assert sum(p.numel() for p in network.network.parameters()) == result["params"]  # no auxiliary head is left
    data = msgdas.load_data("digits")
    predicted = network(data.test.pixels).argmax(1)
    assert (predicted == data.test.labels).double().mean().item() == pytest.approx(result["test_accuracy"], abs=1e-9)


def test_a_run_goes_on_from_disk_as_it_began(tmp_path, capsys):
    """Whatever memory is free then: mean and deviation of images read from disk are of a sample."""
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (8, 8), (i, 9 * i, 90 if name == "a" else 10)).save(
                tmp_path / "images" / name / f"{i}.png"
            )
    small = ["--image-size", "8", "--epochs", "2", "--channels", "2", "--batch-size", "8", "--workers", "0"]
    assert run("search", "--data", tmp_path / "images", *small, "--max-memory", "0", "--out", tmp_path / "run") == 0
    assert "read from disk by this process" in capsys.readouterr().out
    assert Run.open(tmp_path / "run", lock=False).config["dataset"]["streams"]
    assert run("search", "--out", tmp_path / "run", "--resume") == 0
    assert "read from disk by this process" in capsys.readouterr().out


def test_check(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("L", (40, 40), 10 * i + (name == "a")).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "photos/a/broken.jpg").write_bytes(b"")
    assert run("check", tmp_path / "photos") == 0
    shown = capsys.readouterr().out
    assert "a/broken.jpg: empty file" in shown
    assert "msgdas search --data" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert run("check", tmp_path / "photos", "--json") == 0
    assert json.loads(capsys.readouterr().out)["unreadable"] == {"a/broken.jpg": "empty file"}
    assert run("check", tmp_path / "nowhere") == 2


def test_it_starts_without_what_only_some_commands_need():
    """Each of them takes half a second or more to import."""
    slow = {"matplotlib", "scipy", "sklearn", "torch._dynamo", "torchvision"}
    code = f"import sys, msgdas.cli.main; print({slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_a_first_step_has_imported_neither_torchvision_nor_compilers(tmp_path):
    """Nothing of them is used, and they take as long as all else of PyTorch."""
    code = """
import os, sys
from msgdas.cli.main import main
from msgdas.search.search import Search

step = Search.step
def first(self, *batches):
    step(self, *batches)
    print({"torch._dynamo", "torchvision", "triton"} & set(sys.modules), flush=True)
    os._exit(0)

Search.step = first
main()
"""
    command = [sys.executable, "-c", code, "search", *SMALL, "--out", tmp_path / "run"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.endswith("\nset()\n")


def test_lists(capsys):
    assert run("spaces") == 0
    assert run("methods") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("nasbench201", *SPACES, *METHODS))
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_an_image_folder_end_to_end(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("hell", 180)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(level - 40, level + 40, (13, 17, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    small = ["--image-size", "8x12", "--epochs", "2", "--channels", "4", "--batch-size", "8"]
    assert run("search", "--data", tmp_path / "images", *small, "--out", tmp_path / "run") == 0
    assert run("train", tmp_path / "run", "--epochs", "4", "--channels", "4", "--cells", "1", "--batch-size", "8") == 0
    result = json.loads((tmp_path / "run/train/result.json").read_text())
    assert result["test_accuracy"] > 0.9
    network = msgdas.load(tmp_path / "run")
    assert network.form == Form(3, 8, 12)
    assert network.description["resampling"] == "bicubic"
    assert result["macs"] == msgdas.cost.count(network.network, 3, (8, 12)).macs
    noted = Run.open(tmp_path / "run", lock=False).config["dataset"]
    assert (noted["image_size"], noted["form"]["width"]) == (8, 12)
    capsys.readouterr()
    assert run("predict", tmp_path / "run", tmp_path / "images/hell/0.png") == 0
    assert "\thell\t" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["search"], "--data is missing"),
        (["search", "--data", "digitz"], "Did you mean 'digits'?"),
        (["search", *SMALL, "--space", "x"], "space 'x' is not known"),
        (["search", *SMALL, "--method", "x"], "method 'x' is not known"),
        (["search", *SMALL, "--k", "6"], "choice 'cell/0-1' has 5 candidates, fewer than k=6"),
        (["search", *SMALL, "--k", "0"], "--k 0: use 1 or more"),
        (["search", *SMALL, "--k", "1", "--gradient", "compare"], "two or more sub-graphs"),
        (["search", *SMALL, "--warmup", "4"], "leave at least one epoch"),
        (["search", *SMALL, "--images", "10000"], "images=10000 in each half"),
        (["search", *SMALL, "--device", "cuda:77"], "device 'cuda:77'"),
        (["search", *SMALL, "--bogus"], "--bogus"),
        (["search", *SMALL, "--epochs", "-1"], "use 1 or more"),
        (["search", *SMALL, "--method", "gdas", "--k", "2"], "not an option of method gdas"),
        (["search", *SMALL, "--method", "rome"], "which space nasbench201 does not have: use darts, s1"),
        (["search", *SMALL, "--method", "random", "--cost-weight", "1"], "which learns no alphas"),
        (["search", "--resume"], "--resume needs --out"),
        (["train", "nowhere"], "is not a run folder"),
        (["train", "darts:DARTS_V2", "--data", "digits"], "--out is missing"),
        (["train", "darts:DARTS_V9", "--data", "digits", "--out", "t"], "use NASNet"),
        (["train", "darts:DARTS_V2", "--data", "digits", "--out", "t", "--cutout", "2"], "--cutout 2.0: use 0 to 1"),
        (["show", "nasbench201:|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "--network", "cifar"], "one form"),
        (["search", "--data", "x" * 5000], "neither a known name"),
        (["search", "--data", "cifar10", "--data-dir", "nowhere"], "--download"),
        (["search", *SMALL, "--samples", "0"], "--samples 0: use 1 or more"),
        (["search", *SMALL, "--micro-batches", "3"], "a batch of 32 does not divide into 3 equal micro-batches"),
        (["search", *SMALL, "--micro-batches", "48", "--batch-size", "640"], "a batch of 128 does not divide"),
        (["search", *SMALL, "--channels", "100000"], "of memory: make them smaller"),
        (["search", *SMALL, "--space", "darts", "--channels", "100000", "--cells", "1000"], "of memory: make them"),
        (["bench", "nasbench201", *SMALL, "--warmup", "4", "--out", "b", "--seeds", "0"], "leave at least one epoch"),
        (["bench", "nasbench201", *SMALL, "--methods", "msgdas:micro-batches=3", "--out", "b"], "does not divide into"),
        (["bench", "speed", "--space", "darts", "--channels", "100000", "--out", "b"], "of memory: make them smaller"),
        (
            ["show", "darts:DARTS_V2", "--image-size", "1000000"],
            "image size 1000000: use 4 pixels or more, and at most",
        ),
        (["show", "nasbench201:|x~0|"], "NAS-Bench-201 string"),
        (["report", "nowhere"], "not a run folder"),
        (["predict", "nowhere", "x.png"], "no trained network"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = ["--out", "out"] if arguments[0] == "search" and arguments[-1] != "--resume" else []
    assert run(*arguments, *out) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert line in printed.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten_and_damage_is_one_line(trained, tmp_path, capsys):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", trained, copy], check=True)

    def fails(line, *arguments):
        capsys.readouterr()
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert line in error

    fails("already holds a run", "search", *SMALL, "--out", copy)
    fails("already holds a run", "train", copy, "--epochs", "1")
    fails("--epochs 9 is not the run's 4", "search", "--out", copy, "--epochs", "9", "--resume")
    (copy / "genotype.json").write_text("{")
    fails("genotype.json", "show", copy)
    for name in ("checkpoint.pt", "checkpoint.prev.pt"):
        (copy / name).write_bytes((copy / name).read_bytes()[:-100])
    fails("no readable checkpoint", "search", "--out", copy, "--resume")
    (copy / "train/model.safetensors").write_bytes(b"x")
    fails("is damaged", "predict", copy, "x.png")
    (copy / "config.json").write_text("[")
    fails("is damaged", "report", copy)


@pytest.mark.parametrize(
    "command",
    [
        ["search", *SMALL],
        ["search", "--resume"],
        ["train", "darts:DARTS_V2", "--data", "digits", "--epochs", "1"],
        ["train", "darts:DARTS_V2", "--resume"],
        ["bench", "speed", "--rounds", "1", "--no-memory"],
        ["bench", "nasbench201", "--data", "digits", "--methods", "gdas"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_out_at_a_pipe_is_one_line_and_the_pipe_stays(tmp_path, capfd, command):
    os.mkfifo(tmp_path / "pipe")
    assert run(*command, "--out", tmp_path / "pipe") == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("msgdas: error: ")
    assert "pipe" in said[0]
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def _swap(folder):
    (folder / "a").rename(folder / "x")
    (folder / "b").rename(folder / "a")
    (folder / "x").rename(folder / "b")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_swap, r"changed \('a/0.png', 'a/1.png', 'a/10.png' and \d+ more\)"),
        (
            lambda folder: [(folder / "a" / f"{i}.png").unlink() for i in range(2)],
            r"2 removed \('a/0.png', 'a/1.png'\)",
        ),
        (lambda folder: shutil.copy(folder / "a" / "0.png", folder / "b" / "new.png"), r"1 added \('b/new.png'\)"),
        (lambda folder: (folder / "a").rename(folder / "c"), r"classes gone: 'a'; classes new: 'c'"),
    ],
    ids=["swapped", "removed", "added", "renamed"],
)
def test_resume_on_other_data_is_refused_and_names_what_changed(tmp_path, change, said):
    data = _two_classes(tmp_path / "data")
    Run.create(tmp_path / "run", {"dataset": {"fingerprint": fingerprint(data), "streams": False}}).close()
    settings = SearchSettings(data=str(data))
    find_data(settings, tmp_path / "run")
    change(data)
    with pytest.raises(msgdas.InputError, match=said):
        find_data(settings, tmp_path / "run")


def test_a_folder_of_images_may_move_in_a_run_but_not_change(tmp_path, capfd):
    data, out = _two_classes(tmp_path / "data"), tmp_path / "run"
    small = ["--epochs", 2, "--warmup", 1, "--channels", 4, "--cells", 1, "--batch-size", 8, "--image-size", 8]
    assert run("search", "--data", data, *small, "--out", out) == 0
    moved = data.rename(tmp_path / "moved")
    assert run("search", "--resume", "--out", out) == 2
    assert "say by --data where they are" in capfd.readouterr().err
    assert run("search", "--resume", "--out", out, "--data", moved) == 0
    (moved / "a" / "0.png").unlink()
    capfd.readouterr()
    assert run("search", "--resume", "--out", out) == 2
    assert run("train", out, "--epochs", 1) == 2
    assert capfd.readouterr().err.count("1 removed ('a/0.png')") == 2
    assert not (out / "train").exists()


def test_a_run_without_a_fingerprint_goes_on(tmp_path):
    data = _two_classes(tmp_path / "data")
    Run.create(tmp_path / "run", {"dataset": {"streams": False}}).close()
    _swap(data)
    find_data(SearchSettings(data=str(data)), tmp_path / "run")


def copied(run_folder, to, change=lambda config: None, name="config.json"):
    """A copy of a run whose configuration is changed."""
    shutil.copytree(run_folder, to)
    config = json.loads((to / name).read_text())
    change(config)
    write_json(to / name, config)
    return to


OTHER_CELL = "|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["search", "--out", "train"], "run 'train' was made by 'msgdas train': give that command"),
        (["train", "darts:DARTS_V2", "--out", "."], "run '.' was made by 'msgdas search': give that command"),
        (["train", "darts:DARTS_V2", "--out", "train"], 'not "Genotype(normal='),
        (["train", f"nasbench201:{OTHER_CELL}", "--out", "train"], f"not '{OTHER_CELL}': give the same genotype"),
        (["train", ".", "--out", "train", "--image-size", "16"], "--image-size 16 is not the run's None"),
        (["train", ".", "--out", "train", "--data", "cifar10"], "--data cifar10 is not the run's digits"),
    ],
)
def test_resume_on_another_run_is_refused(trained, arguments, line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(copied(trained, tmp_path / "run"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert run(*arguments, "--resume") == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert line in printed.err
    assert all(path.read_bytes() == data for path, data in before.items())


@pytest.mark.parametrize("command", ["search", "train"])
@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("classes", 9, "began with 9 classes, and the data now have 10: give it the data it began with"),
        ("image_size", 16, "began with 16 pixels a side, and the data now have 8"),
        ("in_channels", 3, "began with 3 channels of an image, and the data now have 1"),
        ("train", 10**400, "training images, and the data now have 1222"),
        ("classes", [1], "began with [1] classes"),
    ],
)
def test_resume_with_data_of_other_sizes_is_refused(trained, command, name, value, line, tmp_path, capsys):
    def change(config):
        config["dataset"][name] = value

    out = copied(trained, tmp_path / "run", change, "config.json" if command == "search" else "train/config.json")
    arguments = ["search", "--out", out] if command == "search" else ["train", out]
    capsys.readouterr()
    assert run(*arguments, "--resume") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert line in error


@pytest.mark.parametrize("command", ["search", "train"])
def test_resume_with_other_versions_goes_on_with_a_warning(trained, command, tmp_path):
    def change(config):
        config["versions"] |= {"msgdas": "0.0.9", "torch": "1.0"}

    out = copied(trained, tmp_path / "run", change, "config.json" if command == "search" else "train/config.json")
    arguments = ["search", "--out", out] if command == "search" else ["train", out]
    done = subprocess.run([*PROGRAM, *arguments, "--resume"], capture_output=True, text=True, check=True)
    folder = out if command == "search" else out / "train"
    now = msgdas.runs.versions()
    assert done.stderr == (
        f"msgdas: warning: run '{folder}' began with msgdas 0.0.9, now {now['msgdas']}; torch 1.0, now {now['torch']}: "
        "it may take another path\n"
    )


def _two_classes(folder):
    for label, name in enumerate("ab"):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.random.default_rng(100 * label + i).integers(0, 256, (8, 8 + label, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_a_search_of_one_epoch_needs_no_other_option(tmp_path):
    size = ["--images", "64", "--batch-size", "32", "--channels", "2"]
    assert run("search", "--data", "digits", "--epochs", "1", *size, "--out", tmp_path / "run") == 0
    (record,) = Run.open(tmp_path / "run", lock=False).metrics()
    assert record["phase"] == "search"


def test_a_training_and_a_resumed_run_mirror_as_the_search_did(tmp_path):
    data = tmp_path / "data"
    for label, name in enumerate(("cat", "dog")):
        (data / name).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), 100 * label + i).save(data / name / f"{i}.png")
    out = tmp_path / "run"
    small = ["--channels", "2", "--batch-size", "4", "--workers", "0"]
    assert run("search", "--data", data, "--out", out, "--epochs", "2", "--mirror", "on", *small) == 0
    assert run("train", out, "--epochs", "1", "--cells", "1", *small) == 0
    for config in ("config.json", "train/config.json"):
        assert json.loads((out / config).read_text())["dataset"]["mirror"]["on"] is True
    assert json.loads((out / "train/model.json").read_text())["mirror"] is True
    config = json.loads((out / "config.json").read_text())
    assert begun_mirror(out, str(data)) == "on"
    del config["dataset"]["mirror"]  # as earlier versions wrote it, which mirrored every folder
    (out / "config.json").write_text(json.dumps(config))
    assert (begun_mirror(out, str(data)), begun_mirror(out, "digits")) == ("on", "auto")
    del config["dataset"]["form"]
    write_json(out / "config.json", config)
    assert begun_form(out) == Form.square(config["dataset"]["in_channels"], config["dataset"]["image_size"])
