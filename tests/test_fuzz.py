"""Whatever is read or typed is used, or refused by an `InputError` of one line: nothing else ever comes out.

Damaged copies of right files, and random ones. `make test` tries a few of each, always the same; ``-m slow`` many.
"""

import bz2
import gzip
import json
import math
import pickle
import pickletools
import shutil
import warnings
from functools import cache, partial

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from msgdas import methods
from msgdas.cli.main import cli, main
from msgdas.compare import read_nats, read_table
from msgdas.compare.queue import Task
from msgdas.compare.results import read_result
from msgdas.compare.specs import parse_methods, parse_seeds
from msgdas.data import decode
from msgdas.data.arrays import read_arrays
from msgdas.data.form import Form, parse_size
from msgdas.data.source import find_files
from msgdas.errors import SHOWN, InputError, cut, shown
from msgdas.genotype import Genotype
from msgdas.jobs.config import begun, read_yaml, to_yaml
from msgdas.jobs.option import options
from msgdas.jobs.report import report
from msgdas.jobs.resolve import begun_mirror, find_genotype, has_fingerprint, refuse_other_data
from msgdas.jobs.settings import CompareSettings, SearchSettings, TrainSettings, method_options
from msgdas.jobs.train import _begun_recipe
from msgdas.retrain.trained import load, save_trained
from msgdas.runs import Run, write_json
from msgdas.runs.checkpoint import _seal, pack
from msgdas.runs.resumable import resume
from msgdas.search import Search
from msgdas.search.prior import Prior
from msgdas.spaces import SPACES, find_space, toy

NASBENCH201 = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
DARTS = str(find_space("darts").from_string("DARTS_V2"))
S2 = DARTS.replace("dil_conv", "sep_conv").replace("max_pool_3x3", "skip_connect")
TEXTS = {
    "nasbench201": NASBENCH201,
    "darts": DARTS,
    "s1": DARTS,
    "s2": S2,
    "s3": S2,
    "s4": S2.replace("skip_connect", "noise"),
    "mbconv": "mb3_3x3,skip_connect/mb6_5x5,mb3_7x7/mb3_3x3,mb3_3x3/mb3_3x3,mb3_3x3/mb3_3x3,mb3_3x3/mb6_3x3",
    "mbconv-macro": "01201201",
}
MODELS = {"search": SearchSettings, "train": TrainSettings, "bench": CompareSettings}

