"""The derived, discrete architecture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msgdas.errors import InputError

__all__ = ["Cell", "Genotype", "choices_text", "register_text"]


@dataclass(frozen=True)
class Cell:
    """A cell of the NASNet family (Zoph et al. 2018, arXiv:1707.07012): nodes that sum operations on earlier states.

    States 0 and 1 are the outputs of the two cells before; node ``i`` of ``nodes`` is state ``2 + i``.

    Attributes:
        nodes: per node its ``(operation, input state)`` in order. An input may be used twice.
        concat: the states whose concatenation is the cell's output.
    """

    nodes: tuple[tuple[tuple[str, int], ...], ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for state, node in enumerate(self.nodes, 2):
            if not node or any(not 0 <= source < state for _, source in node):
                raise InputError(
                    f"state {state} of a cell takes {list(node)}: use inputs 0 to {state - 1}, one or more"
                )
        if not self.concat or not set(self.concat) <= set(range(2 + len(self.nodes))):
            raise InputError(f"a cell's concat {list(self.concat)}: use states 0 to {1 + len(self.nodes)}, one or more")


_TEXTS: dict[str, Callable[[Genotype], str]] = {}


def register_text(space: str, to_string: Callable[[Genotype], str]) -> None:
    """Let genotypes of ``space`` print as ``to_string`` writes them."""
    _TEXTS[space] = to_string


@dataclass(frozen=True, init=False)
class Genotype:
    """What a search found, and the space it belongs to. Hashable.

    Attributes:
        space: name of the space, ``"custom"`` for a network of your own.
        choices: ``((choice name, (kept label, …)), …)``, sorted by name.
        cells: ``((cell name, Cell), …)``, sorted by name, in a space of cells; then ``choices`` is empty.
    """

    space: str
    choices: tuple[tuple[str, tuple[str, ...]], ...]
    cells: tuple[tuple[str, Cell], ...]

    def __init__(
        self,
        space: str,
        choices: Mapping[str, str | Sequence[str]] | None = None,
        *,
        cells: Mapping[str, Cell] | None = None,
    ) -> None:
        kept = {name: (given,) if isinstance(given, str) else tuple(given) for name, given in (choices or {}).items()}
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "choices", tuple(sorted(kept.items())))
        object.__setattr__(self, "cells", tuple(sorted((cells or {}).items(), key=lambda pair: pair[0])))

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return dict(self.choices)[name]

    def cell(self, name: str) -> Cell:
        """The cell of that name.

        Raises:
            InputError: there is none.
        """
        found = dict(self.cells).get(name)
        if found is None:
            raise InputError(f"genotype of space {self.space!r} has no {name!r} cell")
        return found

    def decisions(self) -> dict[str, tuple[str, ...]]:
        """Which labels each choice of a super-net keeps; for a cell ``c``, those of its nodes ``c/2``, … and of the
        edges ``c/0-2``, … that they keep.

        Raises:
            InputError: a node uses an input twice, which no super-net of choices has.
        """
        kept = dict(self.choices)
        for name, cell in self.cells:
            for state, node in enumerate(cell.nodes, 2):
                sources = tuple(str(source) for _, source in node)
                if len(set(sources)) < len(sources):
                    raise InputError(f"state {state} of cell {name!r} uses an input twice: no super-net contains it")
                kept[f"{name}/{state}"] = sources
                kept |= {f"{name}/{source}-{state}": (operation,) for operation, source in node}
        return kept

    def share(self, label: str) -> float:
        """The fraction of the choices, or of the cells' edges, that keep ``label`` (``"skip_connect"``: the skip
        share)."""
        edges = [(operation,) for _, cell in self.cells for node in cell.nodes for operation, _ in node]
        kept = [labels for _, labels in self.choices] + edges
        return sum(label in labels for labels in kept) / max(1, len(kept))

    def __str__(self) -> str:
        """The text that its space has registered (`register_text`); without one, ``choice=kept, …``."""
        if self.space in _TEXTS:
            return _TEXTS[self.space](self)
        return choices_text(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        if self.cells:
            return {"space": self.space, "cells": {name: asdict(cell) for name, cell in self.cells}}
        return {"space": self.space, "choices": {name: list(kept) for name, kept in self.choices}}

    @classmethod
    def from_dict(cls, given: object) -> Genotype:
        """The reverse of `to_dict`.

        Raises:
            InputError: not of that form.
        """
        if not isinstance(given, dict) or not isinstance(given.get("space"), str):
            raise InputError('not a genotype: expected an object with "space" and "choices" or "cells"')
        if "cells" in given:
            return cls(given["space"], cells=_cells(given["cells"]))
        choices = given.get("choices")
        if not isinstance(choices, dict) or not all(
            isinstance(kept, list) and kept and all(isinstance(label, str) for label in kept)
            for kept in choices.values()
        ):
            raise InputError('not a genotype: "choices" must map each choice to a non-empty list of labels')
        return cls(given["space"], choices)

    @classmethod
    def read(cls, path: str | Path) -> Genotype:
        """From a JSON file.

        Raises:
            InputError: missing, damaged, or not a genotype; the line names the file.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise InputError(f"genotype {str(path)!r} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:  # InputError is a ValueError
            raise InputError(f"genotype {str(path)!r} is damaged: {error}") from None


def choices_text(genotype: Genotype) -> str:
    """``choice=kept, choice=kept+kept``."""
    return ", ".join(f"{name}={'+'.join(kept)}" for name, kept in genotype.choices)


def _cells(given: object) -> dict[str, Cell]:
    try:
        assert isinstance(given, dict)
        return {
            name: Cell(
                tuple(tuple((str(operation), _index(source)) for operation, source in node) for node in cell["nodes"]),
                tuple(_index(state) for state in cell["concat"]),
            )
            for name, cell in given.items()
        }
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        reason = f" ({error})" if isinstance(error, InputError) else ""
        raise InputError(
            f'not a genotype: "cells" must map each cell to "nodes" (lists of [operation, input]) and "concat"{reason}'
        ) from None


def _index(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value
