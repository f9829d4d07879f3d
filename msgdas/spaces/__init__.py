"""The search spaces, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

from torch import nn

from msgdas.errors import InputError, shown
from msgdas.genotype import Genotype, choices_text, register_text
from msgdas.spaces import darts, mbconv, mbconv_macro, nasbench201, robust_darts
from msgdas.spaces.cell_graph import CellGraph
from msgdas.spaces.plain import from_string, network_of, supernet_of

__all__ = ["SPACES", "Space", "find_space"]


@dataclass(frozen=True)
class Space:
    """A search space: functions that build its networks, and the text form of its genotypes.

    Attributes:
        name: name on the command line.
        about: one line for the list of spaces.
        supernet: ``(channels, cells, classes, in_channels, image_size)`` → super-net.
        network: ``(genotype, channels, cells, classes, in_channels, image_size)`` → evaluation network.
        to_string: genotype → official text.
        from_string: official text → genotype.
        graphs: genotype → graphs to draw; empty if there is nothing to draw.
        search_size: default ``channels`` and ``cells`` of the super-net.
        network_size: ``(image_size, genotype)`` → default ``channels`` and ``cells`` of the evaluation network. The
            genotype may be None.
        cells: what ``cells`` counts: ``"per stage"`` or ``"in total"``.
        forms: values that ``network`` accepts as ``form``.
        auxiliary: whether ``network`` accepts ``auxiliary=True``, for an auxiliary head.

    Examples:
        >>> space = find_space("nasbench201")
        >>> net = space.supernet(channels=4, cells=1, classes=10, in_channels=3, image_size=32)
        >>> text = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
        >>> network = space.network(space.from_string(text), channels=16, cells=5)
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


def _of_module(name: str, about: str, module: ModuleType, **rest: Any) -> Space:
    """A space made of the functions of ``module``; ``rest`` overrides them."""
    names = ("supernet", "network", "to_string", "from_string", "graphs", "network_size")
    functions = {function: getattr(module, function) for function in names if function not in rest}
    return Space(name, about, **(functions | rest))


def _of_supernet(
    name: str, about: str, supernet: Callable[..., nn.Module], search_size: Mapping[str, int], cells: str
) -> Space:
    """A space whose networks are its super-nets with the choices decided. Its genotypes have no form of their own.

    The names of its choices must not depend on the sizes: the found network may have others.
    """
    supernet = supernet_of(name, supernet)
    return Space(
        name,
        about,
        supernet,
        network=network_of(supernet),
        to_string=choices_text,
        from_string=partial(from_string, name),
        graphs=lambda genotype: [],
        search_size=search_size,
        network_size=lambda image_size, genotype=None: dict(search_size),
        cells=cells,
    )


def _of_darts(name: str, about: str) -> Space:
    """A space of DARTS cells with other operations."""
    return replace(
        _DARTS,
        name=name,
        about=about,
        supernet=partial(darts.supernet, space=name, candidates=robust_darts.CANDIDATES[name]),
        to_string=robust_darts.to_string,
        from_string=partial(robust_darts.from_string, name),
    )


_DARTS = _of_module(
    "darts",
    "normal and reduction cell: 4 nodes, 2 inputs each, 8 operations",
    darts,
    search_size={"channels": 16, "cells": 8},
    cells="in total",
    forms=darts.FORMS,
    auxiliary=True,
)
SPACES: dict[str, Space] = {
    space.name: space
    for space in (
        _of_module(
            "nasbench201",
            "4 nodes, 6 edges, 5 operations; 15,625 cells, tabulated",
            nasbench201,
            search_size={"channels": 8, "cells": 1},
            network_size=lambda image_size, genotype=None: {"channels": 16, "cells": 5},
            cells="per stage",
        ),
        _DARTS,
        _of_darts("s1", "darts cells, a different pair of operations on each edge"),
        _of_darts("s2", "darts cells of skip_connect and sep_conv_3x3"),
        _of_darts("s3", "darts cells of none, skip_connect and sep_conv_3x3"),
        _of_darts("s4", "darts cells of noise and sep_conv_3x3"),
        _of_module(
            "mbconv",
            "6 stages of layers; kernel size and expansion of each, or no layer",
            mbconv,
            search_size={"channels": 16, "cells": 4},
            cells="per stage",
        ),
        _of_module(
            "mbconv-macro",
            "8 layers, 3 operations; 6,561 networks, tabulated",
            mbconv_macro,
            search_size={"channels": 16, "cells": mbconv_macro.LAYERS},
            network_size=lambda image_size, genotype=None: {"channels": 32, "cells": mbconv_macro.LAYERS},
            cells="in total",
        ),
    )
}

for _space in SPACES.values():
    register_text(_space.name, _space.to_string)


def find_space(name: str) -> Space:
    """The space called ``name``.

    Raises:
        InputError: there is no such space.
    """
    if name not in SPACES:
        raise InputError(f"space {shown(name)} is not known: use {', '.join(SPACES)}")
    return SPACES[name]
