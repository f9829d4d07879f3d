"""Checkpoints as bytes: tensors and plain values, sealed by a digest so that damage is detected.

A checkpoint ends with the SHA-256 of what precedes it; ``torch.load(path)`` reads it all the same.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

__all__ = ["DAMAGE", "is_intact", "pack", "unpack"]

DAMAGE = (EOFError, LookupError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError, AssertionError)
"""What reading damaged tensors or fitting other ones raises."""


def pack(state: dict[str, Any]) -> tuple[memoryview, bytes]:
    """``state`` as bytes, and their seal, to be written one after the other.

    Raises:
        TypeError: ``state`` holds an object that `unpack` would refuse.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    _refuse_objects(buffer)
    body = buffer.getbuffer()
    return body, _seal(body)


def unpack(path: Path) -> dict[str, Any]:
    """The state in a checkpoint file, on the CPU. Pickled objects are never run.

    Raises:
        ValueError: the file is altered, or holds anything but tensors and plain values.
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    if not _sealed(data):
        raise ValueError("truncated or altered")
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError("it holds more than tensors and plain values, which is never loaded") from error
    except DAMAGE as error:
        raise ValueError(str(error).partition("\n")[0] or type(error).__name__) from error
    if not isinstance(state, dict):
        raise ValueError("it holds no state")
    return state


def is_intact(path: Path) -> bool:
    """Whether ``path`` can be read and its seal matches."""
    try:
        return _sealed(path.read_bytes())
    except OSError:
        return False


def _seal(body: bytes | memoryview) -> bytes:
    return f"\nmsgdas-sha256:{hashlib.sha256(body).hexdigest()}\n".encode()


_SEAL_SIZE = len(_seal(b""))


def _sealed(data: bytes) -> bool:
    return data[-_SEAL_SIZE:] == _seal(memoryview(data)[:-_SEAL_SIZE])


def _refuse_objects(buffer: io.BytesIO) -> None:
    buffer.seek(0)
    objects = get_unsafe_globals_in_checkpoint(buffer)
    if objects:
        raise TypeError(f"a checkpoint holds tensors and plain values only, and was given {', '.join(objects)}")
