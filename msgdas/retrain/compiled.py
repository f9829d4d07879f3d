"""Compiled training, by ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from msgdas.errors import InputError

__all__ = ["compiled", "refuse_drop_path", "refuse_without_compiler"]


def compiled(network: nn.Module) -> Callable[..., Any]:
    """The forward of ``network`` as one compiled piece, and with it its backward. The first call compiles it, in a
    minute or more.

    Raises:
        InputError: by the call, if there is something that cannot be compiled; it is never run uncompiled instead.
    """
    from torch._dynamo.exc import TorchDynamoException  # here: it takes a second

    forward = torch.compile(network, fullgraph=True)

    def run(*inputs: Any) -> Any:
        try:
            return forward(*inputs)
        except TorchDynamoException as error:
            raise _refused("this network cannot be compiled", error) from error

    return run


def refuse_without_compiler(device: str | torch.device) -> None:
    """Raises:
    InputError: nothing at all can be compiled for ``device`` here.
    """
    try:
        torch.compile(torch.sin, fullgraph=True)(torch.zeros(2, device=device))
    except RuntimeError as error:
        raise _refused(f"nothing can be compiled for {device} on this machine", error) from error


def refuse_drop_path(drop_path: float) -> None:
    """Raises:
    InputError: there is drop path, whose probability is a constant of what is compiled and changes with every epoch.
    """
    if drop_path:
        raise InputError(f"compile with drop path {drop_path}: it would compile anew in every epoch: use 0")


def _refused(what: str, error: Exception) -> InputError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return InputError(f"compile: {what} ({reason}): leave it out, or install what is missing")
