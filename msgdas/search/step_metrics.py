"""What a step sees on its way: losses and accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor

__all__ = ["Seen"]


class Seen:
    """Means of what a step saw, kept on the device until the step is over."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, name: str, value: Tensor) -> None:
        self._values.setdefault(name, []).append(value)

    def accuracy(self, part: str, logits: Tensor, labels: Tensor) -> None:
        if isinstance(logits, Tensor) and logits.ndim == 2 and not labels.is_floating_point():
            self.add(f"{part}_accuracy", (logits.argmax(-1) == labels).mean(dtype=torch.float32))

    def means(self, more: Mapping[str, Tensor]) -> dict[str, float]:
        """With ``more`` scalars at the end."""
        values = self._values | {name: [value] for name, value in more.items()}
        flat = iter(torch.stack([value.float() for each in values.values() for value in each]).tolist())
        return {name: sum(islice(flat, len(each))) / len(each) for name, each in values.items()}
