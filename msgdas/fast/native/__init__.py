"""Kernels of ours for the CPU, compiled where they are to run: ``kernels.c`` and what it includes; ``blocks.cpp``, the
memory that tensors lie in."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from msgdas.errors import InputError

__all__ = [
    "LANES",
    "Strides",
    "Term",
    "Window",
    "empty_map",
    "native",
    "run",
    "takes",
    "use_blocks",
    "use_native",
    "without_kernels",
]

FLAGS = "-O3", "-march=native", "-fopenmp", "-fPIC"
PYTORCH = Path(torch.__file__).parent
WIDE = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()  # compilers prefer half
NUMBERS = {torch.float32: "float", torch.float64: "double"}
LANES = 32  # as in kernels.c

_used = False


def use_native(use: bool = True) -> None:
    """Whether this process adds, normalises and convolves maps, and differentiates depthwise convolutions, by compiled
    kernels: in training, on a CPU, in channels_last, where they pay. Results are equal but for rounding.

    Tensors lie in blocks of ours (`use_blocks`).

    The first call compiles both, in a few seconds, by ``$CC`` or ``cc`` for this processor; kernels for float64 are
    compiled when the first of them runs.

    Raises:
        InputError: there is no compiler of C with OpenMP and of C++20, or it fails.
    """
    global _used
    if use:
        _kernels(torch.float32)
    if use or _used:
        use_blocks(use)
    _used = use


def use_blocks(use: bool = True) -> None:
    """Whether this process puts tensors on the CPU, from now on, into blocks of memory that any later tensor of the
    size fits. On Linux: elsewhere nothing happens.

    Raises:
        InputError: there is no compiler of C++20, or it fails.
    """
    if sys.platform == "linux":
        _blocks().use_blocks(use)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Inside, forwards are PyTorch's own operations, whatever `use_native` says; tensors lie where they did."""
    global _used
    before, _used = _used, False
    try:
        yield
    finally:
        _used = before


def native() -> bool:
    """Whether `use_native` is on."""
    return _used


def takes(x: torch.Tensor, size: int) -> bool:
    """Whether the kernels are in use, and can have a map ``(B, C, H, W)``, if it has ``size`` numbers or more."""
    return (
        _used
        and x.numel() >= size
        and x.dtype in NUMBERS
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def empty_map(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Memory for a map ``(B, C, H, W)`` that a kernel is to write, of the type of ``like``."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


class Term(ctypes.Structure):
    """As in ``kernels.c``: a summand, by addresses."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("x", "of_x", "factors", "stats", "gamma", "beta")),
        *((name, ctypes.c_int64) for name in ("running_mean", "running_var", "of_gamma", "of_beta")),
        *((name, ctypes.c_double) for name in ("weight", "of_weight", "momentum", "eps")),
    ]


class Window(ctypes.Structure):
    """As in ``kernels.c``: of a convolution."""

    _fields_ = [(name, ctypes.c_int32) for name in ("kernel", "stride", "dilation")]


class Strides(ctypes.Structure):
    """As in ``kernels.c``: those of a weight ``(C_out, C_in, k, k)``."""

    _fields_ = [(name, ctypes.c_int64) for name in ("c_out", "c_in", "down", "right")]


_SUM = ctypes.c_int64, ctypes.c_int, ctypes.c_int, ctypes.POINTER(Term), ctypes.c_void_p
_IMAGES = *[ctypes.c_int64] * 3, ctypes.c_int, ctypes.c_int, Strides
_INT, _MAPS = [ctypes.c_int], [ctypes.c_void_p]
_KERNELS = {
    "forward": _SUM,
    "backward": _SUM,
    "depthwise_backward": (*[ctypes.c_int64] * 3, ctypes.c_int, Window, *_MAPS * 5),
    "pool3x3": (*[ctypes.c_int64] * 3, ctypes.c_int, *_INT, *_MAPS * 2),
    "pool2x2": (*[ctypes.c_int64] * 3, ctypes.c_int, *_INT, *_MAPS * 2),
    "conv1x1": (*_IMAGES, *_INT, *_MAPS * 6),
    "conv1x1_of_weight": (*_IMAGES, *_INT, *_MAPS * 3),
    "conv3x3": (*_IMAGES, *_INT, *_MAPS * 6),
    "conv3x3_of_weight": (*_IMAGES, *_INT, *_MAPS * 3),
    "strided3x3": (*_IMAGES, *_INT * 2, *_MAPS * 3),
    "strided3x3_of_input": (*_IMAGES, *_INT, *_MAPS * 4),
    "strided3x3_of_weight": (*_IMAGES, *_INT * 2, *_MAPS * 3),
}


def run(kernel: str, dtype: torch.dtype, *arguments: object) -> None:
    """A kernel for maps of numbers of this type; of tensors it gets the address, of None 0."""
    done = _kernels(dtype)[kernel](*[each.data_ptr() if isinstance(each, torch.Tensor) else each for each in arguments])
    if not done:
        raise MemoryError("no memory for a kernel's sums")


@lru_cache
def _kernels(dtype: torch.dtype) -> Mapping[str, Callable[..., int]]:
    # linked without -fopenmp: OpenMP is the one that PyTorch has loaded, and so are its threads
    loaded = _compiled("kernels.c", [*FLAGS, *WIDE, f"-DREAL={NUMBERS[dtype]}"], ["-lm"])
    found = {kernel: loaded[kernel] for kernel in _KERNELS}
    for kernel, arguments in _KERNELS.items():
        found[kernel].argtypes = arguments
    return found


@lru_cache
def _blocks() -> ctypes.CDLL:
    flags = ["-O2", "-fPIC", "-std=c++20", f"-I{PYTORCH / 'include'}"]
    return _compiled("blocks.cpp", flags, [f"-L{PYTORCH / 'lib'}", "-lc10"])


def _compiled(name: str, flags: Sequence[str], libraries: Sequence[str]) -> ctypes.CDLL:
    source, compiler = Path(__file__).with_name(name), shlex.split(os.environ.get("CC", "cc"))
    with TemporaryDirectory(prefix="msgdas-") as scratch:
        made, library = Path(scratch, source.stem + ".o"), Path(scratch, source.stem + ".so")
        try:
            _call([*compiler, *flags, "-c", str(source), "-o", str(made)])
            _call([*compiler, "-shared", str(made), "-o", str(library), *libraries])
            return ctypes.CDLL(str(library))
        except (OSError, subprocess.CalledProcessError) as error:
            said = str(getattr(error, "stderr", "") or error).strip().splitlines()
            raise InputError(
                f"native kernels need a compiler of C with OpenMP and of C++20, and {shlex.join(compiler)!r} failed on "
                f"{name}: {said[0]}; install gcc and g++, name a compiler in the environment variable CC, or "
                "leave --native out"
            ) from None


def _call(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
