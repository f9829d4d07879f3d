"""Match what a method asks of a super-net to what a space offers."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from msgdas.errors import InputError
from msgdas.spaces import SPACES, Space

__all__ = ["supernet_options"]


def supernet_options(space: Space, method: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Select from ``asked`` (`Method.supernet`) the arguments that the super-net of ``space`` accepts.

    Args:
        method: name of the method, for the error message.

    Raises:
        InputError: ``asked`` is not empty and the space accepts none of it.
    """
    known = signature(space.supernet).parameters
    options = {option: value for option, value in asked.items() if option in known}
    if asked and not options:
        able = [s.name for s in SPACES.values() if asked.keys() & signature(s.supernet).parameters.keys()]
        raise InputError(
            f"method {method} needs a super-net with {', '.join(asked)}, which space {space.name} does not have: "
            f"use {', '.join(able)}"
        )
    return options
