"""What the words of a command line stand for: genotypes, devices, folders."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch

from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.runs import Run
from msgdas.spaces import SPACES, find_space

__all__ = ["find_device", "find_genotype", "free_folder"]


def find_genotype(source: str) -> Genotype:
    """The genotype of a run folder, a JSON file, or a text ``space:…``.

    Raises:
        InputError: none of these, or damaged.
    """
    path = Path(source)
    if os.path.isdir(source):  # Path.is_dir raises for a text too long to be a path
        Run.open(path, lock=False)
        if not (path / "genotype.json").exists():
            raise InputError(f"run '{path}' has no genotype yet: finish it with 'msgdas search --out {path} --resume'")
        return _read(path / "genotype.json")
    if os.path.isfile(source):
        return _read(path)
    space, colon, text = source.partition(":")
    if colon:
        return find_space(space).from_string(text)
    raise InputError(
        f"{source!r} is no run folder, no genotype file and no text like 'darts:DARTS_V2' or 'nasbench201:|op~0|+…'"
    )


def _read(path: Path) -> Genotype:
    """A genotype file, JSON or a text ``space:…``, checked against its space."""
    with suppress(OSError, UnicodeError):
        space, colon, text = path.read_text(encoding="utf-8").strip().partition(":")
        if colon and space in SPACES:
            return find_space(space).from_string(text)
    genotype = Genotype.read(path)
    find_space(genotype.space).to_string(genotype)
    return genotype


def find_device(name: str) -> str:
    """``"auto"``: a GPU where there is one.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device {name!r} is not to be had here ({reason}): use 'auto' or 'cpu'") from None
    return name


def free_folder(name: str) -> Path:
    """``runs/NAME``, or the first of ``runs/NAME-2``, … that is not there."""
    for number in range(1, 10_000):
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not path.exists():
            return path
    raise InputError(f"runs/{name}-… are all taken: give --out")
