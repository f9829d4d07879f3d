"""The user's cache folder, and decoded images in it, which the next command does not decode again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import platformdirs
import torch
from torch import Tensor

from msgdas.data.form import Form
from msgdas.data.listing import Files
from msgdas.errors import InputError
from msgdas.runs.files import remove_leftovers, write_atomic

__all__ = ["cache_folder", "decoded_once"]

OFF = "MSGDAS_CACHE"  # set to 0: nothing is kept
WORTH = 2000  # images from which on it pays
LARGEST, MOST = 2 * 2**30, 8 * 2**30  # bytes of one set, and of all
SUFFIX = ".npy"


def cache_folder(name: str) -> Path:
    """``name`` in the user's cache folder; it may not be there yet."""
    return platformdirs.user_cache_path("msgdas", appauthor=False) / name


def decoded_once(files: Files, form: Form, decode: Callable[[], tuple[Tensor, bool]]) -> Tensor:
    """The pixels of the files, uint8 ``(N, channels, height, width)``: from an earlier call, or from ``decode``.

    They are kept if there are 2,000 or more, under the files' paths, sizes and times of change; the longest unused go
    first once all take 8 GiB. Only the user can read them. ``MSGDAS_CACHE=0`` keeps nothing. If they cannot be kept,
    that is no error.

    Args:
        decode: gives the pixels, and whether they may be kept: all files could be read.
    """
    if not WORTH <= len(files) <= LARGEST // form.bytes or os.environ.get(OFF) == "0":
        return decode()[0]
    shape = (len(files), form.channels, form.height, form.width)
    folder = cache_folder("decoded")
    path = folder / f"{_key(files, form)}{SUFFIX}"
    with suppress(OSError, ValueError, EOFError):
        kept = np.load(path, allow_pickle=False)
        if kept.dtype == np.uint8 and kept.shape == shape:
            os.utime(path)
            return torch.from_numpy(kept)
    pixels, all_read = decode()
    if all_read:
        with suppress(OSError, InputError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            remove_leftovers(folder)
            _make_room(folder, pixels.nbytes)
            write_atomic(path, _header(pixels), pixels.contiguous().numpy().data.cast("B"), mode=0o600)
    return pixels


def _key(files: Files, form: Form) -> str:
    """What the pixels depend on, as a short text: files by path, size and time, the form, the decoders' versions."""
    digest = hashlib.sha256(json.dumps([asdict(form), version("pillow")]).encode())
    for path, _ in files:
        digest.update(os.fsencode(f"{os.path.abspath(path)}\0{_state(path)}\0"))
    return digest.hexdigest()[:32]


def _state(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "gone"
    return f"{found.st_size} {found.st_mtime_ns}"


def _header(pixels: Tensor) -> bytes:
    """That of a ``.npy`` file, which the values follow."""
    header = BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": tuple(pixels.shape)}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def _make_room(folder: Path, needed: int) -> None:
    kept = sorted((p for p in folder.glob(f"*{SUFFIX}")), key=lambda p: p.stat().st_mtime)
    total = needed + sum(p.stat().st_size for p in kept)
    for path in kept:
        if total <= MOST:
            return
        total -= path.stat().st_size
        path.unlink()
