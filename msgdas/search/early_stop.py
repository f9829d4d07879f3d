"""When a search should have ended: the curvature of the validation loss in the alphas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from msgdas.errors import InputError
from msgdas.ops.statistics import quiet
from msgdas.samplers.softmax import full
from msgdas.supernet import select

if TYPE_CHECKING:
    from msgdas.search.search import Batch, Search

__all__ = ["CurvatureStop", "EarlyStop", "largest_eigenvalue"]


class EarlyStop(Protocol):
    """A rule that ends a search after an epoch."""

    def measure(self, search: Search, batch: Batch) -> float:
        """Of the search as it stands, on a batch of the alpha half, after each epoch of the search phase."""

    def stops(self, values: Sequence[float]) -> int | None:
        """The index of the epoch to go back to, given the measures so far; None: go on."""


@dataclass(frozen=True)
class CurvatureStop:
    """DARTS-ES (Zela et al. 2020, arXiv:1909.09656, section 4.3): sharp minima in the alphas do not survive derivation.

    With ``λ̄(i)`` the mean over the last ``window`` epochs of the largest eigenvalue of ``∇²_a L_valid``, the search
    stops as soon as ``λ̄(i − back) / λ̄(i) < ratio`` and returns the architecture of epoch ``i − back``.

    Args:
        window, back: in epochs of the search phase; the paper's 5 and 5 are for 50 epochs.
    """

    window: int = 5
    back: int = 5
    ratio: float = 0.75

    def __post_init__(self) -> None:
        if self.window < 1 or self.back < 1:
            raise InputError(f"CurvatureStop(window={self.window}, back={self.back}): use 1 or more epochs")

    def measure(self, search: Search, batch: Batch) -> float:
        return largest_eigenvalue(search, batch)

    def stops(self, values: Sequence[float]) -> int | None:
        now, then = len(values) - 1, len(values) - 1 - self.back
        if then < 0:
            return None
        means = [sum(part) / len(part) for i in (then, now) if (part := values[max(0, i + 1 - self.window) : i + 1])]
        return then if means[1] > 0 and means[0] < self.ratio * means[1] else None


def largest_eigenvalue(search: Search, batch: Batch) -> float:
    """The largest eigenvalue of ``∇²_a L`` of the super-net with gates ``softmax(a)`` on a batch, by Lanczos iteration
    over products of the Hessian with vectors (double backward; no trace is left)."""
    from scipy.sparse.linalg import LinearOperator, eigsh  # here: it takes half a second

    x, labels = batch
    parameters = list(search.alphas.parameters())
    sizes = [p.numel() for p in parameters]
    was_training = search.net.training
    search.net.train()
    with quiet(search.net), select(search.net, full(search.alphas)):
        loss = search.loss(search.net(x), labels)
        grads = torch.autograd.grad(loss, parameters, create_graph=True)

        def product(vector: np.ndarray) -> np.ndarray:
            towards = torch.split(torch.from_numpy(np.ravel(vector)).to(grads[0]), sizes)
            found = torch.autograd.grad(grads, parameters, towards, retain_graph=True)
            return torch.cat(found).double().cpu().numpy()

        hessian = LinearOperator((sum(sizes), sum(sizes)), matvec=product, dtype=np.float64)
        (value,) = eigsh(
            hessian,
            k=1,
            which="LA",
            v0=np.ones(sum(sizes)) + np.arange(sum(sizes)) / sum(sizes),
            tol=1e-3,
            return_eigenvectors=False,
        )
    search.net.train(was_training)
    return float(value)
