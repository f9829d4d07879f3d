"""Train with ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from msgdas.errors import InputError

__all__ = ["compiled", "refuse_drop_path", "refuse_without_compiler"]


def compiled(network: nn.Module) -> Callable[..., Any]:
    """The forward of ``network``, compiled as one graph with its backward. The first call compiles, for minutes.

    Raises:
        InputError: raised by the call if something cannot be compiled. There is no fallback to uncompiled code.
    """
    from torch._dynamo.exc import TorchDynamoException  # lazy: it takes a second

    forward = torch.compile(network, fullgraph=True)

    def run(*inputs: Any) -> Any:
        try:
            return forward(*inputs)
        except TorchDynamoException as error:
            raise _refused("this network cannot be compiled", error) from error

    return run


def refuse_without_compiler(device: str | torch.device) -> None:
    """Raise if ``torch.compile`` does not work for ``device`` on this machine.

    Raises:
        InputError: it does not.
    """
    try:
        torch.compile(torch.sin, fullgraph=True)(torch.zeros(2, device=device))
    except RuntimeError as error:
        raise _refused(f"nothing can be compiled for {device} on this machine", error) from error


def refuse_drop_path(drop_path: float) -> None:
    """Raise for drop path: its probability changes every epoch and is a constant of the compiled graph.

    Raises:
        InputError: ``drop_path`` is not 0.
    """
    if drop_path:
        raise InputError(f"compile with drop path {drop_path}: it would compile anew in every epoch: use 0")


def _refused(what: str, error: Exception) -> InputError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return InputError(f"compile: {what} ({reason}): leave it out, or install what is missing")
