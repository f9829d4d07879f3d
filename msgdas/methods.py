"""Every method as a combination of parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from torch import nn

from msgdas.errors import InputError
from msgdas.samplers import BinaryGates, Dirichlet, GumbelSoftmax, GumbelTopK, SinglePath, Softmax, Topology
from msgdas.search.comparing import Exchange, compare, ranked, refuse_one
from msgdas.search.early_stop import CurvatureStop, EarlyStop
from msgdas.search.gradients import Hypergradient, added, first_order, probed
from msgdas.search.guidance import SuperNetGuidance
from msgdas.search.optimizers import default_alpha_optimizer, default_weight_optimizer
from msgdas.search.penalties import DirichletKL, keep_unsampled
from msgdas.search.schedules import Schedule, linear
from msgdas.search.search import Penalty, Search
from msgdas.search.unrolled import Unrolled
from msgdas.supernet import choices

__all__ = [
    "GRADIENTS",
    "METHODS",
    "SUPERNETS",
    "darts",
    "darts_2nd",
    "drnas",
    "gdas",
    "msgdas",
    "pc_darts",
    "proxylessnas",
    "r_darts",
    "random",
    "rome",
    "snas",
]

GRADIENTS: dict[str, Hypergradient] = {
    "picked": first_order,
    "added": added,
    "probed": probed,
    "compare": compare,
    "ranked": ranked,
    "exchange": Exchange(),
}


def msgdas(
    net: nn.Module,
    *,
    k: int | None = None,
    gradient: Literal["exchange", "ranked", "compare", "probed", "picked", "added"] | None = None,
    assignment: Literal["rank", "shuffle"] = "shuffle",
    weight_assignment: Literal["rank", "shuffle"] | None = None,
    normalise: Literal["remaining", "picks", "all"] = "remaining",
    reuse: bool = False,
    warmup: float = 0.6,
    drop: float | Schedule = linear(0.5, 0.0),
    drop_in_alpha_steps: bool = True,
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
        k: number of sub-graphs K: the dial between cost and search quality; default: 3, or as many as the smallest
            choice has candidates.
        gradient: of the alphas; default ``"compare"``, with K = 1 ``"probed"``. ``"ranked"`` goes with the assignment
            ``"rank"``.
        assignment, normalise, reuse: see `GumbelTopK`.
        weight_assignment: of the weight steps; default: the same.
        warmup: fraction of the steps that train weights only, with uniform exclusive sub-graphs.
        drop: p of DropBlock-Identity in weight steps.
        drop_in_alpha_steps: and in alpha steps. A super-net that has learned little likes skip connections best, since
            they need not learn; on by default since without it they won where we measured.
        guidance: weight λ of the super-net's distillation loss after warm-up; 0: none. The paper has it; off by default
            since in our short searches a teacher that knows less than its pupils made the result worse.
        temperature: of the distillation.
        guide_alpha_steps: also guide the losses of the alpha steps.
        tau: temperature of the straight-through gates, which the comparing gradients do not look at.
        alpha_lr: learning rate of the alphas, for a short search; 3e-4 … 3e-3 for 50 epochs and more.
        settings: everything else that `Search` takes.
    """
    teacher = SuperNetGuidance(guidance, temperature, alpha_step=guide_alpha_steps) if guidance != 0 else None
    if k is None:
        k = min(3, *(len(same[0].labels) for same in choices(net).values()))
    gradient = gradient or ("compare" if k > 1 else "probed")
    if gradient in ("compare", "ranked", "exchange"):
        refuse_one(k, gradient)
    sampler = GumbelTopK(k, assignment, normalise, reuse)
    parts: dict[str, Any] = {
        "weight_sampler": GumbelTopK(k, weight_assignment or assignment, normalise, reuse),
        "hypergradient": _gradient(gradient),
        "guidance": teacher,
        "warmup": warmup,
        "drop": drop,
        "drop_in_alpha_steps": drop_in_alpha_steps,
        "tau": tau,
    }
    return Search(net, sampler, alpha_lr=alpha_lr, **(parts | settings))


def gdas(
    net: nn.Module,
    *,
    gradient: Literal["picked", "added", "probed"] = "picked",
    tau: float | Schedule = linear(10.0, 0.1),
    **settings: Any,
) -> Search:
    """One Gumbel-softmax path, gradient through the picked gate.

    GDAS (Dong & Yang 2019, arXiv:1910.04465, eq. 6 and 7).

    Args:
        gradient: of the gates: that of the ``"picked"`` candidate alone; or, as in GDAS's public code, with the zero
            weights of the others ``"added"`` to the output; or ``"probed"``.
        tau: temperature of the gates.
        settings: everything else that `Search` takes.
    """
    return Search(net, GumbelTopK(k=1), **({"hypergradient": _gradient(gradient), "tau": tau} | settings))


def darts(net: nn.Module, **settings: Any) -> Search:
    """Every candidate runs, weighted by softmax(a); first order.

    DARTS (Liu et al. 2019, arXiv:1806.09055), ξ = 0.
    """
    return Search(net, Softmax(), **({"hypergradient": first_order} | settings))


