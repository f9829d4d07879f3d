"""The report of a run."""

from __future__ import annotations

from pathlib import Path

from msgdas.genotype import Genotype
from msgdas.report import write_report
from msgdas.runs import Run
from msgdas.spaces import find_space

__all__ = ["report"]


def report(folder: Path) -> Path:
    """Write ``report.html`` of a run folder and return its path.

    Raises:
        InputError: there is no run, or a file of it is damaged.
    """
    Run.open(folder, lock=False)
    file = folder / "genotype.json"
    graphs = []
    if file.exists():
        genotype = Genotype.read(file)
        graphs = find_space(genotype.space).graphs(genotype)
    return write_report(folder, graphs)
