"""Compile a C library once per user and load it from then on."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs
from filelock import FileLock, Timeout

from msgdas.errors import InputError
from msgdas.runs import write_atomic

__all__ = ["load"]

WAIT = 60.0  # seconds for another process that compiles the same


def load(source: Path, flags: Sequence[str]) -> ctypes.CDLL:
    """The shared library of ``source``, a C file that may include others of its folder.

    ``$CC``, or ``cc``, compiles it. The result is kept in the user's cache folder, under a name that depends on all it
    was made from: sources, flags, compiler, processor, C library. Where there is no such folder, or other users could
    write to it, every process compiles for itself.

    Raises:
        InputError: there is no compiler, or it fails.
    """
    compiler = shlex.split(os.environ.get("CC") or "cc")
    try:
        folder, key = _cache_folder(), f"{source.stem}-{_key(source, compiler, flags)}"
        found = _kept(folder, key) if folder else None
        return _compile(source, compiler, flags, folder, key) if found is None else found
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        raise InputError(
            f"native kernels need a C compiler with OpenMP, and {shlex.join(compiler)!r} failed on {source.name}: "
            f"{said[0]}; install gcc, name a compiler in the environment variable CC, or leave --native out"
        ) from None


def _compile(source: Path, compiler: list[str], flags: Sequence[str], folder: Path | None, key: str) -> ctypes.CDLL:
    with ExitStack() as held:
        if folder:
            # The lock only saves work: without it two processes compile, and both results are complete.
            with suppress(OSError, NotImplementedError, Timeout):
                held.enter_context(FileLock(folder / f"{key}.lock", timeout=WAIT))
            if (found := _kept(folder, key)) is not None:  # by the process that held the lock
                return found
        scratch = Path(held.enter_context(TemporaryDirectory(prefix="msgdas-")))  # readable by this user alone
        made, library = scratch / "made.o", scratch / "made.so"
        _run([*compiler, *flags, "-c", str(source), "-o", str(made)])
        # Linked without -fopenmp: the library shares the OpenMP that PyTorch has loaded, and its threads.
        _run([*compiler, "-shared", str(made), "-o", str(library), "-lm"])
        if folder:
            content = library.read_bytes()
            with suppress(OSError, InputError):  # a full or read-only disk, a link in the place of the file
                kept = folder / f"{key}-{_digest(content)}.so"
                write_atomic(kept, content)
                kept.chmod(0o600)
                return ctypes.CDLL(str(kept))
        return ctypes.CDLL(str(library))


def _kept(folder: Path, key: str) -> ctypes.CDLL | None:
    """The library of an earlier process. Its name ends in the digest of its content: a damaged one does not count."""
    for file in folder.glob(f"{key}-*.so"):
        with suppress(OSError):
            if _is_private(file) and file.stem == f"{key}-{_digest(file.read_bytes())}":
                return ctypes.CDLL(str(file))
    return None


def _key(source: Path, compiler: list[str], flags: Sequence[str]) -> str:
    """A digest of all that the library depends on."""
    # The compiler's predefined macros name its version and the processor's features, as -march=native sees them.
    macros = _run([*compiler, *flags, "-dM", "-E", "-x", "c", os.devnull])
    where = [*compiler, str(shutil.which(compiler[0])), platform.system(), platform.machine(), *platform.libc_ver()]
    sources = [part for file in sorted(source.parent.glob("*.c")) for part in (file.name, file.read_text("utf-8"))]
    return _digest("\0".join([*where, *flags, macros, *sources]).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _cache_folder() -> Path | None:
    """Where libraries are kept; None where it cannot be made or anyone but this user and root could change it."""
    folder = platformdirs.user_cache_path("msgdas") / "kernels"
    if not hasattr(os, "getuid") or not folder.is_absolute():  # relative: there is no home
        return None
    try:
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = folder.resolve()
        safe = _is_private(folder) and all(map(_is_safe_above, folder.parents))
    except OSError:
        return None
    return folder if safe else None


def _is_private(path: Path) -> bool:
    """Whether the file or folder is this user's, and no other user may write to it."""
    status = path.lstat()
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_safe_above(folder: Path) -> bool:
    """Whether no stranger can put another folder in the place of one in it. In /tmp its sticky bit prevents that."""
    status = folder.stat()
    closed = not status.st_mode & stat.S_IWOTH or status.st_mode & stat.S_ISVTX
    return bool(closed) and status.st_uid in (0, os.getuid())


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