def darts_2nd(net: nn.Module, *, momentum: bool = True, weight_decay: bool = True, **settings: Any) -> Search:
    """DARTS of second order: alphas see the next step of the weights.

    DARTS (Liu et al. 2019, arXiv:1806.09055, eq. 6 to 8), ξ the weights' learning rate.

    Args:
        momentum, weight_decay: whether the virtual step has them.
        settings: everything else that `Search` takes.
    """
    return Search(net, Softmax(), **({"hypergradient": Unrolled(momentum, weight_decay)} | settings))


def proxylessnas(net: nn.Module, **settings: Any) -> Search:
    """Binary gates over two paths for alphas, single paths for weights.

    ProxylessNAS (Cai et al. 2019, arXiv:1812.00332), by gradients. The paper's penalty on the expected cost is
    ``penalties=[ExpectedCost(costs)]``.
    """
    parts: dict[str, Any] = {
        "weight_sampler": SinglePath(),
        "hypergradient": first_order,
        # momentum would move what was not sampled
        "alpha_optimizer": partial(default_alpha_optimizer, betas=(0.0, 0.999)),
        "after_alpha_step": keep_unsampled,
    }
    return Search(net, BinaryGates(), **(parts | settings))


def snas(net: nn.Module, *, tau: float | Schedule = linear(5.0, 0.1), **settings: Any) -> Search:
    """Every candidate runs, weighted by Gumbel-softmax; one level.

    SNAS (Xie et al. 2019, arXiv:1812.09926): alphas and weights learn from the same batch, by one pass. Its resource
    constraint is ``penalties=[ExpectedCost(costs)]``.

    Args:
        tau: temperature of the relaxation.
        settings: everything else that `Search` takes.
    """
    return Search(net, GumbelSoftmax(), **({"hypergradient": None, "joint": True, "tau": tau} | settings))


def pc_darts(net: nn.Module, **settings: Any) -> Search:
    """DARTS on a part of the channels, with weighted incoming edges.

    PC-DARTS (Xu et al. 2020, arXiv:1907.05737): all of it is in the super-net, which is built with ``partial=4`` and,
    where nodes choose their inputs, ``searched_edges=True``.
    """
    return darts(net, **settings)


def r_darts(
    net: nn.Module,
    *,
    weight_decay: float = 27e-4,
    early_stop: EarlyStop | None = CurvatureStop(),
    **settings: Any,
) -> Search:
    """DARTS with strong weight decay that stops when it gets sharp.

    R-DARTS (L2) and DARTS-ES (Zela et al. 2020, arXiv:1909.09656).

    Args:
        weight_decay: of the weights; the paper searches with 3, 9, 27 and 81 times 1e-4.
        early_stop: rule that ends the search; None: it goes on to its end.
        settings: everything else that `Search` takes.
    """
    optimizer = partial(default_weight_optimizer, weight_decay=weight_decay)
    return darts(net, **({"weight_optimizer": optimizer, "early_stop": early_stop} | settings))


def drnas(net: nn.Module, *, kl_weight: float = 1e-3, penalties: Sequence[Penalty] = (), **settings: Any) -> Search:
    """Every candidate runs, its weight drawn from a learned Dirichlet.

    DrNAS (Chen et al. 2021, arXiv:2006.10355), without its progressive pruning.

    Args:
        kl_weight: of the divergence from the uniform Dirichlet.
        penalties: besides that.
        settings: everything else that `Search` takes.
    """
    parts: dict[str, Any] = {"hypergradient": first_order, "penalties": [DirichletKL(kl_weight), *penalties]}
    return Search(net, Dirichlet(), **(parts | settings))


def rome(net: nn.Module, *, k: int = 7, tau: float | Schedule = linear(10.0, 0.1), **settings: Any) -> Search:
    """K independent paths that draw their topology too.

    ROME (Wang et al. 2020, arXiv:2011.11233): two incoming edges a node by Gumbel-Top2, where the super-net is built
    with ``searched_edges=True``.

    Args:
        k: sub-graphs of a step, whose gradients are averaged.
        tau: temperature of the gates.
        settings: everything else that `Search` takes.
    """
    return Search(net, Topology(k), **({"hypergradient": first_order, "tau": tau} | settings))


def random(net: nn.Module, **settings: Any) -> Search:
    """A random architecture; uniform single paths train the weights."""
    return Search(net, SinglePath(uniform=True), **({"hypergradient": None} | settings))


def _gradient(name: str) -> Hypergradient:
    if name not in GRADIENTS:
        raise InputError(f"gradient {name!r}: use {', '.join(GRADIENTS)}")
    return GRADIENTS[name]


METHODS: dict[str, Callable[..., Search]] = {
    "msgdas": msgdas,
    "gdas": gdas,
    "proxylessnas": proxylessnas,
    "darts": darts,
    "darts-2nd": darts_2nd,
    "r-darts": r_darts,
    "pc-darts": pc_darts,
    "drnas": drnas,
    "snas": snas,
    "rome": rome,
    "random": random,
}

SUPERNETS: dict[str, dict[str, Any]] = {
    "pc-darts": {"partial": 4, "searched_edges": True},
    "rome": {"searched_edges": True},
}
"""What a method asks of the super-net, where its space can do it."""