many = pytest.mark.parametrize(
    "examples",
    [pytest.param(1, id="few"), pytest.param(15, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
)  # fmt: skip


def fuzz(examples, check, *strategies):
    """Call ``check`` with many values, the same in every run."""
    run = settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    run(given(*strategies)(check))()


def only_input_errors(do):
    """What ``do`` returns, or None if it raises an `InputError` of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged checkpoint is one
        try:
            return do()
        except InputError as error:
            line = str(error)
    assert line
    assert "\n" not in line
    assert len(line) < 3000, line
    return None


# ------------------------------------------------------------------------- what is tried

NUMBERS = st.one_of(
    st.integers(-3, 12), st.sampled_from([2**31, 2**63, 10**18, -(10**18), 10**400]), st.floats(), st.just(1e308)
)
NAMES = st.one_of(st.sampled_from(["", "a", "x/0", "\n", "\0", "é", "x" * 300, "\ud800"]), st.text(max_size=8))
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, NAMES)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=6
) | st.sampled_from(["deep list", "deep object"]).map(lambda kind: nested(kind))


def nested(kind):
    """Deeper than is read, not deeper than it can be written."""
    value = 1
    for _ in range(60):
        value = [value] if kind == "deep list" else {"a": value}
    return value


def places(value, path=()):
    """All paths in nested dicts and lists."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@st.composite
def damaged(draw, value):
    """``value``, JSON, with one or two of its parts replaced, removed or added to."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(sorted(places(value), key=lambda p: (len(p), str(p)))))
        if not path:
            value = draw(st.one_of(st.just(value), VALUES))
            continue
        outer = value
        for key in path[:-1]:
            outer = outer[key]
        how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if how == "remove":
            del outer[path[-1]]
        elif how == "add" and isinstance(outer, dict):
            outer[draw(NAMES)] = draw(VALUES)
        else:
            outer[path[-1]] = draw(VALUES)
    return value


@st.composite
def bent(draw, data):
    """``data``, bytes or text, with some pieces overwritten, removed, doubled or cut off."""
    piece = st.binary(max_size=6) if isinstance(data, bytes) else st.text(max_size=6)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        how = draw(st.sampled_from(["overwrite", "remove", "double", "cut"]))
        middle = {"overwrite": draw(piece), "double": data[start:end] * 2}.get(how, data[:0])
        data = data[:start] + middle + (data[:0] if how == "cut" else data[end:])
    return data


def jsons(value):
    """Files of JSON: of the right form, and of none."""
    text = json.dumps(value)
    deep = st.sampled_from(["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "", "\ufeff{}"]).map(str.encode)
    return st.one_of(
        damaged(value).map(dump), damaged(value).map(dump), bent(text.encode()), st.binary(max_size=9), deep
    )


def dump(value):
    return json.dumps(value).encode()


# ------------------------------------------------------------------------- genotypes


@many
@pytest.mark.parametrize("space", SPACES)
def test_texts_of_genotypes(space, examples):
    space = find_space(space)

    def check(text):
        genotype = only_input_errors(lambda: space.from_string(text))
        if genotype is not None:
            assert space.from_string(space.to_string(genotype)) == genotype
            use(genotype)

    tokens = st.sampled_from("|~+=,/()[]'0129-*e. \n").map(str)
    parts = st.lists(st.one_of(tokens, st.sampled_from([*TEXTS[space.name].split("'")[:9], "range(", "1e999"])))
    check(TEXTS[space.name])
    fuzz(12 * examples, check, st.one_of(bent(TEXTS[space.name]), st.text(), parts.map("".join)))


def use(genotype):
    """Do with a genotype what commands do."""
    space = find_space(genotype.space)
    space.to_string(genotype)
    str(genotype)
    genotype.share("skip_connect")
    space.graphs(genotype)
    size = {"channels": 8, "cells": 3, "in_channels": 1, "image_size": 32} | (
        space.network_size(32, genotype) if space.name.startswith("mbconv") else {}
    )
    with torch.device("meta"):
        space.network(genotype, classes=2, **size)


@many
@pytest.mark.parametrize("space", SPACES)
def test_dicts_and_files_of_genotypes(space, examples, tmp_path):
    valid = find_space("darts" if space == "s1" else space).from_string(TEXTS[space]).to_dict() | {"space": space}
    file = tmp_path / "genotype.json"

    def check(data):
        file.write_bytes(data)
        genotype = only_input_errors(lambda: find_genotype(str(file)))
        if genotype is not None:
            use(genotype)
        genotype = only_input_errors(lambda: Genotype.read(file))
        if genotype is not None:
            only_input_errors(genotype.decisions)
            assert Genotype.from_dict(genotype.to_dict()) == genotype
            hash(genotype)

    fuzz(8 * examples, check, jsons(valid))


# ------------------------------------------------------------------------- a trained network


@many
def test_trained_networks(examples, tmp_path):
    space = find_space("nasbench201")
    genotype = space.from_string(NASBENCH201)
    size = {"channels": 4, "cells": 1, "in_channels": 1, "image_size": 8}
    description = {
        "genotype": genotype.to_dict(), "size": size, "classes": ["a", "b"], "mean": [0.3], "std": [0.4],
        "mirror": True,
    }  # fmt: skip
    save_trained(tmp_path, space.network(genotype, classes=2, **size), description)
    weights = (tmp_path / "model.safetensors").read_bytes()

    def check(text, data):
        (tmp_path / "model.json").write_bytes(text)
        (tmp_path / "model.safetensors").write_bytes(data)
        found = only_input_errors(lambda: load(tmp_path))
        if found is not None:
            side = found.description["size"]["image_size"]
            pixels = torch.zeros(1, found.description["size"]["in_channels"], side, side, dtype=torch.uint8)
            if side < 200:
                assert found(pixels).shape == (1, len(found.classes))

    header = 8 + int.from_bytes(weights[:8], "little")
    fuzz(8 * examples, check, jsons(description), st.just(weights))
    fuzz(4 * examples, check, st.just(dump(description)), bent(weights))
    fuzz(
        20 * examples,
        check,
        st.just(dump(description)),
        bent(weights[:header]).map(lambda head: head + weights[header:]),
    )


# ------------------------------------------------------------------------- the files of a run


@cache
def search_of_toy():
    return Search(toy.ToyNet(choices=2), methods.gdas(), steps=4)


CONFIG = {
    "version": 2,
    "command": "search",
    "settings": {"data": "digits", "epochs": 4, "threads": 1, "space": "nasbench201"},
    "search": {"method": "gdas", "drop": [0.5, 0.0], "sampler": {"name": "x"}},
    "dataset": {
        "name": "d", "classes": 2, "in_channels": 1, "image_size": 8, "streams": False,
        "mirror": {"on": True, "why": "x"},
        "fingerprint": {
            "digest": "x", "classes": ["a"], "counts": {"train": {"a": 1}}, "files": {"a": ["train", "a", 1]},
        },
    },
    "versions": {"msgdas": "0.1.0", "torch": "2", "threads": 1},
    "recipe": {"epochs": 3, "lr": 0.1, "nesterov": True},
}  # fmt: skip
RECORD = {
    "epoch": 1, "phase": "search", "train_loss": 2.0, "train_accuracy": 0.5, "valid_loss": None,
    "valid_accuracy": 0.4, "derived_accuracy": 0.3, "skip_share": 0.2, "genotype": NASBENCH201, "tau": 1.0,
    "alphas": {"cell/0-1": {"none": 0.5, "skip_connect": 0.5}, "cell/0-2": {"none": 0.5, "skip_connect": 0.5}},
    "drop": 0.1, "lr": 0.05, "seconds": 1.5,
}  # fmt: skip
RESULT = {
    "test_accuracy": 0.9, "val_accuracy": 0.8, "best_epoch": 1, "epochs": 2, "seconds": 3.0, "params": 10, "macs": 20,
    "mean_class_accuracy": 0.9, "per_class": {"a": 0.9, "b": 0.8}, "confusion": [[1, 0], [0, 1]], "genotype": "x",
}  # fmt: skip
TRAIN_RECORD = {
    "epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.4, "lr": 0.1,
    "seconds": 1.0,
}  # fmt: skip
FOUND = find_space("nasbench201").from_string(NASBENCH201).to_dict() | {
    "string": NASBENCH201, "params": 10, "macs": 20, "ranked": [{"genotype": NASBENCH201, "accuracy": 0.5}],
}  # fmt: skip


def right_run(folder):
    """A run folder with every file that is read."""
    (folder / "train").mkdir(parents=True)
    for name, value in {
        "config.json": CONFIG, "genotype.json": FOUND, "train/config.json": CONFIG, "train/result.json": RESULT,
    }.items():  # fmt: skip
        write_json(folder / name, value)
    (folder / "metrics.jsonl").write_bytes(2 * (dump(RECORD) + b"\n"))
    (folder / "train/metrics.jsonl").write_bytes(2 * (dump(TRAIN_RECORD) + b"\n"))


def read_run(folder):
    """Read a run in every way that there is."""
    (spec,) = parse_methods("gdas", method_options)
    for do in (
        lambda: begun(SearchSettings, folder, "search"),
        lambda: begun(TrainSettings, folder, "search"),
        lambda: _begun_recipe(folder, TrainSettings()),
        lambda: begun_mirror(folder, "digits"),
        lambda: has_fingerprint(folder),
        lambda: refuse_other_data(folder, "digits"),
        lambda: refuse_other_data(folder, str(folder)),
        lambda: Run.open(folder, lock=False).metrics(),
        lambda: Prior.read(folder),
        lambda: find_genotype(str(folder)),
        lambda: read_result(Task(spec, 0, folder, [])),
    ):
        only_input_errors(do)


@many
@pytest.mark.parametrize(
    ("name", "value", "lines"),
    [
        ("config.json", CONFIG, 0),
        ("metrics.jsonl", RECORD, 1),
        ("genotype.json", FOUND, 0),
        ("train/config.json", CONFIG, 0),
        ("train/metrics.jsonl", TRAIN_RECORD, 1),
        ("train/result.json", RESULT, 0),
    ],
)
def test_files_of_a_run(name, value, lines, examples, tmp_path, capsys):
    folder = tmp_path / "run"
    right_run(folder)
    only_input_errors(lambda: report(folder))

    def check(data):
        (folder / name).write_bytes((dump(value) + b"\n" + data + b"\n") * 2 if lines else data)
        read_run(folder)
        command_line(["show", str(folder)], capsys)

    fuzz(6 * examples, check, jsons(value))


@many
@pytest.mark.parametrize(
    ("name", "value", "lines"),
    [
        ("config.json", CONFIG, 0),
        ("metrics.jsonl", RECORD, 1),
        ("genotype.json", FOUND, 0),
        ("train/metrics.jsonl", TRAIN_RECORD, 1),
        ("train/result.json", RESULT, 0),
    ],
)
def test_reports_of_damaged_files(name, value, lines, examples, tmp_path):
    folder = tmp_path / "run"
    right_run(folder)

    def check(data):
        (folder / name).write_bytes((dump(value) + b"\n" + data + b"\n") * 2 if lines else data)
        only_input_errors(lambda: report(folder))

    fuzz(2 * examples, check, jsons(value))


def test_half_a_character_in_a_record_is_no_end_of_a_report(tmp_path):
    right_run(tmp_path / "run")
    (tmp_path / "run/train/metrics.jsonl").write_bytes(dump(TRAIN_RECORD | {"lr": "\ud800"}) + b"\n")
    assert r"\ud800" in report(tmp_path / "run").read_text(encoding="utf-8")


# ------------------------------------------------------------------------- checkpoints


@st.composite
def damaged_state(draw, state):
    """A state of plain values and tensors with one part replaced or removed."""
    paths = [path for path in places(state) if path]
    path = draw(st.sampled_from(sorted(paths, key=str)))
    copy = rebuilt(state)
    outer = copy
    for key in path[:-1]:
        outer = outer[key]
    tensors = st.sampled_from(
        [torch.zeros(0), torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64), torch.tensor(True)]
    )
    if draw(st.booleans()):
        outer[path[-1]] = draw(st.one_of(tensors, LEAVES, st.just([]), st.just({})))
    else:
        del outer[path[-1]]
    return copy


def rebuilt(value):
    if isinstance(value, dict):
        return {key: rebuilt(inner) for key, inner in value.items()}
    return [rebuilt(inner) for inner in value] if isinstance(value, list) else value


@many
def test_checkpoints(examples, tmp_path):
    job = search_of_toy()
    state = {"job": job.state_dict(), "place": {"epoch": 0, "step": 1, "means": {}, "seconds": 1.0}}
    body = bytes(pack(state)[0])
    folder = tmp_path / "run"
    Run.create(folder, CONFIG).close()

    def check(data):
        (folder / "checkpoint.pt").write_bytes(data)
        with Run.open(folder) as run:
            only_input_errors(run.load)
            only_input_errors(lambda: resume(search_of_toy(), run, 4))

    def sealed(data):
        return data + _seal(data)

    check(sealed(body))
    fuzz(4 * examples, check, bent(sealed(body)))
    fuzz(12 * examples, check, bent(body).map(sealed))
    fuzz(12 * examples, check, damaged_state(state).map(lambda found: sealed(bytes(pack(found)[0]))))


# ------------------------------------------------------------------------- tables


TABLE = (
    f"arch_str,accuracy,train_seconds\n{NASBENCH201},90.5,100\n{NASBENCH201.replace('none', 'skip_connect')},91,200\n"
)


def tables(tmp_path):
    """Name of a file → its right bytes."""
    import pyarrow
    from pyarrow import parquet

    columns = {"genotype": [NASBENCH201], "accuracy": [90.0], "train_seconds": [3.0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "right.parquet")
    return {
        "t.csv": TABLE.encode(),
        "t.csv.gz": gzip.compress(TABLE.encode(), mtime=0),
        "t.json": dump({NASBENCH201: {"accuracy": 90.0, "train_seconds": 3}}),
        "t.parquet": (tmp_path / "right.parquet").read_bytes(),
    }


@many
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.json", "t.parquet"])
def test_tables(name, examples, tmp_path):
    pytest.importorskip("pyarrow")
    right, file = tables(tmp_path)[name], tmp_path / name
    file.write_bytes(right)
    assert read_table(file, "nasbench201").accuracy

    def check(data):
        file.write_bytes(data)
        table = only_input_errors(lambda: read_table(file, "nasbench201"))
        if table is not None:
            assert all(0 <= value <= 100 for value in table.accuracy.values())

    fuzz(12 * examples, check, bent(right))
    fuzz(4 * examples, check, st.binary(max_size=30))
    if name == "t.json":
        fuzz(12 * examples, check, jsons(json.loads(right)))
    if name == "t.csv.gz":
        fuzz(12 * examples, check, bent(TABLE).map(lambda text: gzip.compress(text.encode(errors="replace"))))


OPCODES = [op.code.encode("latin-1") for op in pickletools.opcodes]


@many
def test_nats_bench(examples, tmp_path):
    training = {"name": "cifar10-valid", "epochs": 200, "eval_names": ["x-valid"], "eval_acc1es": {"x-valid@199": 80.0}}
    training["train_times"] = {0: 2.0}
    content = {"200": {"arch_str": NASBENCH201, "all_results": {("cifar10-valid", 777): training}}}
    right, file = pickle.dumps(content, 4), tmp_path / "000000.pbz2"
    file.write_bytes(bz2.compress(right))
    assert read_nats(file).accuracy == {NASBENCH201: 80.0}

    def check(data):
        file.write_bytes(data)
        only_input_errors(lambda: read_nats(file))

    programs = st.lists(st.one_of(st.sampled_from(OPCODES), st.binary(max_size=5)), max_size=30).map(b"".join)
    fuzz(4 * examples, check, bent(file.read_bytes()))
    fuzz(20 * examples, check, bent(right).map(bz2.compress))
    fuzz(20 * examples, check, programs.map(lambda program: bz2.compress(b"\x80\x04" + program + b".")))


# ------------------------------------------------------------------------- images


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of two classes, and a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (6, 6), 90 * label + 9 * i).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


@many
def test_tables_of_labels(examples, pictures):
    right = "file,label,part,group\n" + "".join(f"{c}/{i}.png,{c},,g{i}\n" for c in ("cat", "dog") for i in range(4))
    file = pictures / "labels.csv"
    file.write_text(right)
    assert len(find_files(file).files) == 8

    def check(data):
        file.write_bytes(data)
        listing = only_input_errors(lambda: find_files(file))
        if listing is not None:
            assert all(path.is_file() for path in listing.files)

    fuzz(20 * examples, check, bent(right.encode()))
    fuzz(5 * examples, check, st.binary(max_size=40))


@many
@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_archives(name, examples, pictures):
    file, kind = pictures.parent / name, {"a.zip": "zip", "a.tar": "tar", "a.tar.gz": "gztar"}[name]
    shutil.make_archive(str(pictures.parent / "a"), kind, pictures)
    right = file.read_bytes()
    assert len(find_files(file).files) == 8
    outside = set(pictures.parent.iterdir())

    def check(data):
        file.write_bytes(data)
        only_input_errors(lambda: find_files(file))
        assert set(pictures.parent.iterdir()) == outside

    fuzz(12 * examples, check, bent(right))
    fuzz(4 * examples, check, st.binary(max_size=40))


@many
def test_arrays(examples, tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, x_train=np.zeros((6, 4, 4), np.uint8), y_train=np.arange(6) % 2)
    right = file.read_bytes()
    shapes = st.lists(st.integers(0, 4), max_size=5).map(tuple)
    kinds = st.sampled_from(["u1", "i8", "f4", "f8", "U3", "bool", "complex64", "M8[s]"])
    arrays = st.tuples(shapes, kinds).map(lambda pair: np.ones(pair[0], pair[1]))

    def check(data):
        file.write_bytes(data)
        only_input_errors(lambda: read_arrays(file, 2**20))

    fuzz(12 * examples, check, bent(right))
    names = st.sampled_from(["x", "y", "x_train", "y_train", "x_test", "y_test", "classes", "z"])

    def check_mapping(found):
        only_input_errors(lambda: read_arrays(found, 2**20))

    fuzz(40 * examples, check_mapping, st.dictionaries(names, arrays, max_size=4))


@many
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".tif", ".bmp", ".webp", ".avif", ".npy"])
def test_images(suffix, examples, tmp_path):
    file = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(file, np.zeros((3, 6, 6), np.uint8))
    else:
        Image.new("RGB", (6, 6), "red").save(file)
    right = file.read_bytes()

    def check(data):
        file.write_bytes(data)
        pixels = only_input_errors(lambda: decode(file, Form.square(3, 4)))
        assert pixels is None or pixels.shape == (3, 4, 4)

    fuzz(10 * examples, check, bent(right))


@many
def test_groups_and_sizes(examples, pictures):
    def refused(do):
        def check(value):
            only_input_errors(lambda: do(value))

        return check

    fields = {"channels": 1, "height": 2, "width": 2, "resize": "pad", "integers": [0, 9], "floats": None}
    fuzz(20 * examples, refused(lambda text: find_files(pictures, group=text)), st.text(max_size=8))
    fuzz(40 * examples, refused(parse_size), st.text(max_size=12) | NUMBERS)
    fuzz(20 * examples, refused(_form), damaged(fields))


def _form(found):
    if isinstance(found, dict) and found.keys() <= {"channels", "height", "width", "resize", "integers", "floats"}:
        return Form.of({"channels": 1, "height": 2, "width": 2} | found)
    return None


# ------------------------------------------------------------------------- options


TYPED = ["", "nan", "inf", "-inf", "0", "-0", "-1", "1", "3", "0.5", "1e18", "1e400", "-1e400", str(10**18), "9" * 5000,
         "x", "x" * 5000, "a\nb", "true", "é", " ", "0x10", "1_0", "--", "\udce9", "%s", "{}", "a/b", "."]  # fmt: skip


@many
@pytest.mark.parametrize("command", MODELS)
def test_settings_of_any_value(command, examples):
    model = MODELS[command]
    found = {one.name: one for one in options(model)}

    def check(name, value):
        made = only_input_errors(lambda: model(**{name: value}))
        if made is not None:
            value = getattr(made, name)
            assert value is None or isinstance(value, found[name].type)
            assert not isinstance(value, float) or math.isfinite(value)

    fuzz(60 * examples, check, st.sampled_from(sorted(found)), VALUES)


@many
@pytest.mark.parametrize("command", MODELS)
def test_files_of_settings(command, examples, tmp_path):
    model, file = MODELS[command], tmp_path / "settings.yaml"
    right = to_yaml(model(data="digits"))

    def check(data):
        file.write_bytes(data)
        made = only_input_errors(lambda: model(**read_yaml(model, file)))
        if made is not None:
            assert model(**yaml.safe_load(to_yaml(made).replace("-", "-")) and read_again(made)) == made

    def read_again(made):
        file.write_text(to_yaml(made), encoding="utf-8")
        return read_yaml(model, file)

    tags = ["!!int", "!!float", "!!bool", "!!timestamp", "!!binary", "!!set", "!!omap", "!!python/name:os.system",
            "<<:", "&a", "*a", "? ", "- ", "[", "{", "epochs: ", "x", "1", ":", "\n", "'", "''", " "]  # fmt: skip
    programs = st.lists(st.sampled_from(tags), max_size=12).map(lambda found: " ".join(found).encode())
    fuzz(12 * examples, check, bent(right.encode()))
    fuzz(12 * examples, check, programs)
    fuzz(6 * examples, check, damaged({"epochs": 3, "data": "digits"}).map(dump))


def commands():
    """Every command and option that takes a value: command line so far, the option."""
    import click

    from msgdas.cli.bench import speed

    before = {
        "search": ["search", "--data", "digits"],
        "train": ["train", f"nasbench201:{NASBENCH201}", "--data", "digits", "--out", "out"],
        "bench": ["bench", "nasbench201", "--data", "digits", "--out", "out"],
        "show": ["show", f"nasbench201:{NASBENCH201}", "--channels", "4", "--cells", "1"],
    }
    for name, command in [*cli.commands.items(), ("speed", speed)]:
        for one in command.params:
            if isinstance(one, click.Option) and not one.is_flag:
                yield pytest.param(before.get(name, ["bench", name]), one.opts[0], id=f"{name} {one.opts[0]}")


def command_line(arguments, capsys):
    """Run a command: it works, or says why not in one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(arguments)
    printed = capsys.readouterr()
    assert stopped.value.code in (0, 2), arguments
    if stopped.value.code == 2:
        assert printed.out == "", arguments
        assert printed.err.count("\n") == 1, (arguments, printed.err)
    return stopped.value.code


@pytest.mark.parametrize(("before", "option"), list(commands()))
def test_every_option_of_every_command(before, option, tmp_path, capsys, monkeypatch):
    """What a command would do after reading its options is left out."""
    monkeypatch.chdir(tmp_path)
    result = {"test_accuracy": 0.5, "best_epoch": 1, "val_accuracy": 0.5}
    for name, value in {
        "search.run_search": None, "train.run_train": result, "train.report": None, "bench.run_speed": True,
        "bench.compare": None, "bench.check": None,
    }.items():  # fmt: skip
        monkeypatch.setattr(f"msgdas.cli.{name}", lambda *_, value=value, **__: value)
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    monkeypatch.setattr("msgdas.cli.bench.use_native", lambda _: None)
    for value in TYPED:
        command_line([*before, f"{option}={value}"], capsys)
        assert list(tmp_path.iterdir()) == [], value


@many
def test_texts_of_options(examples):
    def reads(read):
        def check(text):
            only_input_errors(lambda: read(text))

        return check

    for read, texts in (
        (partial(parse_methods, options=method_options), bent("msgdas:k=3:drop=0.5,gdas:alpha-lr=0.03")),
        (parse_seeds, bent("0-3,5")),
        (find_genotype, bent("darts:SNAS")),
    ):
        fuzz(4 * examples, reads(read), st.one_of(texts, st.text()))


@many
def test_values_in_messages(examples):
    def check(value):
        for line in (shown(value), cut(str(value))):
            assert line.isprintable() or isinstance(value, dict | list)
            assert len(line) < 10 * SHOWN
            assert "\n" not in line

    fuzz(40 * examples, check, st.one_of(st.text(), LEAVES, st.text(min_size=300)))
