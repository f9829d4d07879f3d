"""A super-net is any module with choices in it: find them, and run one sub-graph of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import nn

from msgdas.choice import Choice
from msgdas.errors import InputError
from msgdas.subgraph import Gate

__all__ = ["Places", "all_choices", "choices", "select"]

Places = Mapping[str, Sequence[Choice]]
"""The choices of a network by name."""


def all_choices(net: nn.Module) -> dict[str, list[Choice]]:
    """Every choice of ``net`` by name, searched or not.

    Raises:
        InputError: choices that share a name differ in their labels.
    """
    found: dict[str, list[Choice]] = {}
    for module in net.modules():
        if isinstance(module, Choice):
            same = found.setdefault(module.name, [])
            if same and (same[0].labels, same[0].searched) != (module.labels, module.searched):
                raise InputError(
                    f"choices named {module.name!r} differ: {same[0].labels} and {module.labels}; give them two names"
                )
            same.append(module)
    return found


def choices(net: nn.Module) -> dict[str, list[Choice]]:
    """The choices of ``net`` that a search decides, by name, in the order of ``net.modules()``."""
    return {name: same for name, same in all_choices(net).items() if same[0].searched}


@contextmanager
def select(net: nn.Module | Places, subgraph: Mapping[str, Gate]) -> Iterator[None]:
    """Run ``subgraph`` inside the ``with`` block.

    Keep forward *and* backward inside: probing and recomputation run candidates in backward. A choice without a gate
    may only lie inside an edge that does not run.

    Args:
        net: the network, or its `all_choices`, which saves looking for them in every step.

    Raises:
        InputError: the sub-graph has a gate for something that is not a choice of the network.
    """
    places = all_choices(net) if isinstance(net, nn.Module) else net
    for name in subgraph:
        if name not in places:
            raise InputError(f"sub-graph has a gate for {name!r}, which is not a choice of the network")
    before = [(choice, choice.gate) for same in places.values() for choice in same]
    for name, same in places.items():
        for choice in same:
            choice.gate = subgraph.get(name)
    try:
        yield
    finally:
        for choice, gate in before:
            choice.gate = gate
