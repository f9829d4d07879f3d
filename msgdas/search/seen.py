"""What a step sees on its way: losses and accuracies."""

from __future__ import annotations

from collections.abc import Mapping

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
            self.add(f"{part}_accuracy", (logits.detach().argmax(-1) == labels).float().mean())

    def means(self, more: Mapping[str, Tensor]) -> dict[str, float]:
        """With ``more`` scalars at the end."""
        means = [torch.stack(v).float().mean() for v in self._values.values()]
        means += [value.float() for value in more.values()]
        return dict(zip([*self._values, *more], torch.stack(means).tolist(), strict=True))
