"""Super-net guidance: what a sub-graph learns besides the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from msgdas.search.schedules import Schedule, at

__all__ = ["Guidance", "SuperNetGuidance", "distillation"]


class Guidance(Protocol):
    """The extra loss of a sub-graph that a teacher gives."""

    weight_step: bool
    alpha_step: bool

    def __call__(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor: ...


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

    The teacher is the super-net with gates ``softmax(a)``, run once per batch, without grad and without a trace in
    BatchNorm statistics, so that no activation of it is kept: that is what makes it memory-efficient. It starts when
    the warm-up ends.

    Args:
        weight: λ of the distillation loss, or a schedule over the progress of the search after warm-up.
        temperature: T.
        weight_step, alpha_step: in which steps the sub-graphs are guided.
    """

    weight: float | Schedule = 1.0
    temperature: float = 1.0
    weight_step: bool = True
    alpha_step: bool = False

    def __call__(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        return at(self.weight, progress) * distillation(student, teacher, self.temperature)
