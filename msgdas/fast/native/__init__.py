"""Compiled kernels for the CPU: the C files of this folder, called by ctypes. See ``README.md`` here."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch

from msgdas.fast.native.build import load

__all__ = ["LANES", "Strides", "Term", "Window", "empty_map", "native", "run", "takes", "use_native"]

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = "-O3", "-march=native", "-fopenmp", "-fPIC"
WIDE = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()  # compilers prefer half
NUMBERS = {torch.float32: "float", torch.float64: "double"}
LANES = 32  # as in kernels.c

_in_use = _everywhere = False  # the only state of this package: set by `use_native`, read by `takes`


def use_native(use: bool = True, *, everywhere: bool = False) -> None:
    """Turn the compiled kernels on or off, for this process.

    In networks that `speed_up` has prepared they compute sums, BatchNorms, poolings and convolutions in training, for
    float32 and float64 maps on a CPU in channels_last that are large enough to gain. Results are equal up to rounding.

    Compiles the kernels with ``$CC`` or ``cc`` if this user has not done so on such a processor (some seconds); those
    for float64 when the first of them runs.

    Args:
        everywhere: also for maps too small to gain, for tests.

    Raises:
        InputError: there is no C compiler with OpenMP, or it fails. Kernels are then as they were.
    """
    global _in_use, _everywhere
    if use:
        _kernels(torch.float32)
    _in_use, _everywhere = use, everywhere


def native() -> bool:
    """Whether the kernels are in use."""
    return _in_use


def takes(x: torch.Tensor, size: int) -> bool:
    """Whether the kernels are in use, can read the map ``x``, ``(B, C, H, W)``, and gain on one of ``size`` numbers."""
    return (
        _in_use
        and (x.numel() >= size or _everywhere)
        and x.dtype in NUMBERS
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def empty_map(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """An uninitialised map ``(B, C, H, W)`` for a kernel to write, of the type of ``like``."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


class Term(ctypes.Structure):
    """A summand, by addresses, as in ``kernels.c``."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("x", "of_x", "factors", "stats", "gamma", "beta")),
        *((name, ctypes.c_int64) for name in ("running_mean", "running_var", "of_gamma", "of_beta")),
        *((name, ctypes.c_double) for name in ("weight", "of_weight", "momentum", "eps")),
    ]


class Window(ctypes.Structure):
    """The window of a convolution, as in ``kernels.c``."""

    _fields_ = [(name, ctypes.c_int32) for name in ("kernel", "stride", "dilation")]


class Strides(ctypes.Structure):
    """The strides of a weight ``(C_out, C_in, k, k)``, as in ``kernels.c``."""

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
    """Call a kernel for maps of ``dtype``. It gets a tensor's address, and 0 for None.

    Raises:
        MemoryError: no memory for what the kernel needs besides its arguments.
    """
    done = _kernels(dtype)[kernel](*[each.data_ptr() if isinstance(each, torch.Tensor) else each for each in arguments])
    if not done:
        raise MemoryError(f"no memory for the kernel {kernel!r}")


@lru_cache
def _kernels(dtype: torch.dtype) -> Mapping[str, Callable[..., int]]:
    library = load(SOURCE, [*FLAGS, *WIDE, f"-DREAL={NUMBERS[dtype]}"])
    found = {kernel: library[kernel] for kernel in _KERNELS}
    for kernel, arguments in _KERNELS.items():
        found[kernel].argtypes = arguments
    return found
