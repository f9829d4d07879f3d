"""Losses and accuracies seen during one step."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor

__all__ = ["StepMetrics"]


class StepMetrics:
    """Collects scalars during a step and keeps them on the device, so that the step waits for the device only once."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Add a scalar to the mean ``name``."""
        self._values.setdefault(name, []).append(value)

    def add_accuracy(self, part: str, logits: Tensor, labels: Tensor) -> None:
        """Add to the mean ``{part}_accuracy``, if this is classification: ``(B, classes)`` logits, integer labels."""
        if isinstance(logits, Tensor) and logits.ndim == 2 and not labels.is_floating_point():
            self.add(f"{part}_accuracy", (logits.argmax(-1) == labels).mean(dtype=torch.float32))

    def means(self, more: Mapping[str, Tensor]) -> dict[str, float]:
        """The mean of each name, followed by the scalars in ``more``. Waits for the device."""
        values = self._values | {name: [value] for name, value in more.items()}
        flat = iter(torch.stack([value.float() for each in values.values() for value in each]).tolist())
        return {name: sum(islice(flat, len(each))) / len(each) for name, each in values.items()}
