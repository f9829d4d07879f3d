"""Candidates of a choice, weighted, without the work that they have in common.

Candidates of a cell begin alike, with a ReLU or a pooling of the same map, and end alike, with a BatchNorm, which can
take the gate in. Values, gradients and running statistics are those of the plain sum but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from itertools import starmap
from threading import local
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from msgdas.fast.dense import DenseConv2d
from msgdas.fast.fused import Statistics, Summand, fusible
from msgdas.fast.norm import BatchNorm2d, batch_norm, running
from msgdas.fast.pool import AvgPool3x3
from msgdas.fast.sums import plus

__all__ = ["alone", "hooked", "sharing", "summand", "weighted_norm", "weighted_sum"]

T = TypeVar("T")

_POOLS = nn.AvgPool2d, AvgPool3x3, nn.MaxPool2d
_NORMS = nn.BatchNorm2d, BatchNorm2d


class _Innermost(local):  # a thread for each replica of nn.DataParallel
    memo: dict[Hashable, tuple[Tensor, object]] | None = None


_innermost = _Innermost()


@contextmanager
def sharing() -> Iterator[None]:
    """Inside, the candidates that `weighted_sum` runs compute the ReLU and the poolings of a tensor once for all: what
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
    if type(candidate) is nn.Sequential and not hooked(candidate):
        return _in_a_row(candidate._modules.values(), x)
    return _first(candidate, x)


def weighted_norm(candidate: nn.Module, x: Tensor, weight: Tensor) -> Tensor | None:
    """``weight · candidate(x)`` where the BatchNorm at its end can take the weight in; else None."""
    layers, norm = _layers_and_norm(candidate)
    return None if norm is None else _weighted_norm(norm, _in_a_row(layers, x), weight)


def weighted_sum(terms: Iterable[tuple[nn.Module, Tensor, Tensor]]) -> Tensor:
    """``Σ w · candidate(x)``.

    It begins with a candidate whose BatchNorm takes its weight in, if there is one: where there is nothing to add to
    yet, a weight of its own costs a pass over memory.

    Args:
        terms: ``(candidate, x, w)``, one at least, ``w`` a scalar.
    """
    result: Tensor | None = None
    for compute, left in sorted(starmap(_term, terms), key=lambda term: term[1] is not None):
        result = plus(result, compute(), left)
    assert result is not None
    return result


def summand(candidate: nn.Module, x: Tensor, weight: Tensor | None = None, i: int = 0) -> Summand:
    """``weight · candidate(x)``, the BatchNorm at its end left to `fused_sum`; weight and ``i`` as there."""
    layers, norm = _layers_and_norm(candidate)
    if norm is None:
        return Summand(alone(candidate, x), weight, i=i)
    y = _in_a_row(layers, x)
    if not fusible(y, norm.weight, norm.bias, norm.running_mean, norm.running_var):
        return Summand(norm(y), weight, i=i)
    statistics = Statistics(*running(norm), norm.momentum or 0.0, norm.eps)
    own = type(layers[-1]) is DenseConv2d and not hooked(layers[-1])
    return Summand(y, weight, statistics, norm.weight, norm.bias, i, own)


def _term(candidate: nn.Module, x: Tensor, weight: Tensor) -> tuple[Callable[[], Tensor], Tensor | None]:
    """What computes ``weight · candidate(x)``, and the weight, if it is left to be multiplied with."""
    layers, norm = _layers_and_norm(candidate)
    if norm is None:
        return lambda: alone(candidate, x), weight
    if len(layers) == 1 and norm.weight is None and _key(layers[0]) is not None:
        return lambda: _normalised(layers[0], norm, x), weight
    return lambda: _weighted_norm(norm, _in_a_row(layers, x), weight), None


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
    layers = list(layers)
    if len(layers) > 1 and _key(layers[0]) is nn.ReLU and _takes_relu(layers[1], x):
        x, layers = layers[1].native(x, relu=True), layers[2:]  # type: ignore[operator]
    elif layers:
        x, layers = _first(layers[0], x), layers[1:]
    for layer in layers:
        x = layer(x)
    return x


def _takes_relu(layer: nn.Module, x: Tensor) -> bool:
    return type(layer) is DenseConv2d and layer.has_kernel(x) and not hooked(layer)


def _first(module: nn.Module, x: Tensor) -> Tensor:
    key = _key(module)
    y: Tensor = module(x) if key is None else _once(x, key, lambda: module(x))
    return y


def _key(module: nn.Module) -> Hashable | None:
    """The same for modules whose output candidates that begin with them can share: they have no weights, and do not
    change their input. None for any other."""
    kind = type(module)
    if kind is nn.ReLU:
        return None if module.inplace or hooked(module) else kind
    if kind not in _POOLS or hooked(module):
        return None
    return kind, *(getattr(module, name) for name in module.__constants__)  # type: ignore[union-attr]


# -------------------------------------------------------------------- how they end


def _layers_and_norm(candidate: nn.Module) -> tuple[list[nn.Module], nn.BatchNorm2d | None]:
    """Of layers in a row whose last is a BatchNorm by batch statistics; of anything else none."""
    if type(candidate) is not nn.Sequential or len(candidate) < 2 or hooked(candidate):
        return [], None
    *layers, norm = candidate
    if (
        isinstance(norm, nn.BatchNorm2d)
        and type(norm) in _NORMS
        and norm.training
        and norm.momentum is not None
        and not hooked(norm)
    ):
        return layers, norm
    return [], None


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


def hooked(module: nn.Module) -> bool:
    """Whether somebody watches it, or all modules as a counter of FLOPs does, who is to see it called."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _has_any_global_hook()  # type: ignore[no-untyped-call]
    )
