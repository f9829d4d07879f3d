"""Super-net guidance: distillation from the super-net to its sub-graphs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from msgdas.errors import InputError
from msgdas.search.schedules import Schedule, at

__all__ = ["Guidance", "SuperNetGuidance", "distillation"]


class Guidance(Protocol):
    """An extra loss that makes a sub-graph follow a teacher.

    Attributes:
        weight_step, alpha_step: whether it applies in weight steps, in alpha steps.
    """

    @property
    def weight_step(self) -> bool: ...

    @property
    def alpha_step(self) -> bool: ...

    def __call__(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """The loss, a scalar, from logits ``(B, classes)``; ``progress`` counts from the end of the warm-up."""


def distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """``T² · KL(softmax(teacher / T) ‖ softmax(student / T))``, mean over the batch (Hinton et al. 2015,
    arXiv:1503.02531).

    Args:
        student, teacher: ``(B, classes)`` logits.
    """
    log_student = F.log_softmax(student / temperature, -1)
    target = F.softmax(teacher / temperature, -1)
    return temperature**2 * F.kl_div(log_student, target, reduction="batchmean")


@dataclass(frozen=True)
class SuperNetGuidance:
    """The super-net teaches its sub-graphs (Tan et al. 2021, arXiv:2107.04324).

    The teacher is the super-net with gates ``softmax(a)``. It runs once per batch, without gradients and without
    updating BatchNorm statistics, so none of its feature maps are kept. Guidance starts after the warm-up.

    Args:
        weight: λ of the distillation loss, or a schedule over the steps after the warm-up.
        temperature: T of the distillation loss.
        weight_step: guide the weight steps.
        alpha_step: guide the alpha steps.

    Raises:
        InputError: the temperature is not above 0, or not finite.
    """

    weight: float | Schedule = 1.0
    temperature: float = 1.0
    weight_step: bool = True
    alpha_step: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature={self.temperature}: use a number above 0")

    def __call__(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        return at(self.weight, progress) * distillation(student, teacher, self.temperature)
