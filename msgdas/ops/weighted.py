"""Candidates of a choice, weighted, without the work that they have in common.

Candidates of a cell begin alike, with a ReLU or a pooling of the same map, and end alike, with a BatchNorm, which can
take the gate in. Values, gradients and running statistics are those of the plain sum but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from threading import local
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from msgdas.ops.norm import BatchNorm2d, batch_norm, running
from msgdas.ops.pool import AvgPool3x3
from msgdas.ops.sums import plus

__all__ = ["add_weighted", "alone", "sharing", "takes_weight", "weighted_norm"]

T = TypeVar("T")

_POOLS = nn.AvgPool2d, AvgPool3x3, nn.MaxPool2d
_NORMS = nn.BatchNorm2d, BatchNorm2d


class _Innermost(local):  # a thread for each replica of nn.DataParallel
    memo: dict[Hashable, tuple[Tensor, object]] | None = None


_innermost = _Innermost()


@contextmanager
def sharing() -> Iterator[None]:
    """Inside, the candidates that `add_weighted` runs compute the ReLU and the poolings of a tensor once for all: what
    a cell opens around its forward. Nothing is shared with what surrounds it.

    Candidates must not change in place what they begin with.
    """
    before, _innermost.memo = _innermost.memo, {}
    try:
        yield
    finally:
        _innermost.memo = before


def alone(candidate: nn.Module, x: Tensor) -> Tensor:
    """``candidate(x)``."""
    if _innermost.memo is None:
        y: Tensor = candidate(x)
        return y
    if type(candidate) is nn.Sequential and not _hooked(candidate):
        return _in_a_row(candidate._modules.values(), x)
    return _first(candidate, x)


def weighted_norm(candidate: nn.Module, x: Tensor, weight: Tensor) -> Tensor | None:
    """``weight · candidate(x)`` where the BatchNorm at its end can take the weight in; else None."""
    layers, norm = _layers_and_norm(candidate)
    return None if norm is None else _weighted_norm(norm, _in_a_row(layers, x), weight)


def add_weighted(total: Tensor | None, candidate: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """``total + weight · candidate(x)``.

    Args:
        total: what this function returned for the candidates before, and may overwrite; None: this is the first.
        weight: a scalar.
    """
    layers, norm = _layers_and_norm(candidate)
    if norm is None:
        return plus(total, alone(candidate, x), weight)
    if _shared(layers, norm):
        return plus(total, _normalised(layers[0], norm, x), weight)
    return plus(total, _weighted_norm(norm, _in_a_row(layers, x), weight))


def takes_weight(candidate: nn.Module) -> bool:
    """Whether `add_weighted` weights it without a pass over memory. The first of a sum is best one that does: there is
    nothing yet to add it to."""
    layers, norm = _layers_and_norm(candidate)
    return norm is not None and not _shared(layers, norm)


def _once(x: Tensor, key: Hashable, compute: Callable[[], T]) -> T:
    memo = _innermost.memo
    if memo is None:
        return compute()
    place = (id(x), key, torch.is_grad_enabled())
    if place not in memo:
        memo[place] = x, compute()  # x too, so that no other tensor gets its id
    return memo[place][1]  # type: ignore[return-value]


# ------------------------------------------------------------------ how they begin


def _in_a_row(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    begins = True
    for layer in layers:
        x, begins = _first(layer, x) if begins else layer(x), False
    return x


def _first(module: nn.Module, x: Tensor) -> Tensor:
    key = _key(module)
    y: Tensor = module(x) if key is None else _once(x, key, lambda: module(x))
    return y


def _key(module: nn.Module) -> Hashable | None:
    """The same for modules whose output candidates that begin with them can share: they have no weights, and do not
    change their input. None for any other."""
    kind = type(module)
    if kind is nn.ReLU:
        return None if module.inplace or _hooked(module) else kind
    if kind not in _POOLS or _hooked(module):
        return None
    return kind, *(getattr(module, name) for name in module.__constants__)  # type: ignore[union-attr]


# -------------------------------------------------------------------- how they end


def _layers_and_norm(candidate: nn.Module) -> tuple[list[nn.Module], nn.BatchNorm2d | None]:
    """Of layers in a row whose last is a BatchNorm by batch statistics; of anything else none."""
    if type(candidate) is not nn.Sequential or len(candidate) < 2 or _hooked(candidate):
        return [], None
    *layers, norm = candidate
    if (
        isinstance(norm, nn.BatchNorm2d)
        and type(norm) in _NORMS
        and norm.training
        and norm.momentum is not None
        and not _hooked(norm)
    ):
        return layers, norm
    return [], None


def _shared(layers: list[nn.Module], norm: nn.BatchNorm2d) -> bool:
    """Whether the normalised map is computed once for all: that of a pooling, without affine."""
    return len(layers) == 1 and norm.weight is None and _key(layers[0]) is not None


def _weighted_norm(norm: nn.BatchNorm2d, x: Tensor, weight: Tensor) -> Tensor:
    """``weight · norm(x)``."""
    mean, var = running(norm)
    weight = weight.to(_precision(x) if norm.running_mean is None else norm.running_mean.dtype)  # a kernel wants one
    # contiguous: PyTorch 2.14.1 misreads an expanded weight in the backward of channels_last on a CPU
    scale = weight.expand(x.shape[1]).contiguous() if norm.weight is None else weight * norm.weight
    shift = None if norm.bias is None else weight * norm.bias
    return batch_norm(x, mean, var, scale, shift, norm.momentum or 0.0, norm.eps)


def _normalised(pool: nn.Module, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """``norm(pool(x))`` without affine, computed once for all; each norm keeps running statistics of its own."""
    y, mean, var = _once(x, (_key(pool), norm.eps), lambda: _batch_norm(_first(pool, x), norm.eps))
    for kept, found in zip(running(norm), (mean, var), strict=True):
        if kept is not None:
            kept.lerp_(found.to(kept.dtype), norm.momentum or 0.0)
    return y


def _batch_norm(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` normalised; its mean and its unbiased variance per channel."""
    mean, var = torch.zeros(2, x.shape[1], dtype=_precision(x), device=x.device)
    return batch_norm(x, mean, var, None, None, 1.0, eps), mean, var


def _precision(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _hooked(module: nn.Module) -> bool:
    """Whether somebody watches it, or all modules as a counter of FLOPs does, who is to see it called."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _has_any_global_hook()  # type: ignore[no-untyped-call]
    )
