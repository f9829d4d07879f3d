"""How a search is executed: what may change its time, memory and rounding, but not what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from msgdas.errors import InputError
from msgdas.search.precision import autocast, check_precision

__all__ = ["Execution"]


@dataclass(frozen=True)
class Execution:
    """How the steps of a search are executed.

    Examples:
        >>> Search(net, methods.msgdas(k=3), execution=Execution(micro_batches=4))

    Attributes:
        precision: of forward and backward passes: ``"float32"``, ``"bfloat16"`` or ``"float16"``. Weights, alphas,
            noise and losses are always float32 (see `msgdas.search.precision`).
        micro_batches: split each batch into this many equal parts and accumulate their gradients, for the memory of one
            part. The gradients are the same, except for what depends on the whole batch: BatchNorm uses the statistics
            of each part, and a loss with class weights normalises over each part.
        recompute: run mixed operations again in the backward pass instead of keeping their feature maps. Saves memory,
            costs time, same gradients.
        parallel: keep the graphs of all K sub-graphs and run one backward pass. Costs memory, same gradients.
        memory_format: of the network and the images, such as `torch.channels_last`; None leaves both as they are.

    Raises:
        InputError: a value is out of range, or two of them contradict each other.
    """

    precision: str = "float32"
    micro_batches: int = 1
    recompute: bool = False
    parallel: bool = False
    memory_format: torch.memory_format | None = None

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if self.micro_batches < 1 or (self.parallel and self.micro_batches > 1):
            raise InputError(f"micro_batches={self.micro_batches}: use 1 or more, and 1 with parallel=True")
        if self.recompute and self.parallel:
            raise InputError("recompute=True saves the memory that parallel=True spends: leave one out")

    def logits(self, net: nn.Module, x: Tensor) -> Tensor:
        """``net(x)`` in this memory format and precision, returned as float32 logits."""
        if self.memory_format is not None and (x.ndim == 4 or self.memory_format is torch.contiguous_format):
            x = x.contiguous(memory_format=self.memory_format)
        with autocast(x.device, self.precision):
            logits: Tensor = net(x)
        return logits if self.precision == "float32" else logits.float()

    def split(self, batch: Tensor) -> Sequence[Tensor]:
        """The micro-batches of a batch.

        Raises:
            InputError: the batch does not divide evenly.
        """
        if self.micro_batches == 1:
            return [batch]
        if len(batch) % self.micro_batches:
            raise InputError(
                f"a batch of {len(batch)} does not divide into {self.micro_batches} equal micro-batches: "
                "change one of them"
            )
        return batch.chunk(self.micro_batches)

    def describe(self) -> dict[str, Any]:
        """All fields as JSON values."""
        form = None if self.memory_format is None else str(self.memory_format).removeprefix("torch.")
        return {
            "precision": self.precision,
            "micro_batches": self.micro_batches,
            "recompute": self.recompute,
            "parallel": self.parallel,
            "memory_format": form,
        }
