"""Runs that last: stopped, killed, damaged or diverged, nothing is lost and nothing is changed by it."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import cache
from inspect import signature
from pathlib import Path

import pytest
import torch
from reference import searching
from torch import nn
from torchvision.ops import StochasticDepth

from msgdas import methods
from msgdas.cli import main as cli
from msgdas.data import load_data
from msgdas.errors import InputError
from msgdas.jobs import report as reporting
from msgdas.retrain import Recipe, retrain
from msgdas.retrain import train as retraining
from msgdas.runs import Run, write_json
from msgdas.runs.finite import tensors
from msgdas.search import Search
from msgdas.search.loop import Stopped, fit
from msgdas.spaces import nasbench201
from msgdas.subgraph import Gate, SubGraph

NAN, INF = float("nan"), float("inf")
EPOCHS, LENGTH = 3, 4  # of the runs in this process


@cache
def digits():
    data = load_data("digits")
    parts = {"train": 16 * 2 * LENGTH, "val": 40, "test": 40}
    return replace(data, **{part: getattr(data, part).take(torch.arange(n)) for part, n in parts.items()})


class Net(nn.Module):
    """A stem, a path that may drop, a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.path = nn.Sequential(nn.Conv2d(4, 4, 1), StochasticDepth(0.0, "row"))
        self.classifier = nn.Linear(4, 10)

    def forward(self, x):
        x = self.stem(x)
        return self.classifier((x + self.path(x)).mean((2, 3)))


def opened(folder, checkpoint_seconds=600.0):
    known = {"checkpoint_seconds": checkpoint_seconds}
    return Run.open(folder, **known) if (folder / "config.json").exists() else Run.create(folder, {}, **known)


def search(folder, on_step=None, on_start=lambda seconds: None, method="msgdas", checkpoint_seconds=600.0, **settings):
    """Start or go on with a search in ``folder``; ``on_step`` gets the search and the number of steps done."""
    torch.manual_seed(0)
    net = nasbench201.supernet(channels=2, cells=1, in_channels=1, image_size=8)
    function = getattr(methods, method)
    arguments = {name: settings.pop(name) for name in list(settings) if name in signature(function).parameters}
    job = searching(net, function(**arguments), **{"warmup": 0.25, "drop": 0.5} | settings)
    with opened(folder, checkpoint_seconds) as run:
        found = fit(
            job,
            digits(),
            epochs=EPOCHS,
            batch_size=16,
            run=run,
            on_start=on_start,
            on_step=on_step and (lambda epoch, step, length: on_step(job, epoch * length + step + 1)),
        )
    write_json(folder / "result.json", {"genotype": str(found)})


def train(folder, on_step=None, checkpoint_seconds=600.0, **recipe):
    """Start or go on with a training in ``folder``; ``on_step`` gets the network and the number of steps done."""
    torch.manual_seed(0)
    net = Net()
    with opened(folder, checkpoint_seconds) as run:
        result = retrain(
            net,
            digits(),
            Recipe(**{"epochs": EPOCHS, "batch_size": 32, "drop_path": 0.5} | recipe),
            run=run,
            on_step=on_step and (lambda epoch, step, length: on_step(net, epoch * length + step + 1)),
        )
    write_json(folder / "result.json", result)


KINDS = pytest.mark.parametrize("start", [search, train])


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    folders = {start: tmp_path_factory.mktemp("reference") / "run" for start in (search, train)}
    for start, folder in folders.items():
        start(folder)
    return folders


@pytest.fixture
def reference(start, references):
    """The folder of a run that nothing happened to."""
    return references[start]


def outcome(folder):
    """All that must be the same: records, checkpoint and results, without seconds; trained weights as bytes."""
    run = Run.open(folder, lock=False)
    files = [folder / name for name in ("result.json", "genotype.json")]
    results = [json.loads(file.read_text()) for file in files if file.exists()]
    weights = [file.read_bytes() for file in folder.glob("*.safetensors")]
    return timeless([run.load(), run.metrics(), results, weights])


