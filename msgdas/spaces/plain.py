"""All that a space needs besides its super-net, made from the super-net: for spaces without a form of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

from msgdas.discretize import discretize
from msgdas.errors import InputError, shown
from msgdas.genotype import Genotype

__all__ = ["from_string", "network_of", "supernet_of"]


def supernet_of(space: str, supernet: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """``supernet`` whose networks say which space they belong to, so that their genotypes do."""

    @wraps(supernet)
    def build(**sizes: Any) -> nn.Module:
        net = supernet(**sizes)
        net.space = space  # type: ignore[assignment]
        return net

    return build


def network_of(supernet: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """``(genotype, **sizes) ->`` the super-net of those sizes with every choice decided and fresh weights."""

    def network(genotype: Genotype, **sizes: int) -> nn.Module:
        return discretize(supernet(**sizes), genotype)

    return network


def from_string(space: str, text: str) -> Genotype:
    """Reads ``choice=kept, choice=kept+kept``.

    Raises:
        InputError: not of that form.
    """
    pairs = [pair.strip().partition("=") for pair in text.split(",")]
    if not all(name and kept for name, _, kept in pairs):
        raise InputError(f"{shown(text)} is not a genotype of space {space!r}: expected 'choice=kept, choice=kept, …'")
    return Genotype(space, {name: kept.split("+") for name, _, kept in pairs})
