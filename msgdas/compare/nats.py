"""The official files of NATS-Bench (Dong et al. 2021, arXiv:2009.00437): pickles, of which only plain values are read.

A pickle names the functions it wants called. Here it gets four, all harmless; any other name is refused before it is
looked up.
"""

from __future__ import annotations

import bz2
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any

from msgdas.errors import InputError

__all__ = ["is_nats", "read_nats_rows"]

LARGEST = 64 * 2**20  # bytes unpacked; the real files have 0.3 MB
VALIDATION = "x-valid"  # the part; only validation accuracies are read
DAMAGE = (pickle.UnpicklingError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError, MemoryError)


def is_nats(path: Path) -> bool:
    """Whether ``path`` looks like a file or a folder of NATS-Bench."""
    return path.suffix == ".pbz2" or path.is_dir()


def read_nats_rows(path: Path, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows for a `Table`; ``name``: ``DATASET`` or ``DATASET:EPOCHS``."""
    dataset, _, epochs = name.partition(":")
    files = sorted(path.glob("*.pbz2")) if path.is_dir() else [path]
    files = [file for file in files if path == file or not file.name.startswith("meta")]
    if not files:
        raise InputError(f"folder '{path}' has no NATS-Bench files (000000.pbz2, …): give another --table")
    for file in files:
        yield f"file '{file.name}'", _row(file, dataset, epochs or "200")


def _row(file: Path, dataset: str, epochs: str) -> dict[str, Any]:
    try:
        found = {str(key): value for key, value in _load(file).items()}
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"'{file}' is damaged: {str(error) or type(error).__name__}") from None
    if epochs not in found:
        known = ", ".join(key for key in found if key.isdigit()) or "none: it is no file of one architecture"
        raise InputError(f"'{file}' has no training of {epochs} epochs, but of {known}")
    try:
        return _means(file, found[epochs], dataset)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"'{file}' is not of the form of NATS-Bench: {type(error).__name__} {error}") from None


def _means(file: Path, results: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The means over the seeds of one architecture's trainings."""
    runs = [run for (name, _), run in results["all_results"].items() if name == dataset]
    if not runs:
        names = ", ".join(dict.fromkeys(name for name, _ in results["all_results"]))
        raise InputError(f"'{file}' has no data set {dataset!r}: name one of {names} with --column")
    if VALIDATION not in runs[0]["eval_names"]:
        raise InputError(f"'{file}' has no validation accuracy of {dataset!r}: use cifar10-valid, cifar100, …")
    return {
        "genotype": results["arch_str"],
        "accuracy": fmean(run["eval_acc1es"][f"{VALIDATION}@{run['epochs'] - 1}"] for run in runs),
        "train_seconds": fmean(sum(run["train_times"].values()) for run in runs),
    }


def _load(file: Path) -> dict[Any, Any]:
    unpacker = bz2.BZ2Decompressor()
    data = unpacker.decompress(file.read_bytes(), LARGEST)
    if not unpacker.eof:
        reason = "is more than 64 MiB unpacked" if len(data) >= LARGEST else "is cut short"
        raise InputError(f"'{file}' {reason}: no NATS-Bench file of one architecture is")
    found = _Plain(BytesIO(data), str(file)).load()
    if not isinstance(found, dict):
        raise InputError(f"'{file}' holds no NATS-Bench results, but {type(found).__name__}")
    return found


class _Inert:
    """Stands for what is in the files and not needed, NumPy's scalars and their types: takes all, does nothing."""

    def __init__(self, *given: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): _Inert,
    ("numpy.core.multiarray", "scalar"): _Inert,
    ("numpy._core.multiarray", "scalar"): _Inert,
}


class _Plain(pickle.Unpickler):
    def __init__(self, data: BytesIO, name: str) -> None:
        super().__init__(data)
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise InputError(f"'{self._name}' wants '{module}.{name}', which is not run: give an official file")
        return ALLOWED[module, name]