def timeless(value):
    """Nested values that ``==`` can compare: no ``seconds``, tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list | tuple) else value


def steps_saved(folder):
    place = Run.open(folder, lock=False).load()["place"]
    return place["epoch"] * LENGTH + place["step"]


class Broken(Exception):
    """Stands for a crash between two steps."""


def breaking_after(step):
    def on_step(job, done):
        if done == step:
            raise Broken

    return on_step


# stopped


@KINDS
@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 1), (signal.SIGINT, 6), (signal.SIGTERM, 8)])
def test_a_signal_ends_the_step_saves_and_the_run_goes_on_bit_for_bit(start, reference, tmp_path, number, step):
    def on_step(job, done):
        if done == step:
            signal.raise_signal(number)
        assert done <= step

    with pytest.raises(Stopped) as stopped:
        start(tmp_path / "run", on_step)
    assert stopped.value.signal == number
    assert steps_saved(tmp_path / "run") == step
    assert not (tmp_path / "run/result.json").exists()
    start(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(reference)


@pytest.mark.parametrize("start", [search])
def test_a_signal_before_the_first_step_ends_after_it(start, reference, tmp_path):
    with pytest.raises(Stopped) as stopped:
        start(tmp_path / "run", on_start=lambda seconds: signal.raise_signal(signal.SIGTERM))
    assert stopped.value.signal == signal.SIGTERM
    assert steps_saved(tmp_path / "run") == 1
    start(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(reference)


@pytest.mark.parametrize("start", [train])
def test_a_signal_while_the_test_part_is_looked_at_changes_nothing(start, reference, tmp_path, monkeypatch):
    predict, seen = retraining._predict, []

    def with_signal(network, batches):
        seen.append(1)
        if len(seen) > EPOCHS:
            signal.raise_signal(signal.SIGTERM)
        return predict(network, batches)

    monkeypatch.setattr(retraining, "_predict", with_signal)
    start(tmp_path / "run")
    assert len(seen) == EPOCHS + 1
    assert outcome(tmp_path / "run") == outcome(reference)


@KINDS
def test_a_signal_in_the_last_step_changes_nothing(start, reference, tmp_path):
    start(tmp_path / "run", lambda job, done: done == EPOCHS * LENGTH and signal.raise_signal(signal.SIGTERM))
    assert outcome(tmp_path / "run") == outcome(reference)


@KINDS
def test_within_an_epoch_a_checkpoint_is_written_when_it_is_time(start, reference, tmp_path):
    with pytest.raises(Broken):
        start(tmp_path / "rare", breaking_after(7))
    assert steps_saved(tmp_path / "rare") == LENGTH
    with pytest.raises(Broken):
        start(tmp_path / "often", breaking_after(7), checkpoint_seconds=0.0)
    assert steps_saved(tmp_path / "often") == 6
    for name in ("rare", "often"):
        start(tmp_path / name)
        assert outcome(tmp_path / name) == outcome(reference)


# damaged


@KINDS
@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_one_line_and_costs_only_its_steps(start, reference, tmp_path, damage):
    folder = tmp_path / "run"
    with pytest.raises(Broken):
        start(folder, breaking_after(7), checkpoint_seconds=0.0)
    file = folder / "checkpoint.pt"
    data = bytearray(file.read_bytes())
    if damage == "truncated":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 1
    file.write_bytes(data)
    seen = []
    with pytest.warns(UserWarning, match=r"damaged checkpoint .*checkpoint.pt.*going on from .*prev") as warned:
        start(folder, lambda job, done: seen.append(done))
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)
    assert seen[0] == 6  # of the 6 steps saved, the newest checkpoint's is done again
    assert outcome(folder) == outcome(reference)


@KINDS
def test_a_checkpoint_of_an_earlier_version_is_one_line_and_stays(start, tmp_path):
    with opened(tmp_path / "run") as run:
        run.log({"epoch": 1})
        run.save({"epoch": 1})
    with pytest.raises(InputError, match="of an earlier version: start again"):
        start(tmp_path / "run")
    assert len(run.metrics()) == 1


# killed and locked, as processes of their own


def command(arguments, started, errors):
    """Run the command line in this process: a checkpoint every step, and no report, which takes longest.

    Args:
        started: file to make when the first step is about to begin.
    """
    torch.set_num_threads(1)
    load = Run.load

    def load_and_tell(run):
        Path(started).touch()
        run.checkpoint_seconds = 0.0
        return load(run)

    Run.load = load_and_tell
    reporting.write_report = lambda *_: None
    with open(errors, "w") as sys.stderr, open(os.devnull, "w") as sys.stdout:
        cli.main(arguments)


class Child:
    """The command line in a process that takes no time to start. ``started``: the loop is about to begin."""

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "sklearn.datasets", "torch._dynamo", "msgdas.cli.main"])

    def __init__(self, arguments, folder):
        self._started, self._errors = folder / "started", folder / "errors"
        self._started.unlink(missing_ok=True)
        texts = [str(argument) for argument in arguments]
        self._process = self.context.Process(target=command, args=(texts, self._started, self._errors))
        self._process.start()

    def wait_for(self, file=None):
        deadline = time.monotonic() + 60
        while not (file or self._started).exists():
            assert self._process.exitcode is None, self._errors.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def wait_for_changes(self, file, count):
        """Until ``file`` was written ``count`` times, or the process has ended."""
        times = before = {None, written(file)}
        while len(times) < len(before) + count and self._process.exitcode is None:
            times = times | {written(file)}
            time.sleep(0.001)

    def send(self, number):
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def end(self, seconds=60):
        """Exit code, or None if it has not ended in ``seconds``, and what it wrote to standard error."""
        self._process.join(seconds)
        return self._process.exitcode, self._errors.read_text() if self._errors.exists() else ""


def written(file):
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:  # not yet, or between two renames
        return None


SMALL = ["--data", "digits", "--channels", 2, "--cells", 1]
EDGES = ("nor_conv_3x3~0|", "skip_connect~0|nor_conv_1x1~1|", "none~0|avg_pool_3x3~1|skip_connect~2|")
GENOTYPE = f"nasbench201:{'+'.join('|' + node for node in EDGES)}"
COMMANDS = {
    "search": ["search", *SMALL, "--epochs", 3, "--warmup", 1, "--images", 96, "--batch-size", 16, "--k", 2],
    "train": ["train", GENOTYPE, *SMALL, "--epochs", 3, "--batch-size", 128],
}
GO_ON = {"search": ["search"], "train": ["train", GENOTYPE]}
COMMAND = pytest.mark.parametrize("name", list(COMMANDS))


def child(name, out, folder):
    """Start a run in ``out``, or go on with the one that is there."""
    there = (out / "config.json").exists()
    return Child([*(GO_ON if there else COMMANDS)[name], "--out", out, *(["--resume"] if there else [])], folder)


@COMMAND
def test_killed_at_any_moment_a_run_can_be_read_and_ends_bit_for_bit(name, tmp_path):
    """Now and then before the loop, else after some steps; a step and its saving take about as long."""
    process = child(name, tmp_path / "reference", tmp_path)
    process.wait_for()
    begin = time.monotonic()
    assert process.end() == (0, "")
    a_step = (time.monotonic() - begin) / 30  # about
    wanted = outcome(tmp_path / "reference")

    moments, places, out, kills = random.Random(0), set(), tmp_path / "0", 0
    while kills < 12:
        process = child(name, out, tmp_path)
        if kills % 4 == 0:
            time.sleep(moments.uniform(0, 10 * a_step))
        else:
            process.wait_for()
            process.wait_for_changes(out / "checkpoint.pt", moments.randrange(4))
            time.sleep(moments.uniform(0, a_step))
        process.send(signal.SIGKILL)
        code, errors = process.end()
        if code == 0:  # it was faster
            assert outcome(out) == wanted
            out = tmp_path / str(kills)
            continue
        assert code == -signal.SIGKILL, errors
        kills += 1
        if (out / "config.json").exists():
            run = Run.open(out, lock=False)
            run.metrics()
            if state := run.load():
                places.add((state["place"]["epoch"], state["place"]["step"]))
    assert child(name, out, tmp_path).end() == (0, "")
    assert outcome(out) == wanted
    assert len(places) >= 4


@COMMAND
def test_a_second_process_on_the_same_folder_is_refused(name, tmp_path, capsys):
    first = child(name, tmp_path / "run", tmp_path)
    first.wait_for()
    first.send(signal.SIGSTOP)
    before = Run.open(tmp_path / "run", lock=False).load()
    with pytest.raises(SystemExit) as left:
        cli.main([*GO_ON[name], "--out", str(tmp_path / "run"), "--resume"])
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert error.count("\n") == 1
    assert "in use by another process" in error
    assert timeless(Run.open(tmp_path / "run", lock=False).load()) == timeless(before)
    first.send(signal.SIGKILL)
    first.end()
    Run.open(tmp_path / "run").close()  # the lock died with its holder


@COMMAND
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_stopped_command_says_so_by_its_exit_code(name, tmp_path, number, code):
    process = child(name, tmp_path / "run", tmp_path)
    process.wait_for(tmp_path / "run/checkpoint.pt")
    process.send(number)
    assert process.end() == (code, "msgdas: stopped and saved; the same command with --resume goes on\n")


# not a number


def bad_weight(job):
    with torch.no_grad():
        job.net.stem[0].weight[1] = NAN


def bad_alpha(job):
    with torch.no_grad():
        job.alphas["cell/0-2"][1] = NAN


def bad_gate(job):
    sampler = job.method.sampler

    def sample(alphas, **numbers):
        factors = {name: NAN if name == "cell/1-2" else 1.0 for name in alphas.names}
        return [
            SubGraph({name: Gate(gate.active, gate.weights * factors[name]) for name, gate in subgraph.items()})
            for subgraph in sampler(alphas, **numbers)
        ]

    job.method = replace(job.method, sampler=sample)


def bad_loss(job):
    job.loss = lambda logits, labels: nn.functional.cross_entropy(logits, labels) * INF


def small():
    return nasbench201.supernet(channels=4, in_channels=1, image_size=8)


def finite(folder):
    return all(tensor.isfinite().all() for _, tensor in tensors(Run.open(folder, lock=False).load()))


def state_of(job):
    optimizers = [dict(enumerate(o.state.values())) for o in (job.weight_optimizer, job.alpha_optimizer)]
    return timeless([dict(job.net.named_parameters()), job.alphas.state_dict(), *optimizers])


METHODS = ({"method": "darts"}, {"k": 2, "gradient": "probed"}, {"k": 2, "gradient": "compare"})
PLANTED = (  # what, its name, the step that finds it: in warm-up (three steps) or after it
    (bad_weight, "weight 'stem.0.weight'", 2),
    (bad_weight, "weight 'stem.0.weight'", 7),
    (bad_alpha, "alpha 'cell/0-2'", 7),
    (bad_gate, "gate 'cell/1-2'", 7),
    (bad_loss, "train_loss", 2),
    (bad_loss, "valid_loss", 7),
)
WAYS_OUT = {
    "weight": "lower the learning rate",
    "alpha": "lower the learning rate of the alphas",
    "gate": "check the sampler and its temperature tau",
    "input": "check the images and their mean and std",
    "train_loss": "lower the learning rate, or check the loss",
    "valid_loss": "lower the learning rate, or check the loss",
}
WITHOUT_GATES = METHODS[2], bad_gate  # 'compare' takes no gradient of gates, and a single path's are not multiplied by


@pytest.mark.parametrize(
    ("settings", "plant", "named", "step"),
    [(settings, *planted) for settings in METHODS for planted in PLANTED if (settings, planted[0]) != WITHOUT_GATES],
)
def test_a_search_names_what_is_not_a_number_and_keeps_the_last_good_state(tmp_path, settings, plant, named, step):
    states = []

    def on_step(job, done):
        if done == step - 1:
            plant(job)
            states.append((job, state_of(job)))

    kept = "the last checkpoint is kept" if step > LENGTH else "there is no checkpoint yet"
    line = f"step {step}: {named} is not a number: {WAYS_OUT[named.split()[0]]}; {kept}"
    with pytest.raises(InputError, match=f"^{re.escape(line)}$"):
        search(tmp_path / "run", on_step, **settings)
    job, before = states[0]
    assert state_of(job) == before
    if step > LENGTH:
        assert steps_saved(tmp_path / "run") == LENGTH
        assert finite(tmp_path / "run")
    else:
        assert Run.open(tmp_path / "run", lock=False).load() is None


@pytest.mark.parametrize("kind", ["search", "train"])
@pytest.mark.parametrize("part", ["mean", "std"])
def test_images_that_are_not_numbers_are_the_cause_and_no_checkpoint_is_promised(tmp_path, kind, part):
    """Not the weights and losses that they spoil. Trial steps for the estimate of the time come first."""
    data = replace(digits(), **{part: torch.tensor([NAN])})
    line = "step 1: input is not a number: check the images and their mean and std"
    estimate = {"on_start": lambda seconds: None}
    for folder in (None, tmp_path / "run"):
        run = folder and Run.create(folder, {})
        with pytest.raises(InputError) as raised:
            if kind == "search":
                fit(searching(small(), methods.gdas()), data, epochs=1, batch_size=16, run=run, **estimate)
            else:
                retrain(Net(), data, Recipe(epochs=1, batch_size=16), run=run, **estimate)
        assert str(raised.value) == line + ("; there is no checkpoint yet" if run else "")


@pytest.mark.parametrize(
    ("name", "way", "method"),
    [
        ("guidance", "raise its temperature, or lower its weight", methods.msgdas(guidance=1.0, temperature=1e-45)),
        ("penalty", "check the penalties", replace(methods.gdas(), penalties=[lambda a: a.stack().sum() * NAN])),
    ],
)  # fmt: skip
def test_the_guidance_or_a_penalty_is_named_where_it_is_the_cause(name, way, method):
    job = Search(small(), replace(method, warmup=0.0), steps=4)
    batch = torch.randn(8, 1, 8, 8), torch.arange(8)
    before = [p.clone() for p in (*job.net.parameters(), *job.alphas.parameters())]
    with pytest.raises(InputError, match=f"^step 1: {name} is not a number: {way}"):
        job.step(batch, batch)
    assert name == "guidance" or all(map(torch.equal, before, (*job.net.parameters(), *job.alphas.parameters())))


def test_first_weights_that_are_not_numbers_are_not_the_learning_rate():
    job = Net()
    bad_weight(type("", (), {"net": job}))
    with pytest.raises(
        InputError, match=r"^step 1: weight 'stem\.0\.weight' is not a number: check the network's first"
    ):
        retrain(job, digits(), Recipe(epochs=1, batch_size=16))


def test_a_trial_step_that_diverges_ends_nothing_and_leaves_nothing(tmp_path):
    """The estimate tries the steps after the warm-up on weights that are not trained yet."""
    job = searching(small(), methods.msgdas())
    began, loss = [], job.loss
    job.loss = lambda logits, labels: loss(logits, labels) * (1.0 if began else NAN)
    fit(job, digits(), epochs=1, batch_size=16, on_start=began.append)
    assert all(p.isfinite().all() for p in job.net.parameters())


@pytest.mark.parametrize("named", ["weight 'classifier.bias'", "train_loss"])
def test_a_training_names_what_is_not_a_number_and_keeps_the_last_good_state(tmp_path, named):
    states = []

    def on_step(net, done):
        if done == 6:
            if named == "train_loss":
                net.classifier.register_forward_hook(lambda module, x, y: y * INF)
            else:
                with torch.no_grad():
                    net.classifier.bias[3] = INF
            states.append((net, timeless(dict(net.named_parameters()))))

    with pytest.raises(InputError, match=f"^step 7: {re.escape(named)} is not a number: lower the learning rate"):
        train(tmp_path / "run", on_step)
    net, before = states[0]
    assert timeless(dict(net.named_parameters())) == before
    assert steps_saved(tmp_path / "run") == LENGTH
    assert finite(tmp_path / "run")


@KINDS
def test_what_is_not_a_number_is_never_saved(start, tmp_path):

    def on_step(job, done):
        if done == 6:
            net = job.net if start is search else job
            with torch.no_grad():
                net.stem[1].running_var[0] = INF  # nothing in a step reads it

    with pytest.raises(InputError, match=r"^step 6: state '(net|network).stem.1.running_var' is not a number"):
        start(tmp_path / "run", on_step, checkpoint_seconds=0.0)
    assert steps_saved(tmp_path / "run") == 5
    assert finite(tmp_path / "run")


@KINDS
def test_after_it_diverged_a_run_goes_on_from_the_last_good_state(start, reference, tmp_path):
    def on_step(job, done):
        if done == 7:
            with torch.no_grad():
                next((job.net if start is search else job).parameters()).fill_(NAN)

    with pytest.raises(InputError, match=r"^step 8: weight"):
        start(tmp_path / "run", on_step)
    start(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(reference)


def test_a_training_that_really_diverges_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a number: lower the learning rate"):
        train(tmp_path / "run", lr=1e30, clip=INF)
