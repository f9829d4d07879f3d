"""The result of one finished search, read from its run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from msgdas.compare.queue import Task
from msgdas.errors import InputError, wrong
from msgdas.genotype import Genotype
from msgdas.runs import Run, read_json

__all__ = ["SearchResult", "read_result"]

SKIP = "skip_connect"


@dataclass(frozen=True)
class SearchResult:
    """One finished search.

    Attributes:
        method: the method as given, ``METHOD:option=value:…``.
        records: one per epoch, from ``metrics.jsonl``.
        text: the genotype as text.
        derived_accuracy: validation accuracy of the genotype with the super-net's weights, a fraction.
        seconds: spent searching, without interruptions.
        peak_memory_mib: of its process; ``None`` if not measured.
        skip_share: fraction of the choices that keep `SKIP`.
        params, macs: parameters and multiply-adds of the derived network.
        versions: of packages, the platform and the number of threads.
    """

    method: str
    seed: int
    records: Sequence[dict[str, Any]]
    genotype: Genotype
    text: str
    derived_accuracy: float
    seconds: float
    peak_memory_mib: float | None
    skip_share: float
    params: int
    macs: int
    versions: dict[str, Any]


def read_result(task: Task) -> SearchResult:
    """Read the run folder of a finished task.

    Raises:
        InputError: a file is missing or damaged.
    """
    run = Run.open(task.folder, lock=False)
    file = task.folder / "genotype.json"
    genotype, records = Genotype.read(file), run.metrics()
    if not records:
        raise InputError(f"run '{task.folder}' has a genotype and no metrics: remove the folder, to search again")
    for record in records:
        last = _checked(_Record, record, "metrics.jsonl", task)
    found = _checked(_Found, read_json(file), file.name, task)
    return SearchResult(
        task.spec.text,
        task.seed,
        records,
        genotype,
        str(genotype),
        found.ranked[0].accuracy if found.ranked else last.derived_accuracy,
        last.seconds,
        task.noted().get("peak_memory_mib"),
        genotype.share(SKIP),
        found.params,
        found.macs,
        run.section("versions") | {"threads": run.section("settings").get("threads")},
    )


class _Form(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)


class _Record(_Form):
    """What a comparison needs of an epoch."""

    genotype: str
    derived_accuracy: float
    skip_share: float
    seconds: float


class _Ranked(_Form):
    accuracy: float


class _Found(_Form):
    """What it needs of ``genotype.json``."""

    params: int
    macs: int
    ranked: list[_Ranked] | None = None


Form = TypeVar("Form", bound=_Form)


def _checked(form: type[Form], given: object, name: str, task: Task) -> Form:
    try:
        return form.model_validate(given)
    except ValidationError as error:
        raise InputError(
            f"'{task.folder / name}' is damaged ({wrong(error)}): remove the folder, to search again"
        ) from None
