"""Every method as a combination of parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from msgdas.errors import InputError
from msgdas.samplers import GumbelTopK, SinglePath, Softmax
from msgdas.search.gradients import Hypergradient, compare, first_order, probed
from msgdas.search.guidance import SuperNetGuidance
from msgdas.search.schedules import Schedule, linear
from msgdas.search.search import Search

__all__ = ["GRADIENTS", "METHODS", "darts", "gdas", "msgdas", "random"]

GRADIENTS: dict[str, Hypergradient] = {"picked": first_order, "probed": probed, "compare": compare}


def msgdas(
    net: nn.Module,
    *,
    k: int = 3,
    gradient: Literal["compare", "probed", "picked"] | None = None,
    assignment: Literal["rank", "shuffle"] = "shuffle",
    normalise: Literal["remaining", "picks", "all"] = "remaining",
    reuse: bool = False,
    warmup: float = 0.6,
    drop: float | Schedule = linear(0.5, 0.0),
    guidance: float | Schedule = 0.0,
    temperature: float = 1.0,
    guide_alpha_steps: bool = False,
    tau: float | Schedule = linear(10.0, 0.1),
    alpha_lr: float | Schedule = 0.03,
    **settings: Any,
) -> Search:
    """K exclusive sub-graphs, DropBlock-Identity, super-net guidance.

    MSG-DAS (Tan et al. 2021, arXiv:2107.04324).

    The paper fixes the parts; what it leaves open are arguments. docs/msgdas.md says where their defaults come from.

    Args:
        k: number of sub-graphs K: the dial between cost and search quality.
        gradient: of the alphas; default ``"compare"``, with K = 1 ``"probed"``.
        assignment, normalise, reuse: see `GumbelTopK`.
        warmup: fraction of the steps that train weights only, with uniform exclusive sub-graphs.
        drop: p of DropBlock-Identity in weight steps.
        guidance: weight λ of the super-net's distillation loss after warm-up; 0: none. The paper has it; off by default
            since in our short searches a teacher that knows less than its pupils made the result worse.
        temperature: of the distillation.
        guide_alpha_steps: also guide the losses of the alpha steps.
        tau: temperature of the straight-through gates (without effect on ``"compare"``).
        alpha_lr: learning rate of the alphas, for a short search; 3e-4 … 3e-3 for 50 epochs and more.
        settings: everything else that `Search` takes.
    """
    teacher = SuperNetGuidance(guidance, temperature, alpha_step=guide_alpha_steps) if guidance != 0 else None
    gradient = gradient or ("compare" if k > 1 else "probed")
    if gradient not in GRADIENTS:
        raise InputError(f"gradient {gradient!r}: use {', '.join(GRADIENTS)}")
    if gradient == "compare" and k < 2:
        raise InputError("gradient 'compare' needs two or more sub-graphs to compare: use k=2 or more, or 'probed'")
    sampler = GumbelTopK(k, assignment, normalise, reuse)
    parts = {"hypergradient": GRADIENTS[gradient], "guidance": teacher, "warmup": warmup, "drop": drop, "tau": tau}
    return Search(net, sampler, alpha_lr=alpha_lr, **(parts | settings))


def gdas(net: nn.Module, *, tau: float | Schedule = linear(10.0, 0.1), **settings: Any) -> Search:
    """One Gumbel-softmax path, gradient through the picked gate.

    GDAS (Dong & Yang 2019, arXiv:1910.04465).
    """
    return Search(net, GumbelTopK(k=1), **({"hypergradient": first_order, "tau": tau} | settings))


def darts(net: nn.Module, **settings: Any) -> Search:
    """Every candidate runs, weighted by softmax(a); first order.

    DARTS (Liu et al. 2019, arXiv:1806.09055), ξ = 0.
    """
    return Search(net, Softmax(), **({"hypergradient": first_order} | settings))


def random(net: nn.Module, **settings: Any) -> Search:
    """A random architecture; uniform single paths train the weights."""
    return Search(net, SinglePath(uniform=True), **({"hypergradient": None} | settings))


METHODS: dict[str, Callable[..., Search]] = {"msgdas": msgdas, "gdas": gdas, "darts": darts, "random": random}
