"""The derived, discrete architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msgdas.errors import InputError, shown
from msgdas.runs import read_json

__all__ = ["Cell", "Genotype", "choices_text", "register_text"]

LARGEST_CELL = 100  # nodes, and inputs of a node; published ones have up to 5 and 2


@dataclass(frozen=True)
class Cell:
    """A cell of the NASNet family (Zoph et al. 2018, arXiv:1707.07012). Its nodes sum operations on earlier states.

    States 0 and 1 are the outputs of the two preceding cells; node ``i`` of ``nodes`` is state ``2 + i``.

    Attributes:
        nodes: ``((operation, input state), …)`` per node, in order. An input may occur twice.
        concat: states that are concatenated into the cell's output.

    Raises:
        InputError: a node takes a state that is not earlier, or none; ``concat`` is empty, or names an unknown state or
            one twice; or the cell has more than 100 nodes, or a node more than 100 inputs.
    """

    nodes: tuple[tuple[tuple[str, int], ...], ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        if max(map(len, (self.nodes, *self.nodes))) > LARGEST_CELL:
            raise InputError(f"a cell has more than {LARGEST_CELL} nodes, or a node more inputs: no network needs them")
        for state, node in enumerate(self.nodes, 2):
            if not node or any(not 0 <= source < state for _, source in node):
                raise InputError(
                    f"state {state} of a cell takes {shown(list(node))}: use one or more inputs from 0 to {state - 1}"
                )
        known = set(range(2 + len(self.nodes)))
        if not self.concat or not set(self.concat) <= known or len(set(self.concat)) < len(self.concat):
            raise InputError(
                f"a cell's concat {shown(list(self.concat))}: use one or more states from 0 to {len(known) - 1}, "
                "each once"
            )


_TEXTS: dict[str, Callable[[Genotype], str]] = {}


def register_text(space: str, to_string: Callable[[Genotype], str]) -> None:
    """Print genotypes of ``space`` with ``to_string``."""
    _TEXTS[space] = to_string


@dataclass(frozen=True, init=False)
class Genotype:
    """The architecture that a search found, and its space. Hashable.

    Attributes:
        space: name of the space; ``"custom"`` for your own network.
        choices: ``((choice name, (kept label, …)), …)``, sorted by name.
        cells: ``((cell name, Cell), …)``, sorted by name. Only in spaces of cells, where ``choices`` is empty.

    Examples:
        >>> genotype = Genotype("custom", {"first": "conv", "second": "skip"})
        >>> print(genotype)
        first=conv, second=skip
        >>> genotype["first"]
        ('conv',)
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
        """The cell called ``name``.

        Raises:
            InputError: there is no such cell.
        """
        found = dict(self.cells).get(name)
        if found is None:
            raise InputError(f"genotype of space {shown(self.space)} has no {name!r} cell")
        return found

    def decisions(self) -> dict[str, tuple[str, ...]]:
        """Choice name → kept labels. A cell ``c`` decides its nodes ``c/2``, … and the kept edges ``c/0-2``, ….

        Raises:
            InputError: a node uses an input twice, which no super-net can represent.
        """
        kept = dict(self.choices)
        for name, cell in self.cells:
            for state, node in enumerate(cell.nodes, 2):
                sources = tuple(str(source) for _, source in node)
                if len(set(sources)) < len(sources):
                    raise InputError(
                        f"state {state} of cell {name!r} uses an input twice: no super-net can represent it"
                    )
                kept[f"{name}/{state}"] = sources
                kept |= {f"{name}/{source}-{state}": (operation,) for operation, source in node}
        return kept

    def share(self, label: str) -> float:
        """Fraction of the choices, or of the cells' edges, that keep ``label`` (``"skip_connect"``: the skip share)."""
        edges = [(operation,) for _, cell in self.cells for node in cell.nodes for operation, _ in node]
        kept = [labels for _, labels in self.choices] + edges
        return sum(label in labels for labels in kept) / max(1, len(kept))

    def __str__(self) -> str:
        """The text form of its space (`register_text`), else ``choice=kept, …``."""
        if self.space in _TEXTS:
            return _TEXTS[self.space](self)
        return choices_text(self)

    def to_dict(self) -> dict[str, Any]:
        """The genotype as JSON values."""
        if self.cells:
            return {"space": self.space, "cells": {name: asdict(cell) for name, cell in self.cells}}
        return {"space": self.space, "choices": {name: list(kept) for name, kept in self.choices}}

    @classmethod
    def from_dict(cls, given: object) -> Genotype:
        """The inverse of `to_dict`.

        Raises:
            InputError: ``given`` does not have that form.
        """
        if not isinstance(given, dict) or not isinstance(given.get("space"), str):
            raise InputError('not a genotype: expected an object with "space" and "choices" or "cells"')
        if "cells" in given:
            return cls(given["space"], cells=_cells(given["cells"]))
        choices = given.get("choices")
        if not isinstance(choices, dict) or not all(
            isinstance(name, str) and isinstance(kept, list) and kept and all(isinstance(label, str) for label in kept)
            for name, kept in choices.items()
        ):
            raise InputError('not a genotype: "choices" must map each choice to a non-empty list of labels')
        return cls(given["space"], choices)

    @classmethod
    def read(cls, path: str | Path) -> Genotype:
        """Read a genotype from a JSON file.

        Raises:
            InputError: the file is missing, damaged, or not a genotype. The message names the file.
        """
        try:
            return cls.from_dict(read_json(Path(path)))
        except OSError as error:
            raise InputError(f"genotype {str(path)!r} cannot be read: {error.strerror}") from None
        except ValueError as error:  # InputError is one
            raise InputError(f"genotype {str(path)!r} is damaged: {error}") from None


def choices_text(genotype: Genotype) -> str:
    """``choice=kept, choice=kept+kept``."""
    return ", ".join(f"{name}={'+'.join(kept)}" for name, kept in genotype.choices)


def _cells(given: object) -> dict[str, Cell]:
    form = 'not a genotype: "cells" must map each cell to "nodes" (lists of [operation, input]) and "concat"'
    if not isinstance(given, dict):
        raise InputError(form)
    try:
        return {_is(name, str): _cell(cell) for name, cell in given.items()}
    except InputError as error:
        raise InputError(f"{form} ({error})") from None
    except (LookupError, TypeError, ValueError):
        raise InputError(form) from None


def _cell(given: dict[str, Any]) -> Cell:
    """Raises LookupError, TypeError, ValueError: it does not have the form of a cell."""
    nodes = [[_is(edge, list, tuple) for edge in _is(node, list, tuple)] for node in _is(given["nodes"], list, tuple)]
    return Cell(
        tuple(tuple((_is(operation, str), _is(source, int)) for operation, source in node) for node in nodes),
        tuple(_is(state, int) for state in _is(given["concat"], list, tuple)),
    )


def _is(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise TypeError(f"{type(value).__name__} instead of {types[0].__name__}")
    return value
