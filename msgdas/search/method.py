"""A method of architecture search, as one frozen value."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.samplers import Sampler
from msgdas.search.comparing import compare, compares
from msgdas.search.describe import describe, describe_number
from msgdas.search.early_stop import EarlyStop
from msgdas.search.gradients import Hypergradient, probed
from msgdas.search.guidance import Guidance
from msgdas.search.optimizers import SGD, Adam
from msgdas.search.prior import Prior
from msgdas.search.schedules import Schedule, cosine
from msgdas.search.supernet_training import SuperNetTraining
from msgdas.subgraph import SubGraph
from msgdas.supernet import choices

__all__ = ["AfterAlphaStep", "Method", "OptimizerFactory", "Penalty"]

AfterAlphaStep = Callable[[Alphas, Tensor, Sequence[SubGraph]], None]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
Penalty = Callable[[Alphas], Tensor]

LEARNING = ("alternate", "joint", "none")
SCHEDULED = ("tau", "weight_lr", "alpha_lr", "drop")


@dataclass(frozen=True)
class Method:
    """Everything a method is: how it samples, how the alphas learn, its schedules and its optimizers.

    `msgdas.methods` has one function per published method. Change one with `dataclasses.replace`, or build your own:

        >>> from dataclasses import replace
        >>> replace(methods.gdas(), tau=1.0, warmup=0.2)
        >>> Method(MySampler(), hypergradient=probed, alpha_lr=0.03)

    Fields that are None because they depend on the network are filled in by `for_net`, which `Search` calls. Wherever a
    number may be a schedule, it is a function of progress in [0, 1], such as ``linear(10.0, 0.1)``.

    Attributes:
        sampler: draws the K sub-graphs of an alpha step.
        weight_sampler: draws those of a weight step; None: ``sampler``.
        warmup_sampler: draws those of the warm-up, from uniform probabilities or the prior; None: ``weight_sampler``.
        hypergradient: how the loss reaches the alphas in an alpha step. None: `compare` if the sampler draws K ≥ 2
            mutually exclusive sub-graphs, else `probed`.
        learning: how the alphas learn after the warm-up. ``"alternate"``: by alpha steps of their own, on the
            validation half. ``"joint"``: in the weight step, from the same pass over the training half (SNAS).
            ``"none"``: not at all (random search).
        warmup: fraction of all steps that only train weights, at the start.
        prior: result of an earlier search; sets the initial alphas, and the warm-up draws from it.
        guidance: extra loss from a teacher; starts after the warm-up.
        supernet_training: in weight steps the super-net itself learns from the labels, and is the teacher if there is
            guidance; None: only sub-graphs learn.
        penalties: functions ``alphas -> scalar`` added to the loss of the alphas.
        after_alpha_step: function ``(alphas, logits before the step as (C, O), subgraphs)`` that may change the alphas
            after each of their steps.
        early_stop: rule that may end the search after an epoch; applied by `fit`.
        tau: temperature of the sampler; a schedule runs over the steps after the warm-up.
        weight_lr, alpha_lr: learning rates; schedules run over the whole search.
        drop: drop probability of DropBlock-Identity in weight steps; a schedule runs over the whole search.
        drop_block: side of the dropped blocks in pixels; None: each module's own.
        drop_in_alpha_steps: apply DropBlock-Identity in alpha steps too.
        clip: largest norm of the weight gradient.
        weight_optimizer, alpha_optimizer: functions from parameters to an optimizer.
        supernet: keyword arguments that the super-net must be built with, such as ``{"partial": 4}``.
        preset: name of the settings that the method was made with, for `describe`.

    Raises:
        InputError: a value is out of range, or two of them contradict each other.
    """

    sampler: Sampler
    weight_sampler: Sampler | None = None
    warmup_sampler: Sampler | None = None
    hypergradient: Hypergradient | None = None
    learning: Literal["alternate", "joint", "none"] = "alternate"
    warmup: float = 0.0
    prior: Prior | None = None
    guidance: Guidance | None = None
    supernet_training: SuperNetTraining | None = None
    penalties: Sequence[Penalty] = ()
    after_alpha_step: AfterAlphaStep | None = None
    early_stop: EarlyStop | None = None
    tau: float | Schedule = 1.0
    weight_lr: float | Schedule = cosine(0.05, 1e-3)
    alpha_lr: float | Schedule = 1e-2
    drop: float | Schedule = 0.0
    drop_block: int | None = None
    drop_in_alpha_steps: bool = False
    clip: float = 5.0
    weight_optimizer: OptimizerFactory = SGD()
    alpha_optimizer: OptimizerFactory = Adam()
    supernet: Mapping[str, Any] = field(default_factory=dict, hash=False)
    preset: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "penalties", tuple(self.penalties))
        if not 0 <= self.warmup <= 1:
            raise InputError(f"warmup={self.warmup}: the fraction of the steps before the alphas move, 0 to 1")
        if self.learning not in LEARNING:
            raise InputError(f"learning {self.learning!r}: use {', '.join(LEARNING)}")
        if self.learning != "alternate" and self.hypergradient is not None:
            raise InputError(
                f"learning={self.learning!r} has no alpha step: leave hypergradient out, or use learning='alternate'"
            )

    def for_net(self, net: nn.Module) -> Method:
        """The same method with every field filled in that depends on the network. Idempotent.

        A sampler may offer ``for_sizes(sizes)``, which returns it completed for choices with that many candidates,
        ``exclusive``, the number of mutually exclusive sub-graphs it draws, and ``exchangeable``, whether these follow
        the same law (see `GumbelTopK`).

        Warns:
            UserWarning: losses are compared of as many exchangeable sub-graphs as choices have candidates.
        """
        sizes = tuple(len(same[0].labels) for same in choices(net).values())
        sampler = _completed(self.sampler, sizes)
        weight_sampler = _completed(self.weight_sampler or sampler, sizes)
        warmup_sampler = _completed(self.warmup_sampler or weight_sampler, sizes)
        hypergradient = self.hypergradient
        if hypergradient is None and self.learning == "alternate":
            hypergradient = compare if getattr(sampler, "exclusive", 1) > 1 else probed
        if compares(hypergradient):
            _warn_of_uniform_draws(sampler, max(sizes, default=0))
        return replace(
            self,
            sampler=sampler,
            weight_sampler=weight_sampler,
            warmup_sampler=warmup_sampler,
            hypergradient=hypergradient,
        )

    def describe(self) -> dict[str, Any]:
        """All fields as JSON values: a schedule as ``[start, end]``, a part as its name and fields."""
        return {
            f.name: (describe_number if f.name in SCHEDULED else describe)(getattr(self, f.name)) for f in fields(self)
        }


def _warn_of_uniform_draws(sampler: Sampler, largest: int) -> None:
    """Warn if every candidate of every choice is drawn, each for a random sub-graph: whatever the alphas are, each is
    then judged in the company of uniformly drawn ones. With two candidates there is no other comparison."""
    k = getattr(sampler, "exclusive", None) or 1
    if k == largest > 2 and getattr(sampler, "exchangeable", False):
        warnings.warn(
            f"k={k} of {largest} candidates with assignment='shuffle': losses are compared in uniformly drawn "
            f"sub-graphs, whatever the alphas are. Use k={largest - 1} or less, or assignment='rank'",
            stacklevel=3,
        )


def _completed(sampler: Sampler, sizes: tuple[int, ...]) -> Sampler:
    for_sizes: Callable[[tuple[int, ...]], Sampler] | None = getattr(sampler, "for_sizes", None)
    return for_sizes(sizes) if for_sizes else sampler
