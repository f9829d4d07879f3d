"""The super-net itself learns from the labels, next to its sub-graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgdas.errors import InputError
from msgdas.search.schedules import Schedule

__all__ = ["RECOMPUTE", "SuperNetTraining"]

RECOMPUTE = ("none", "choice", "cell")


@dataclass(frozen=True)
class SuperNetTraining:
    """In every weight step, in the warm-up too, the super-net runs once and learns from the labels.

    Its gates are ``softmax(a)``, uniform during the warm-up (or the prior's), and learn nothing here. The weights get
    the gradient of ``weight · L(super-net) + mean over K of L(sub-graph)``, so every candidate has one. BatchNorm
    normalises by the batch; running statistics stay as they are. If there is guidance, this pass is its teacher.

    The super-net's gradients are accumulated before the sub-graphs run, so that only one of the two is in memory.

    Attributes:
        weight: weight of the super-net's loss; a schedule runs over the whole search. While it is 0, the pass is left
            out.
        drop: apply DropBlock-Identity in this pass, and so in the teacher.
        recompute: what runs again in this pass's backward instead of keeping its feature maps; same gradients.
            ``"none"``; ``"choice"``: every choice, which keeps one choice's mixture at a time; ``"cell"``: every cell,
            and within it every choice, which keeps the inputs of cells (see `msgdas.ops.statistics.recomputable`;
            spaces without cells do as for ``"choice"``).

    Raises:
        InputError: a value is out of range.
    """

    weight: float | Schedule = 1.0
    drop: bool = False
    recompute: Literal["none", "choice", "cell"] = "choice"

    def __post_init__(self) -> None:
        if not callable(self.weight) and not self.weight > 0:
            raise InputError(
                f"SuperNetTraining(weight={self.weight}): use a number above 0, or None instead of the part"
            )
        if self.recompute not in RECOMPUTE:
            raise InputError(f"recompute {self.recompute!r} of the super-net's pass: use {', '.join(RECOMPUTE)}")
