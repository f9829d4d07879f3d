"""The options of a command, made from a settings model, and the settings that a command line means."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import click

from msgdas.errors import InputError
from msgdas.jobs.config import MOVABLE, begun, read_yaml, to_yaml
from msgdas.jobs.option import Option, Settings, dashed, options
from msgdas.jobs.resolve import has_fingerprint
from msgdas.jobs.settings import REQUIRED

__all__ = ["Command", "begun_settings", "config_options", "given_settings", "print_yaml", "settings_options"]

Model = TypeVar("Model", bound=Settings)
Function = TypeVar("Function", bound=Callable[..., Any])
TYPES: dict[type, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT, bool: click.BOOL, str: click.STRING}
OTHERS = "Other options"


class Command(click.Command):
    """A command whose ``--help`` lists options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for one in self.get_params(ctx):
            if isinstance(one, click.Option) and (record := one.get_help_record(ctx)):
                sections.setdefault(getattr(one, "heading", OTHERS), []).append(record)
        others = sections.pop(OTHERS, [])
        for heading, records in {**sections, OTHERS: others}.items():
            with formatter.section(heading):
                formatter.write_dl(records, col_max=26)


def settings_options(
    model: type[Settings], only: Collection[str] | None = None, *, leave_out: Collection[str] = (), **unset: str
) -> Callable[[Function], Function]:
    """Add the options of a model to a command. None has a default on the command line: the model has it.

    Args:
        only: names of those to add; None: all.
        unset: other words for what an option without a value means, by its name.
    """
    found = [one for one in options(model) if (only is None or one.name in only) and one.name not in leave_out]

    def add(command: Function) -> Function:
        for one in reversed(found):
            command = _click_option(one, unset.get(one.name, one.shown_default))(command)
        return command

    return add


def _click_option(one: Option, default: str | None) -> Callable[[Function], Function]:
    kind: Any = click.Choice(one.choices) if one.choices else TYPES[one.type]
    look: dict[str, Any] = {"type": kind}
    if one.bare:
        look |= {"is_flag": False, "flag_value": True, "metavar": "[BOOLEAN]"}
    elif one.type is bool and one.default is False:
        look = {"is_flag": True}
    names = [f"--{dashed(name)}" for name in (one.name, *one.aliases)]
    said = [one.bounds, default if default == REQUIRED else f"default: {default}" if default else None]
    hint = f"  [{'; '.join(filter(None, said))}]" if any(said) else ""
    cls = type("SettingsOption", (click.Option,), {"heading": one.group.value})
    return click.option(*names, one.name, cls=cls, default=None, help=one.help + hint, **look)


def config_options(command: Function) -> Function:
    """Add ``--config`` and ``--print-config`` to a command."""
    for option in (
        click.option(
            "--print-config", is_flag=True, help="print the settings as YAML for --config, and do nothing else"
        ),
        click.option(
            "--config", type=click.Path(), help="YAML file with options; those on the command line override it"
        ),
    ):
        command = option(command)
    return command


def given_settings(ctx: click.Context, model: type[Model], below: dict[str, Any] | None = None) -> Model:
    """The settings that a command line means: its options, then those of ``--config``, then ``below``, then defaults.

    Raises:
        InputError: a value or the file is wrong.
    """
    return model(**((below or {}) | _given(ctx, model)))


def begun_settings(ctx: click.Context, model: type[Model], out: Path | None, command: str) -> tuple[Path, Model]:
    """The folder and the settings of the run to go on with; an option given again must be the same.

    ``--data`` may name another folder, to which the images were moved: `find_data` compares their fingerprints.

    Raises:
        InputError: it is not, there is no folder or no such run, or this version cannot read it.
    """
    if out is None:
        raise InputError("--resume needs --out: the run to go on with")
    of_run = begun(model, out, command)
    given = _given(ctx, model)
    asked = model(**given)
    for name in given:
        value, kept = getattr(asked, name), getattr(of_run, name)
        same_folder = name == "data" and kept and Path(value).resolve() == Path(kept).resolve()
        if name in MOVABLE and os.path.exists(value) and has_fingerprint(out):
            of_run = of_run.model_copy(update={name: os.path.abspath(value)})
        elif value != kept and not same_folder:
            raise InputError(f"--{dashed(name)} {value} is not the run's {kept}: leave it out, or start anew")
    return out, of_run


def _given(ctx: click.Context, model: type[Settings]) -> dict[str, Any]:
    """The values of the file and of the command line, which wins."""
    path = ctx.params.get("config")
    values = read_yaml(model, path) if path else {}
    return values | {name: ctx.params[name] for name in model.model_fields if ctx.params.get(name) is not None}


def print_yaml(settings: Settings) -> None:
    click.echo(to_yaml(settings), nl=False)
