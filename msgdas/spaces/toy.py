"""A space with a known answer: one candidate of every choice generates the data."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from msgdas.choice import MixedOp
from msgdas.genotype import Genotype

__all__ = ["CANDIDATES", "ToyNet", "batches", "problem"]


class _Function(nn.Module):
    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        match self.label:
            case "identity":
                return x
            case "square":
                return (x.square() - 1) / math.sqrt(2)
            case "sine":
                return math.sqrt(2) * torch.sin(3 * x)
            case _:
                return torch.zeros_like(x)


CANDIDATES = ("none", "identity", "square", "sine")


class ToyNet(nn.Module):
    """Super-net ``logits = W · concat_c o_c(x_c) + b``, where each choice sees its own ``width`` inputs.

    ``(B, choices · width) → (B, classes)``.
    """

    space = "toy"

    def __init__(self, choices: int = 3, width: int = 4, classes: int = 4) -> None:
        super().__init__()
        self.mixed = nn.ModuleList(
            MixedOp(f"part/{c}", {label: _Function(label) for label in CANDIDATES}) for c in range(choices)
        )
        self.classifier = nn.Linear(choices * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(len(self.mixed), dim=1)
        return self.classifier(torch.cat([o(part) for o, part in zip(self.mixed, parts, strict=True)], 1))


def problem(seed: int = 0, *, choices: int = 3, width: int = 4, classes: int = 4) -> tuple[ToyNet, Genotype, Tensor]:
    """Return a super-net, the genotype that generates the labels (never ``none``) and its matrix ``(classes, choices ·
    width)``.

    Examples:
        >>> net, answer, weight = problem(seed=0)
        >>> x, labels = next(batches(answer, weight))
    """
    generator = torch.Generator().manual_seed(seed)
    answer = torch.randint(1, len(CANDIDATES), (choices,), generator=generator).tolist()
    weight = torch.randn(classes, choices * width, generator=generator)
    genotype = Genotype("toy", {f"part/{c}": CANDIDATES[i] for c, i in enumerate(answer)})
    return ToyNet(choices, width, classes), genotype, weight


def batches(
    genotype: Genotype, weight: Tensor, *, batch_size: int = 64, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield new batches ``(x ~ N(0, 1), labels = argmax W · concat_c o_c(x_c))`` without end.

    Shapes: ``(batch_size, choices · width)`` and ``(batch_size,)``. The operations o are those of ``genotype``.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [_Function(kept[0]) for _, kept in genotype.choices]
    while True:
        x = torch.randn(batch_size, weight.shape[1], generator=generator)
        features = torch.cat([part(chunk) for part, chunk in zip(parts, x.chunk(len(parts), 1), strict=True)], 1)
        yield x, (features @ weight.T).argmax(1)
