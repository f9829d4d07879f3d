"""Derive a genotype from architecture parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from msgdas.alphas import Alphas
from msgdas.choice import MixedInput, MixedOp
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.supernet import all_choices

__all__ = ["Rule", "argmax", "derive", "top_edges"]

Rule = Callable[[nn.Module, Alphas], Mapping[str, tuple[str, ...]]]


def derive(net: nn.Module, alphas: Alphas, rule: Rule | None = None) -> Genotype:
    """Return the discrete architecture that ``alphas`` rank highest.

    Args:
        net: super-net. If it has a method ``genotype``, as networks of cells do, that turns the kept labels into the
            genotype.
        rule: `argmax`, `top_edges`, or any function ``(net, alphas) -> {choice: kept labels}``. Default: the attribute
            ``rule`` of ``net``, else `argmax`.

    Examples:
        >>> import torch
        >>> from msgdas.spaces import toy
        >>> net = toy.ToyNet(choices=2)
        >>> alphas = Alphas.of(net, init=0.0)
        >>> with torch.no_grad():
        ...     alphas["part/0"][1], alphas["part/1"][3] = 1.0, 1.0
        >>> print(derive(net, alphas))
        part/0=identity, part/1=sine
    """
    rule = rule or getattr(net, "rule", None) or argmax
    kept = {name: tuple(labels) for name, labels in rule(net, alphas).items()}
    to_genotype = getattr(net, "genotype", None)
    return to_genotype(kept) if to_genotype else Genotype(getattr(net, "space", "custom"), kept)


def argmax(net: nn.Module, alphas: Alphas) -> dict[str, tuple[str, ...]]:
    """Keep the most probable candidate of every choice, ``none`` included (NAS-Bench-201, MBConv). A searched
    `MixedInput` keeps its ``keep`` most probable edges."""
    kept = {}
    for name, (choice, *_) in all_choices(net).items():
        if choice.searched:
            number = choice.keep if isinstance(choice, MixedInput) else 1
            kept[name] = _strongest(alphas[name].tolist(), choice.labels, number)
    return kept


def top_edges(net: nn.Module, alphas: Alphas) -> dict[str, tuple[str, ...]]:
    """DARTS's rule (Liu et al. 2019, arXiv:1806.09055, section 2.4).

    Keep the most probable operation of every edge, ``none`` excluded, and at every node the ``keep`` incoming edges
    whose kept operations are most probable. The softmax includes ``none``. At a searched `MixedInput`, an edge ranks by
    its own probability times that of its operation (PC-DARTS, Xu et al. 2020, arXiv:1907.05737).

    Raises:
        InputError: an edge contains no `MixedOp`.
    """
    probabilities = {name: p.tolist() for name, p in alphas.probabilities().items()}
    kept: dict[str, tuple[str, ...]] = {}
    for name, (choice, *_) in all_choices(net).items():
        if isinstance(choice, MixedOp) and choice.searched:
            kept[name] = _strongest(_without_none(probabilities[name], choice.labels), choice.labels, 1)
        elif isinstance(choice, MixedInput):
            weights = probabilities[name] if choice.searched else [1.0] * len(choice.labels)
            strengths = [w * _edge_strength(name, e, probabilities) for w, e in zip(weights, choice.candidates)]
            kept[name] = _strongest(strengths, choice.labels, choice.keep)
    return kept


def _edge_strength(node: str, edge: nn.Module, probabilities: Mapping[str, list[float]]) -> float:
    for module in edge.modules():
        if isinstance(module, MixedOp):
            return max(_without_none(probabilities[module.name], module.labels)) if module.searched else 1.0
    raise InputError(f"rule top_edges: an edge into {node!r} has no MixedOp to rank it by; derive with argmax instead")


def _without_none(probabilities: list[float], labels: tuple[str, ...]) -> list[float]:
    return [-1.0 if label == "none" else p for p, label in zip(probabilities, labels, strict=True)]


def _strongest(strengths: list[float], labels: tuple[str, ...], number: int) -> tuple[str, ...]:
    """The ``number`` strongest labels, in candidate order."""
    ranked = sorted(range(len(labels)), key=lambda i: -strengths[i])[:number]
    return tuple(labels[i] for i in sorted(ranked))
