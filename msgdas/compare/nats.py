"""Read the official files of NATS-Bench (Dong et al. 2021, arXiv:2009.00437) without running their pickles.

A pickle is a program. The unpickler here runs only instructions that build plain data, knows four functions, all
harmless, and refuses any other without looking it up. Its memory and time are bounded by the size of the file.
"""

from __future__ import annotations

import bz2
import os
import pickle
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any

from msgdas.errors import InputError, shown

__all__ = ["is_nats", "read_nats_rows"]

LARGEST = 2**20  # bytes after decompression; the official files have 0.3 MB
LONGEST_TUPLE = 16
VALIDATION = "x-valid"  # the part whose accuracies are read
DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    struct.error,
)


def is_nats(path: Path) -> bool:
    """Whether ``path`` looks like a file or folder of NATS-Bench."""
    return path.suffix == ".pbz2" or os.path.isdir(path)  # of any length


def read_nats_rows(path: Path, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield rows for a `Table`. ``name`` is ``DATASET`` or ``DATASET:EPOCHS``."""
    dataset, _, epochs = name.partition(":")
    files = sorted(path.glob("*.pbz2")) if path.is_dir() else [path]
    files = [file for file in files if path == file or not file.name.startswith("meta")]
    if not files:
        raise InputError(f"folder '{path}' has no NATS-Bench files (000000.pbz2, …): give another --table")
    for file in files:
        yield f"file '{file.name}'", _row(file, dataset, epochs or "200")


def _row(file: Path, dataset: str, epochs: str) -> dict[str, Any]:
    try:
        by_epochs = {str(key): value for key, value in _load(file).items()}
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"'{file}' is damaged: {str(error) or type(error).__name__}") from None
    if epochs not in by_epochs:
        known = ", ".join(key for key in by_epochs if key.isdigit()) or "none: it is not a file of one architecture"
        raise InputError(f"'{file}' has no training of {epochs} epochs, but of {known}")
    try:
        return _means(file, by_epochs[epochs], dataset)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"'{file}' is not of the form of NATS-Bench: {type(error).__name__} {error}") from None


def _means(file: Path, results: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """Means over the seeds of one architecture's trainings."""
    trainings = [training for (name, _), training in results["all_results"].items() if name == dataset]
    if not trainings:
        names = ", ".join(dict.fromkeys(name for name, _ in results["all_results"]))
        raise InputError(f"'{file}' has no data set {dataset!r}: name one of {names} with --column")
    if VALIDATION not in trainings[0]["eval_names"]:
        raise InputError(f"'{file}' has no validation accuracy of {dataset!r}: use cifar10-valid, cifar100, …")
    return {
        "genotype": results["arch_str"],
        "accuracy": fmean(t["eval_acc1es"][f"{VALIDATION}@{t['epochs'] - 1}"] for t in trainings),
        "train_seconds": fmean(sum(t["train_times"].values()) for t in trainings),
    }


def _load(file: Path) -> dict[Any, Any]:
    unpacker = bz2.BZ2Decompressor()
    data = unpacker.decompress(file.read_bytes(), LARGEST)
    if not unpacker.eof:
        reason = "is more than 1 MiB unpacked" if len(data) >= LARGEST else "is cut short"
        raise InputError(f"'{file}' {reason}: no NATS-Bench file of one architecture is")
    try:
        results = _Plain(BytesIO(data), str(file)).load()
    except KeyError:
        raise InputError(f"'{file}' is damaged: it has instructions or references of no official file") from None
    if not isinstance(results, dict):
        raise InputError(f"'{file}' holds no NATS-Bench results, but {type(results).__name__}")
    return results


class _Inert:
    """Stand-in for objects in the files that we do not need (NumPy's scalars and dtypes): accepts all, does nothing."""

    def __init__(self, *given: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _empty_dict() -> dict[Any, Any]:
    return {}


ALLOWED = {
    ("collections", "OrderedDict"): _empty_dict,
    ("numpy", "dtype"): _Inert,
    ("numpy.core.multiarray", "scalar"): _Inert,
    ("numpy._core.multiarray", "scalar"): _Inert,
}


INSTRUCTIONS = {
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINGET", "LONG_BINGET",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINFLOAT",
    "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES",
    "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
}  # fmt: skip
"""What official files consist of (protocol 4), and a few of the same kind."""


def _dispatch() -> dict[int, Callable[[Any], None]]:
    """`INSTRUCTIONS` by their codes."""
    names = {ord(op.code): op.name for op in pickletools.opcodes}
    known = {code: load for code, load in pickle._Unpickler.dispatch.items() if names[code] in INSTRUCTIONS}
    return {code: _flat(load) if names[code].startswith("TUPLE") else load for code, load in known.items()}


def _flat(load: Callable[[Any], None]) -> Callable[[Any], None]:
    def load_flat(unpickler: Any) -> None:
        load(unpickler)
        made = unpickler.stack[-1]
        if len(made) > LONGEST_TUPLE or any(isinstance(item, tuple) for item in made):
            raise pickle.UnpicklingError("a tuple that is nested or long")

    return load_flat


class _Plain(pickle._Unpickler):
    """Python's own unpickler in Python, with `INSTRUCTIONS` only.

    The one in C takes memory by numbers in the file. Tuples are flat and short, since each use as a key hashes all.
    """

    dispatch = _dispatch()

    def __init__(self, data: BytesIO, name: str) -> None:
        super().__init__(data)
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise InputError(
                f"'{self._name}' wants {shown(f'{module}.{name}')}, which is not run: give an official file"
            )
        return ALLOWED[module, name]
