"""From architecture parameters to a genotype."""

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
    """The discrete architecture that ``alphas`` stand for.

    Args:
        rule: `argmax`, `top_edges`, or any function ``(net, alphas) -> {choice: kept labels}``;
            default: the network's own ``rule`` attribute, else `argmax`. A network of cells turns the kept labels into
            a genotype of cells by its method ``genotype``.
    """
    rule = rule or getattr(net, "rule", None) or argmax
    kept = {name: tuple(labels) for name, labels in rule(net, alphas).items()}
    to_genotype = getattr(net, "genotype", None)
    return to_genotype(kept) if to_genotype else Genotype(getattr(net, "space", "custom"), kept)


def argmax(net: nn.Module, alphas: Alphas) -> dict[str, tuple[str, ...]]:
    """The most likely candidate of every choice (NAS-Bench-201, MBConv), ``none`` included; a searched `MixedInput` its
    ``keep`` most likely edges."""
    kept = {}
    for name, (choice, *_) in all_choices(net).items():
        if choice.searched:
            number = choice.keep if isinstance(choice, MixedInput) else 1
            kept[name] = _strongest(alphas[name].tolist(), choice.labels, number)
    return kept


def top_edges(net: nn.Module, alphas: Alphas) -> dict[str, tuple[str, ...]]:
    """DARTS's rule (Liu et al. 2019, arXiv:1806.09055, section 2.4): on every edge the strongest operation but
    ``none``;
    into every node the ``keep`` edges whose strongest operation is most probable, in a softmax that includes ``none``.
    A searched `MixedInput` weighs them: probability of the edge times that of its operation (PC-DARTS, Xu et al. 2020,
    arXiv:1907.05737)."""
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
    """The ``number`` strongest labels, in the order of the candidates."""
    ranked = sorted(range(len(labels)), key=lambda i: -strengths[i])[:number]
    return tuple(labels[i] for i in sorted(ranked))
