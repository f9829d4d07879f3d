"""What a method asks of a super-net, and what a space can give."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from msgdas.errors import InputError
from msgdas.spaces import SPACES, Space

__all__ = ["supernet_options"]


def supernet_options(space: Space, method: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the ``asked`` arguments (`Method.supernet`) that the space's super-net takes.

    Args:
        method: name for the error.

    Raises:
        InputError: something is asked for and the space takes none of it.
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
