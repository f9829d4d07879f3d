"""Early stopping by the curvature of the validation loss in the alphas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.ops.statistics import quiet
from msgdas.samplers.softmax import full
from msgdas.subgraph import select

__all__ = ["CurvatureStop", "EarlyStop", "largest_eigenvalue"]


class EarlyStop(Protocol):
    """A rule that may end a search after an epoch. `fit` asks it after each epoch that follows the warm-up."""

    def measure(self, net: nn.Module, alphas: Alphas, objective: Callable[[], Tensor]) -> float:
        """A number that describes the search now; ``objective()`` is the loss of the selected sub-graph on a batch of
        the validation half."""

    def stops(self, values: Sequence[float]) -> int | None:
        """Given the measures so far, the index of the epoch to return to; None: continue."""


@dataclass(frozen=True)
class CurvatureStop:
    """DARTS-ES (Zela et al. 2020, arXiv:1909.09656, section 4.3): sharp minima in the alphas do not survive derivation.

    Let ``λ̄(i)`` be the mean over the last ``window`` epochs of the largest eigenvalue of ``∇²_a L_valid``. The search
    stops as soon as ``λ̄(i − back) / λ̄(i) < ratio`` and returns the architecture of epoch ``i − back``.

    Args:
        window, back: in epochs after the warm-up; the paper uses 5 and 5 for 50 epochs.
        ratio: smallest ratio at which the search continues.

    Raises:
        InputError: ``window`` or ``back`` below 1.
    """

    window: int = 5
    back: int = 5
    ratio: float = 0.75

    def __post_init__(self) -> None:
        if self.window < 1 or self.back < 1:
            raise InputError(f"CurvatureStop(window={self.window}, back={self.back}): use 1 or more epochs")

    def measure(self, net: nn.Module, alphas: Alphas, objective: Callable[[], Tensor]) -> float:
        return largest_eigenvalue(net, alphas, objective)

    def stops(self, values: Sequence[float]) -> int | None:
        now, then = len(values) - 1, len(values) - 1 - self.back
        if then < 0:
            return None
        means = [sum(part) / len(part) for i in (then, now) if (part := values[max(0, i + 1 - self.window) : i + 1])]
        return then if means[1] > 0 and means[0] < self.ratio * means[1] else None


def largest_eigenvalue(net: nn.Module, alphas: Alphas, objective: Callable[[], Tensor]) -> float:
    """The largest eigenvalue of ``∇²_a L``, where L is the objective of the super-net with gates ``softmax(a)``.

    Lanczos iteration over Hessian-vector products (double backward). Changes no gradient and no running statistics.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh  # imported here because it takes half a second

    parameters = list(alphas.parameters())
    sizes = [p.numel() for p in parameters]
    was_training = net.training
    net.train()
    with quiet(net), select(net, full(alphas)):
        grads = torch.autograd.grad(objective(), parameters, create_graph=True)

        def hessian_times(vector: np.ndarray) -> np.ndarray:
            direction = torch.split(torch.from_numpy(np.ravel(vector)).to(grads[0]), sizes)
            product = torch.autograd.grad(grads, parameters, direction, retain_graph=True)
            return torch.cat(product).double().cpu().numpy()

        hessian = LinearOperator((sum(sizes), sum(sizes)), matvec=hessian_times, dtype=np.float64)
        (value,) = eigsh(
            hessian,
            k=1,
            which="LA",
            v0=np.ones(sum(sizes)) + np.arange(sum(sizes)) / sum(sizes),
            tol=1e-3,
            return_eigenvectors=False,
        )
    net.train(was_training)
    return float(value)
