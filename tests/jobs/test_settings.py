"""Settings: every option is defined once, is everywhere that options are, and refuses nonsense in one line."""

import inspect
from pathlib import Path

import click
import pytest
import yaml

from msgdas.cli.main import cli, main
from msgdas.cli.search import search_settings
from msgdas.compare.specs import parse_methods
from msgdas.errors import InputError
from msgdas.jobs.config import FORMAT, begun, read_yaml, to_yaml
from msgdas.jobs.option import Group, dashed, options
from msgdas.jobs.options_table import options_table
from msgdas.jobs.settings import CompareSettings, SearchSettings, TrainSettings, method_options, own_options
from msgdas.methods import METHODS
from msgdas.runs import Run

MODELS = {"search": SearchSettings, "train": TrainSettings, "bench": CompareSettings}
POSITIONAL = {"bench": "space"}
PAGE = Path(__file__).parents[2] / "docs/reference/options.md"
EACH = [(command, one) for command, model in MODELS.items() for one in options(model)]
NUMBERS = [
    pytest.param(command, one.name, id=f"{command}-{one.name}") for command, one in EACH if one.type in (int, float)
]


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return stopped.value.code


def words(command):
    """Enough of a command line for all but ``--out``."""
    source = {"search": [], "train": ["darts:DARTS_V2"], "bench": ["nasbench201"]}[command]
    return [command, *source, "--data", "digits"]


def sample(one):
    """A value other than the default."""
    if one.choices:
        return next(choice for choice in one.choices if choice != one.default)
    if one.name == "image_size":
        return "32x200"
    return {int: 7, float: 0.5, bool: True, str: "darts"}[one.type]


# one definition


@pytest.mark.parametrize("command", MODELS)
def test_every_option_is_on_the_command_line_and_says_what_it_does(command):
    there = {p.name: p for p in cli.commands[command].params}
    for one in options(MODELS[command]):
        if POSITIONAL.get(command) == one.name:
            continue
        names = [f"--{dashed(name)}" for name in (one.name, *one.aliases)]
        assert isinstance(there[one.name], click.Option)
        assert there[one.name].opts == names
        assert there[one.name].default is None
        assert one.help in there[one.name].help
        assert one.help


