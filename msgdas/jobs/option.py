"""What an option is: a checked field of a settings model, with all that the command line and the documentation need.

A wrong value is an `InputError` of one line that names the option, the value and the way out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from msgdas.errors import InputError, cut, shown

__all__ = ["Group", "Option", "Settings", "dashed", "option", "options"]


class Group(str, Enum):
    """What an option is about. The value is its heading in ``--help``; headings appear in this order."""

    COMPARED = "What to compare"
    DATA = "Data"
    WHAT = "What to search"
    METHOD = "Options of some methods"
    EVERY_METHOD = "Options of every method"
    RECIPE = "Training"
    SIZE = "Length and size"
    EXECUTION = "Memory and precision"
    MACHINE = "Machine"


def option(
    default: Any,
    help: str,
    group: Group,
    *,
    unset: str | None = None,
    choices: Collection[str] = (),
    aliases: Sequence[str] = (),
    bare: bool = False,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
) -> Any:
    """A field that is an option.

    Args:
        unset: what an option without a value means, for the help.
        choices: the texts that it takes.
        aliases: further names.
        bare: of a bool: the option alone means true, and it also takes a value.
        gt, ge, lt, le: bounds of a number: above, at least, below, at most.
    """
    look: dict[str, Any] = {
        "group": group.name,
        "unset": unset,
        "choices": list(choices),
        "aliases": list(aliases),
        "bare": bare,
    }
    return Field(default, description=help, json_schema_extra=look, gt=gt, ge=ge, lt=lt, le=le)


@dataclass(frozen=True)
class Option:
    """How an option looks: a field, as the command line and the documentation need it.

    Attributes:
        type: int, float, bool or str.
        bounds: of a number, in words; ``None`` of anything else.
        default: None where it depends on something; ``unset`` then says what it is.
    """

    name: str
    type: type
    bounds: str | None
    default: Any
    help: str
    group: Group
    unset: str | None
    choices: tuple[str, ...]
    aliases: tuple[str, ...]
    bare: bool

    @property
    def shown_default(self) -> str | None:
        """The default in words, or None if nothing needs to be said."""
        if self.unset is not None:
            return self.unset
        return None if self.default is None or self.default is False else str(self.default)


class Settings(BaseModel):
    """Frozen, checked values. A wrong one is an `InputError` of one line that names the option."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    if not TYPE_CHECKING:  # a type checker sees the fields instead

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise InputError(_line(type(self), error.errors()[0])) from None

    @field_validator("*")
    @classmethod
    def _known(cls, value: Any, info: ValidationInfo) -> Any:
        choices = _option(str(info.field_name), cls.model_fields[str(info.field_name)]).choices
        if choices and value is not None and value not in choices:
            raise PydanticCustomError("choice", "{choices}", {"choices": f"use {', '.join(choices)}"})
        return value


def options(model: type[Settings]) -> list[Option]:
    """The options of a model, by group."""
    found = [_option(name, field) for name, field in model.model_fields.items()]
    return sorted(found, key=lambda one: list(Group).index(one.group))


def dashed(name: str) -> str:
    """A name as the command line has it."""
    return name.replace("_", "-")


def _option(name: str, field: FieldInfo) -> Option:
    look: dict[str, Any] = field.json_schema_extra  # type: ignore[assignment]
    types = [t for t in get_args(field.annotation) or (field.annotation,) if t is not NoneType]
    return Option(
        name,
        types[0],
        _in_words(dict(_bounds(field))) if types[0] in (int, float) else None,
        field.default,
        field.description or "",
        Group[look["group"]],
        look["unset"],
        tuple(look["choices"]),
        tuple(look["aliases"]),
        look["bare"],
    )


# -------------------------------------------------------------------------- errors


def _line(model: type[Settings], error: ErrorDetails) -> str:
    """One error as a line: the option, its value, the way out."""
    if not error["loc"]:  # a name that is no text
        return "the name of an option is damaged: see --help"
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        near = get_close_matches(dashed(name), map(dashed, model.model_fields), n=1)
        return f"option {shown(dashed(name))} is not known: " + (f"did you mean {near[0]!r}?" if near else "see --help")
    given = error["input"]
    value = cut(given) if isinstance(given, str) and given else shown(given)
    return f"--{dashed(name)} {value}: {_way_out(model.model_fields[name], error)}"


def _way_out(field: FieldInfo, error: ErrorDetails) -> str:
    if error["type"] in ("choice", "format"):
        return error["msg"]
    kind = _option("", field).type
    if kind not in (int, float):
        return "use true or false" if kind is bool else "use a text"
    bounds = dict(_bounds(field))
    low = f"{bounds['ge']:,}" if "ge" in bounds else f"a number above {bounds['gt']:,}"
    high = bounds.get("le", bounds.get("lt", math.inf))
    if high <= 1 and "ge" in bounds:
        return f"use {low} to {high:,}" if "le" in bounds else f"use {low} or more, below {high:,}"
    if error["type"] in ("less_than_equal", "less_than"):
        return f"use at most {high:,}"
    whole = "a whole number, " if error["type"].startswith("int_") else ""
    return f"use {whole}{low} or more" if "ge" in bounds else f"use {low}"


def _in_words(bounds: Mapping[str, float]) -> str:
    """``"1 to 1,000"``, ``"above 0, at most 10"``, ``"0 or more, below 1"``."""
    low, high = (next(name for name in names if name in bounds) for names in (("gt", "ge"), ("lt", "le")))
    if (low, high) == ("ge", "le"):
        return f"{bounds[low]:,} to {bounds[high]:,}"
    lowest = f"{bounds[low]:,} or more" if low == "ge" else f"above {bounds[low]:,}"
    return f"{lowest}, {'at most' if high == 'le' else 'below'} {bounds[high]:,}"


def _bounds(field: FieldInfo) -> Iterator[tuple[str, float]]:
    """The bounds in a field's metadata (`annotated_types.Gt` and so on)."""
    for metadata in field.metadata:
        for name in ("gt", "ge", "lt", "le"):
            if (value := getattr(metadata, name, None)) is not None:
                yield name, value
