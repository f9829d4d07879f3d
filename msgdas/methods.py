"""Every published method as a short function that returns a `Method`.

An argument is what no single field of `Method` says. Everything else is changed with `dataclasses.replace`:

    >>> from dataclasses import replace
    >>> import msgdas
    >>> method = replace(msgdas.methods.msgdas(k=3), warmup=0.2, tau=1.0)
    >>> search = msgdas.Search(net, method, seed=0)

Some methods need a super-net built for them: ``space.supernet(**method.supernet)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from msgdas.errors import InputError
from msgdas.samplers import BinaryGates, Dirichlet, GumbelSoftmax, GumbelTopK, SinglePath, Softmax, Topology
from msgdas.search.comparing import Exchange, compare, ranked, refuse_one
from msgdas.search.early_stop import CurvatureStop, EarlyStop
from msgdas.search.gradients import Hypergradient, added, first_order, probed
from msgdas.search.guidance import SuperNetGuidance
from msgdas.search.method import Method
from msgdas.search.optimizers import SGD, Adam
from msgdas.search.penalties import DirichletKL, keep_unsampled
from msgdas.search.schedules import Schedule, linear
from msgdas.search.supernet_training import SuperNetTraining
from msgdas.search.unrolled import Unrolled

__all__ = [
    "GRADIENTS",
    "METHODS",
    "PRESETS",
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
"""Hypergradients by name: through the gates (`msgdas.search.gradients`), or from losses (`msgdas.search.comparing`)."""


PRESETS: dict[str, Mapping[str, Any]] = {
    "default": {
        "gradient": None,
        "assignment": "shuffle",
        "guidance": 0.0,
        "supernet_weight": 0.0,
        "warmup": 0.6,
        "alpha_lr": 0.03,
    },
    "paper": {
        "gradient": "picked",
        "assignment": "rank",
        "guidance": 1.0,
        "supernet_weight": 1.0,
        "warmup": 0.0,
        "alpha_lr": 0.01,
    },
}
"""The presets of `msgdas`: where they differ."""


def msgdas(
    *,
    preset: Literal["default", "paper"] = "default",
    k: int | None = None,
    gradient: Literal["exchange", "ranked", "compare", "probed", "picked", "added"] | None = None,
    assignment: Literal["rank", "shuffle"] | None = None,
    weight_assignment: Literal["rank", "shuffle"] | None = None,
    normalise: Literal["remaining", "picks", "all"] = "remaining",
    reuse: bool = False,
    guidance: float | Schedule | None = None,
    temperature: float = 1.0,
    guide_alpha_steps: bool = False,
    supernet_weight: float | Schedule | None = None,
    supernet_drop: bool = False,
    supernet_recompute: Literal["none", "choice", "cell"] = "choice",
) -> Method:
    """K exclusive sub-graphs, DropBlock-Identity, super-net guidance.

    MSG-DAS (Tan et al. 2021, arXiv:2107.04324). The paper leaves some settings open; docs/how-it-works.md explains
    the choices. An argument that is None is the preset's.

    The preset ``"default"`` adds to the paper what made our searches better, and leaves out what did not: the gradient
    ``"compare"``, the assignment ``"shuffle"``, a warm-up over 60 % of the steps, no guidance, ``alpha_lr`` 0.03 for a
    short search (use 3e-4 to 3e-3 for 50 epochs and more).

    The preset ``"paper"`` has the parts of the paper's abstract and nothing of ours besides: differentiable
    Gumbel-TopK gates of K exclusive sub-graphs, DropBlock-Identity, super-net guidance. The abstract leaves open, and
    we read:

    - the gradient goes through the gates of the candidates that ran (``"picked"``), as in GDAS;
    - sub-graph k takes the k-th pick of every choice (``"rank"``), and its gate is normalised over the candidates that
      earlier picks left over;
    - K = 3; τ falls from 10 to 0.1, as in GDAS; alphas and weights learn in alternate steps, on two halves of the data,
      each with sub-graphs of its own, their losses averaged;
    - DropBlock-Identity replaces the identity in weight and alpha steps, with p falling from 0.5 to 0;
    - the teacher is the super-net with gates ``softmax(a)``, λ = 1, T = 1, in weight steps;
    - the super-net learns from the labels too, with weight 1, because the paper uses "the available models (super-net
      and sub-graphs)". ``supernet_weight=0`` is the other reading: a teacher that nobody trains;
    - no warm-up; optimizers and learning rates as for the other methods here.

    Examples:
        >>> search = Search(net, msgdas(k=3), steps=1000)

    Args:
        preset: one of `PRESETS`, which the other arguments override.
        k: number of sub-graphs K, which trades cost for search quality. None: 3, or as many as the smallest choice has
            candidates; see `GumbelTopK`.
        gradient: hypergradient, one of `GRADIENTS`. None, with the preset ``"default"``: ``"compare"``, or ``"probed"``
            with K = 1. Use ``"ranked"`` with the assignment ``"rank"``.
        assignment, normalise, reuse: see `GumbelTopK`.
        weight_assignment: assignment in weight steps; None: the same.
        guidance: weight λ of the distillation loss from the super-net after the warm-up; 0: none.
        temperature: temperature of the distillation.
        guide_alpha_steps: guide the alpha steps too.
        supernet_weight: weight of the super-net's own loss in weight steps (`SuperNetTraining`); 0: it does not learn.
        supernet_drop, supernet_recompute: see `SuperNetTraining`.

    Raises:
        InputError: an argument is out of range, or the gradient does not fit K.
    """
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r}: use {', '.join(PRESETS)}")
    own = PRESETS[preset]
    gradient, assignment = gradient or own["gradient"], assignment or own["assignment"]
    guidance = own["guidance"] if guidance is None else guidance
    supernet_weight = own["supernet_weight"] if supernet_weight is None else supernet_weight
    training = None if supernet_weight == 0 else SuperNetTraining(supernet_weight, supernet_drop, supernet_recompute)
    if k is not None and gradient in ("compare", "ranked", "exchange"):
        refuse_one(k, gradient)
    return Method(
        GumbelTopK(k, assignment, normalise, reuse),
        weight_sampler=GumbelTopK(k, weight_assignment or assignment, normalise, reuse),
        hypergradient=None if gradient is None else _gradient(gradient),
        guidance=SuperNetGuidance(guidance, temperature, alpha_step=guide_alpha_steps) if guidance != 0 else None,
        supernet_training=training,
        warmup=own["warmup"],
        drop=linear(0.5, 0.0),
        drop_in_alpha_steps=True,  # else the untrained super-net prefers skip connections, which need not learn
        tau=linear(10.0, 0.1),
        alpha_lr=own["alpha_lr"],
        preset=preset,
    )


def gdas(*, gradient: Literal["picked", "added", "probed"] = "picked") -> Method:
    """One Gumbel-softmax path, gradient through the picked gate.

    GDAS (Dong & Yang 2019, arXiv:1910.04465, eq. 6 and 7).

    Args:
        gradient: ``"picked"``: only the gate of the candidate that ran has a gradient. ``"added"``: the zero weights of
            the others are added to the output, as in GDAS's public code. ``"probed"``: all gates have their exact
            straight-through gradient.
    """
    return Method(GumbelTopK(k=1), hypergradient=_gradient(gradient), tau=linear(10.0, 0.1))


def darts() -> Method:
    """Every candidate runs, weighted by softmax(a); first order.

    DARTS (Liu et al. 2019, arXiv:1806.09055), ξ = 0.
    """
    return Method(Softmax(), hypergradient=first_order)


def darts_2nd(*, momentum: bool = True, weight_decay: bool = True) -> Method:
    """DARTS of second order: alphas see the next step of the weights.

    DARTS (Liu et al. 2019, arXiv:1806.09055, eq. 6 to 8); ξ is the learning rate of the weights.

    Args:
        momentum, weight_decay: include the weight optimizer's in the virtual step.
    """
    return Method(Softmax(), hypergradient=Unrolled(momentum, weight_decay))


def proxylessnas() -> Method:
    """Binary gates over two paths for alphas, single paths for weights.

    ProxylessNAS (Cai et al. 2019, arXiv:1812.00332), trained by gradients. The paper's penalty on the expected cost is
    ``replace(proxylessnas(), penalties=[ExpectedCost(costs)])``.
    """
    return Method(
        BinaryGates(),
        weight_sampler=SinglePath(),
        hypergradient=first_order,
        alpha_optimizer=Adam(betas=(0.0, 0.999)),  # momentum would move candidates that were not sampled
        after_alpha_step=keep_unsampled,
    )


def snas() -> Method:
    """Every candidate runs, weighted by Gumbel-softmax; one level.

    SNAS (Xie et al. 2019, arXiv:1812.09926): weights and alphas learn from the same batch, in one pass. Its resource
    constraint is ``replace(snas(), penalties=[ExpectedCost(costs)])``.
    """
    return Method(GumbelSoftmax(), learning="joint", tau=linear(5.0, 0.1))


def pc_darts() -> Method:
    """DARTS on a part of the channels, with weighted incoming edges.

    PC-DARTS (Xu et al. 2020, arXiv:1907.05737). The method is all in the super-net: a quarter of the channels passes
    through the mixed operations (``partial=4``), and where nodes choose their inputs, edges have alphas too
    (``searched_edges=True``).
    """
    return replace(darts(), supernet={"partial": 4, "searched_edges": True})


def r_darts(*, weight_decay: float = 27e-4, early_stop: EarlyStop | None = CurvatureStop()) -> Method:
    """DARTS with strong weight decay that stops when it gets sharp.

    R-DARTS (L2) and DARTS-ES (Zela et al. 2020, arXiv:1909.09656).

    Args:
        weight_decay: weight decay of the network's weights; the paper uses 3, 9, 27 and 81 times 1e-4.
        early_stop: rule that ends the search; None: never.
    """
    return replace(darts(), weight_optimizer=SGD(weight_decay=weight_decay), early_stop=early_stop)


def drnas(*, kl_weight: float = 1e-3) -> Method:
    """Every candidate runs, its weight drawn from a learned Dirichlet.

    DrNAS (Chen et al. 2021, arXiv:2006.10355), without its progressive pruning.

    Args:
        kl_weight: weight of the divergence from the uniform Dirichlet.
    """
    return Method(Dirichlet(), hypergradient=first_order, penalties=[DirichletKL(kl_weight)])


def rome(*, k: int = 7) -> Method:
    """K independent paths that draw their topology too.

    ROME (Wang et al. 2020, arXiv:2011.11233): two incoming edges per node by Gumbel-Top2, in a super-net built with
    ``searched_edges=True``.

    Args:
        k: number of sub-graphs per step, whose gradients are averaged.
    """
    return Method(Topology(k), hypergradient=first_order, tau=linear(10.0, 0.1), supernet={"searched_edges": True})


def random() -> Method:
    """A random architecture; uniform single paths train the weights."""
    return Method(SinglePath(uniform=True), learning="none")


def _gradient(name: str) -> Hypergradient:
    if name not in GRADIENTS:
        raise InputError(f"gradient {name!r}: use {', '.join(GRADIENTS)}")
    return GRADIENTS[name]


METHODS: dict[str, Callable[..., Method]] = {
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
"""The methods by their names on the command line. Each function needs no argument."""
