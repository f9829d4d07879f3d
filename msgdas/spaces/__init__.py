"""Search spaces by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn

from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.report.graph import CellGraph
from msgdas.spaces import darts, mbconv, mbconv_macro, nasbench201, robust_darts

__all__ = ["SPACES", "Space", "find_space"]


@dataclass(frozen=True)
class Space:
    """A search space: functions from settings to networks, and its genotypes' official text.

    Attributes:
        supernet: ``(channels, cells, classes, in_channels, image_size) ->`` a network with choices.
        network: ``(genotype, channels, cells, classes, in_channels, image_size) ->`` the evaluation network.
        search_size: default ``channels`` and ``cells`` of the super-net.
        network_size: ``(image_size, genotype) ->`` the same of the evaluation network; without a genotype, of most.
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
    network_size: Callable[..., dict[str, int]]
    cells: str
    forms: tuple[str, ...] = ()
    auxiliary: bool = False


def _of_darts(name: str, about: str) -> Space:
    """A space of DARTS's cells with other operations."""
    return Space(
        name,
        about,
        partial(darts.supernet, space=name, candidates=robust_darts.CANDIDATES[name]),
        darts.network,
        robust_darts.to_string,
        partial(robust_darts.from_string, name),
        darts.graphs,
        {"channels": 16, "cells": 8},
        darts.network_size,
        "in all",
        forms=darts.FORMS,
        auxiliary=True,
    )


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
        lambda image_size, genotype=None: {"channels": 16, "cells": 5},
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
    "s1": _of_darts("s1", "darts cells, two operations of its own on each edge"),
    "s2": _of_darts("s2", "darts cells of skip_connect and sep_conv_3x3"),
    "s3": _of_darts("s3", "darts cells of none, skip_connect and sep_conv_3x3"),
    "s4": _of_darts("s4", "darts cells of noise and sep_conv_3x3"),
    "mbconv": Space(
        "mbconv",
        "6 stages of layers: kernel and expansion of each, or no layer",
        mbconv.supernet,
        mbconv.network,
        mbconv.to_string,
        mbconv.from_string,
        mbconv.graphs,
        {"channels": 16, "cells": 4},
        mbconv.network_size,
        "a stage",
    ),
    "mbconv-macro": Space(
        "mbconv-macro",
        "8 layers of 3 operations; 6,561 networks, in a table",
        mbconv_macro.supernet,
        mbconv_macro.network,
        mbconv_macro.to_string,
        mbconv_macro.from_string,
        mbconv_macro.graphs,
        {"channels": 16, "cells": mbconv_macro.LAYERS},
        lambda image_size, genotype=None: {"channels": 32, "cells": mbconv_macro.LAYERS},
        "in all",
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
