"""Architecture parameters, kept outside the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from msgdas.errors import InputError
from msgdas.supernet import all_choices

__all__ = ["Alphas"]


class Alphas(nn.Module):
    """Architecture parameters: one float32 logit vector ``(O,)`` per searched choice name.

    Attributes:
        names: names of the searched choices, in order.
        sizes: their numbers of candidates.

    Args:
        candidates: choice name → number of candidates, or their labels.
        init: standard deviation of the initial logits.
        generator: CPU generator for the initial logits.
        fixed: labels of choices without logits (unsearched `MixedInput`), which a genotype may still decide.
        keep: number of candidates that the derived network keeps, for choices where it is not 1.

    Raises:
        InputError: there are no candidates, or a name contains ``"."``.

    Examples:
        >>> alphas = Alphas({"first": ["skip", "conv"], "second": 3}, init=0.0)
        >>> alphas.stack().detach()
        tensor([[0., 0., -inf],
                [0., 0., 0.]])
    """

    def __init__(
        self,
        candidates: Mapping[str, int | Sequence[str]],
        *,
        init: float = 1e-3,
        generator: torch.Generator | None = None,
        fixed: Mapping[str, Sequence[str]] | None = None,
        keep: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        if not candidates:
            raise InputError("the network has no choice to search: add a MixedOp with two or more candidates")
        searched = {
            name: tuple(map(str, range(given))) if isinstance(given, int) else tuple(given)
            for name, given in candidates.items()
        }
        for name, labels in searched.items():
            if not labels or "." in name:
                raise InputError(
                    f"choice {name!r} with {len(labels)} candidates: use a name without '.' and one candidate or more"
                )
        self.labels: dict[str, tuple[str, ...]] = searched | {n: tuple(given) for n, given in (fixed or {}).items()}
        self.names: tuple[str, ...] = tuple(searched)
        self.sizes: tuple[int, ...] = tuple(map(len, searched.values()))
        self.keep: dict[str, int] = dict.fromkeys(searched, 1) | dict(keep or {})
        self.logits = nn.ParameterDict(
            {
                name: nn.Parameter(
                    init * torch.randn(len(labels), generator=generator) if init else torch.zeros(len(labels))
                )
                for name, labels in searched.items()
            }
        )

    @classmethod
    def of(cls, net: nn.Module, *, init: float = 1e-3, generator: torch.Generator | None = None) -> Alphas:
        """Architecture parameters for the searched choices of ``net``."""
        found = all_choices(net)
        searched = {name: same[0].labels for name, same in found.items() if same[0].searched}
        fixed = {name: same[0].labels for name, same in found.items() if not same[0].searched}
        keep = {name: same[0].keep for name, same in found.items() if name in searched}
        return cls(searched, init=init, generator=generator, fixed=fixed, keep=keep)

    def __getitem__(self, name: str) -> Tensor:
        return self.logits[name]

    def __len__(self) -> int:
        return len(self.names)

    def stack(self) -> Tensor:
        """All logits, ``(C, O)`` with O the largest number of candidates, padded with −inf."""
        logits = [self.logits[name] for name in self.names]
        if len(set(self.sizes)) == 1:
            return torch.stack(logits)  # five times faster than padding
        return pad_sequence(logits, batch_first=True, padding_value=-torch.inf)

    def probabilities(self) -> dict[str, Tensor]:
        """Choice name → ``softmax(a)``, ``(O,)``."""
        return {name: self.logits[name].softmax(-1) for name in self.names}

    def uniform(self) -> Alphas:
        """A copy with zero logits, from which samplers draw during warm-up."""
        flat = Alphas({n: self.labels[n] for n in self.names}, init=0.0, keep=self.keep)
        flat.labels = self.labels
        return flat.to(self.logits[self.names[0]])
