"""Search spaces by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.report.graph import CellGraph
from msgdas.spaces import darts, nasbench201

__all__ = ["SPACES", "Space", "find_space"]


@dataclass(frozen=True)
class Space:
    """A search space: functions from settings to networks, and its genotypes' official text.

    Attributes:
        supernet: ``(channels, cells, classes, in_channels, image_size) ->`` a network with choices.
        network: ``(genotype, channels, cells, classes, in_channels, image_size) ->`` the evaluation network.
        search_size: default ``channels`` and ``cells`` of the super-net.
        network_size: the same of the evaluation network, for an image size.
        cells: what ``cells`` counts.
        forms: what ``network`` takes as ``form``, if anything.
        auxiliary: whether ``network`` takes ``auxiliary=True``, for a network with an auxiliary head.
    """

    name: str
    about: str
    supernet: Callable[..., nn.Module]
    network: Callable[..., nn.Module]
    to_string: Callable[[Genotype], str]
    from_string: Callable[[str], Genotype]
    graphs: Callable[[Genotype], list[CellGraph]]
    search_size: Mapping[str, int]
    network_size: Callable[[int], dict[str, int]]
    cells: str
    forms: tuple[str, ...] = ()
    auxiliary: bool = False


SPACES: dict[str, Space] = {
    "nasbench201": Space(
        "nasbench201",
        "4 nodes, 6 edges of 5 operations; 15,625 cells, in a table",
        nasbench201.supernet,
        nasbench201.network,
        nasbench201.to_string,
        nasbench201.from_string,
        nasbench201.graphs,
        {"channels": 8, "cells": 1},
        lambda image_size: {"channels": 16, "cells": 5},
        "a stage",
    ),
    "darts": Space(
        "darts",
        "normal and reduction cell of 4 nodes, 2 inputs each, 8 operations",
        darts.supernet,
        darts.network,
        darts.to_string,
        darts.from_string,
        darts.graphs,
        {"channels": 16, "cells": 8},
        darts.network_size,
        "in all",
        forms=darts.FORMS,
        auxiliary=True,
    ),
}


def find_space(name: str) -> Space:
    """The space of that name.

    Raises:
        InputError: there is none.
    """
    if name not in SPACES:
        raise InputError(f"space {name!r} is not known: use {', '.join(SPACES)}")
    return SPACES[name]