@pytest.mark.parametrize("command", MODELS)
def test_help_fits_80_columns_and_has_every_heading(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(command, "--help") == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    groups = {one.group for one in options(MODELS[command]) if POSITIONAL.get(command) != one.name}
    assert all(f"{group.value}:\n" in shown for group in groups)


def test_the_page_of_options_is_the_one_that_is_made():
    table = options_table()
    assert PAGE.read_text(encoding="utf-8") == table, (
        "run: python -m msgdas.jobs.options_table > docs/reference/options.md"
    )
    for _, one in EACH:
        assert f"`--{dashed(one.name)}`" in table


@pytest.mark.parametrize("method", METHODS)
def test_the_signature_of_a_method_says_which_options_it_has(method):
    parameters = inspect.signature(METHODS[method]).parameters
    of_methods = {one.name for one in options(SearchSettings) if one.group is Group.METHOD}
    assert set(own_options(method)) == of_methods & set(parameters)
    assert not {"data", "device", "seed", "threads", "space", "method"} & set(method_options(method))


def test_an_option_of_methods_belongs_to_one():
    """Otherwise it would be offered and always refused."""
    taken = {name for method in METHODS for name in own_options(method)}
    assert taken == {one.name for one in options(SearchSettings) if one.group is Group.METHOD}


def test_what_methods_takes_a_search_takes_too():
    for one in options(SearchSettings):
        if one.name in method_options("msgdas"):
            value = sample(one)
            (spec,) = parse_methods(f"msgdas:{dashed(one.name)}={value}", method_options)
            assert getattr(search_settings(spec.arguments()), one.name) == value


# bounds


@pytest.mark.parametrize(("command", "name"), NUMBERS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e18", "1e400", "-1", str(10**18), "", "text", "x" * 5000])
def test_no_number_takes_nonsense(command, name, value, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*words(command), f"--{dashed(name)}={value}", "--out", "out") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert f"--{dashed(name)}" in printed.err
    assert list(tmp_path.iterdir()) == []


LARGEST = {
    "lr": 10, "weight_lr": 10, "alpha_lr": 10, "guidance": 1000, "supernet_weight": 1000, "cost_weight": 1000,
    "auxiliary": 1000, "temperature": 1000, "channels": 100_000, "cells": 1000, "image_size": 16_384,
}  # fmt: skip
ZERO_IS_MEANT = {
    "alpha_lr", "guidance", "supernet_weight", "cost_weight", "auxiliary", "drop", "trust", "warmup", "max_memory",
    "workers", "seed", "weight_decay", "label_smoothing", "cutout", "drop_path",
}  # fmt: skip


@pytest.mark.parametrize(("command", "name"), NUMBERS)
def test_bounds_are_those_that_are_shown(command, name, capsys, monkeypatch):
    model = MODELS[command]
    if name in LARGEST:
        assert getattr(model(**{name: LARGEST[name]}), name) == LARGEST[name]
        with pytest.raises(InputError, match=f"^--{dashed(name)} .*: use at most {LARGEST[name]:,}$"):
            model(**{name: LARGEST[name] * 1.001 if name not in ("channels", "cells", "image_size") else 10**6})
    if name in ZERO_IS_MEANT:
        assert getattr(model(**{name: 0}), name) == 0
    else:
        with pytest.raises(InputError, match=f"^--{dashed(name)} 0: use "):
            model(**{name: 0})
    (one,) = (one for one in options(model) if one.name == name)
    assert one.bounds
    monkeypatch.setenv("COLUMNS", "80")
    assert run(command, "--help") == 0
    assert f"[{one.bounds}" in " ".join(capsys.readouterr().out.split())
    assert f"` | {'integer' if one.type is int else 'number'} {one.bounds} | " in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"alpha_lr": float("nan")}, "--alpha-lr nan: use 0 or more"),
        ({"weight_lr": float("nan")}, "--weight-lr nan: use a number above 0"),
        ({"weight_lr": 0}, "--weight-lr 0: use a number above 0"),
        ({"epochs": 0}, "--epochs 0: use 1 or more"),
        ({"epochs": 10**18}, "--epochs 1000000000000000000: use at most 1,000,000"),
        ({"epochs": 1.5}, "--epochs 1.5: use a whole number, 1 or more"),
        ({"epochs": "many"}, "--epochs many: use a whole number, 1 or more"),
        ({"drop": 2}, "--drop 2: use 0 to 0.9"),
        ({"temperature": 0}, "--temperature 0: use 0.001 or more"),
        ({"epochs": ""}, "--epochs '': use a whole number, 1 or more"),
        ({"epochs": "x" * 5000}, f"--epochs {'x' * 200}… (5,000 characters): use a whole number, 1 or more"),
        ({"epochs": "a\nb"}, r"--epochs a\nb: use a whole number, 1 or more"),
        ({"epochs": [[3]]}, "--epochs [[3]]: use a whole number, 1 or more"),
        ({"trust": 1}, "--trust 1: use 0 or more, below 1"),
        ({"native": "perhaps"}, "--native perhaps: use true or false"),
        ({"precision": "float8"}, "--precision float8: use float32, bfloat16, float16"),
        ({"data": ["a"]}, "--data ['a']: use a text"),
        ({"epoch": 3}, "option 'epoch' is not known: did you mean 'epochs'?"),
        ({"zzz": 3}, "option 'zzz' is not known: see --help"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_way_out(values, line):
    with pytest.raises(InputError) as raised:
        SearchSettings(**values)
    assert str(raised.value) == line


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        SearchSettings().epochs = 3


# YAML


@pytest.mark.parametrize("model", MODELS.values())
def test_settings_survive_yaml(model, tmp_path):
    for settings in (model(), model(**{one.name: sample(one) for one in options(model)})):
        file = tmp_path / "settings.yaml"
        file.write_text(to_yaml(settings))
        assert model(**read_yaml(model, file)) == settings


@pytest.mark.parametrize("command", MODELS)
def test_what_print_config_prints_means_the_same(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, more = MODELS[command], ["--epochs", "9", "--native", "--channels", "3", "--layers", "2"]
    assert run(*words(command), *more, "--print-config") == 0
    first = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "settings.yaml"
    file.write_text(first)
    given = read_yaml(model, file)
    assert (given["epochs"], given["native"], given["channels"], given["cells"]) == (9, True, 3, 2)
    assert run(*words(command)[:-2], "--config", file, "--print-config") == 0
    assert capsys.readouterr().out == first
    assert run(*words(command), "--config", file, "--epochs", "4", "--print-config") == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(first) | {"epochs": 4}


def test_numbers_that_yaml_reads_as_texts_are_numbers(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("alpha-lr: 1e-3\nalpha_lr: 1e-3\n")
    with pytest.raises(InputError, match="has 'alpha-lr' twice"):
        read_yaml(SearchSettings, file)
    file.write_text("alpha_lr: 1e-3\nlayers: 5\nseed: 3\n")
    settings = SearchSettings(**read_yaml(SearchSettings, file))
    assert (settings.alpha_lr, settings.cells, settings.seed) == (1e-3, 5, 3)
    assert read_yaml(SearchSettings, "/dev/null") == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("epoch: 3", "option 'epoch' is not known: did you mean 'epochs'?"),
        ("epochs: nan", "--epochs nan"),
        ("alpha-lr: .nan", "--alpha-lr nan: use 0 or more"),
        ("weight-lr: .inf", "--weight-lr inf: use a number above 0"),
        ("out: runs/x", "give --out on the command line"),
        ("- epochs", "is not a list of 'option: value' lines"),
        ("epochs: [", "is no YAML"),
        ("!!python/object/apply:os.getcwd []", "is no YAML"),
        ("!!int ''", "is no YAML"),
        ("!!timestamp x", "is no YAML"),
        ("!!bool perhaps", "is no YAML"),
        ("epochs: 2026-99-99", "is no YAML"),
        ("epochs: 1" + "0" * 5000, "is no YAML"),
        ("[" * 10_000, "is no YAML"),
        ("a: &a [x, x]\nb: [*a, *a]", "settings have no aliases"),
        ("x" * 2**21, "more than 1,048,576 characters"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_bad_file_is_one_line(text, line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "settings.yaml").write_text(text)
    before = set(tmp_path.iterdir())
    assert run("search", "--data", "digits", "--config", "settings.yaml", "--out", "out") == 2
    printed = capsys.readouterr()
    assert line in printed.err
    assert printed.err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


# config.json


def made(folder, **config):
    """A run as an earlier version began it."""
    with Run.create(folder, {"versions": {"msgdas": "0.0.9"}} | config):
        return folder


def test_an_older_search_is_read_and_newer_options_have_their_defaults(tmp_path):
    old = made(tmp_path / "old", command="search", settings={"data": "digits", "epochs": 4, "k": 2, "threads": 1})
    assert begun(SearchSettings, old, "search") == SearchSettings(data="digits", epochs=4, k=2, threads=1)


def test_an_older_training_is_read(tmp_path):
    recipe = {"epochs": 4, "rise": 0.1, "momentum": 0.8, "nesterov": True, "clip": 5.0, "lr": 0.2}
    settings = {"data": "digits", "genotype": "…", "recipe": "short", **recipe}
    old = made(tmp_path / "old", command="train", settings=settings)
    assert begun(TrainSettings, old, "train") == TrainSettings(data="digits", epochs=4, lr=0.2)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"version": FORMAT + 1}, f"was written by a newer msgdas (0.0.9): its config.json has version {FORMAT + 1}"),
        ({"version": "x"}, "was written by a newer msgdas"),
        (
            {"settings": {"data": "digits", "gone": 3}},
            "cannot read (option 'gone' is not known: see --help): go on with",
        ),
        ({"settings": [1]}, "has no settings in its config.json: start again with another --out"),
        ({"command": "train"}, "was made by 'msgdas train': give that command, or another --out"),
    ],
)
def test_what_cannot_be_read_is_one_line(config, line, tmp_path, capsys):
    folder = made(tmp_path / "run", **{"command": "search", "settings": {"data": "digits"}} | config)
    assert run("search", "--out", folder, "--resume") == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
