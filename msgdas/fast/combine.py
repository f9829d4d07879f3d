"""A faster `msgdas.choice.combine`: the sum over a choice's candidates, or over a node's edges.

Candidates begin alike: a ReLU or a pooling of the same feature map is computed once per cell (`sharing`). They end
alike: the gate's weight is multiplied into their BatchNorm. With compiled kernels, the BatchNorms and the sum are one
pass over memory (`msgdas.fast.fused`), across all choices of a node.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import local
from typing import TypeVar

import torch
from torch import Tensor, nn

from msgdas.choice import MixedOp, Term
from msgdas.fast.dense import DenseConv2d
from msgdas.fast.fused import Statistics, Summand, fused_sum, fusible
from msgdas.fast.norm import BatchNorm2d, batch_norm, running
from msgdas.fast.pool import AvgPool3x3
from msgdas.fast.private import hooked
from msgdas.fast.sums import plus, times
from msgdas.ops import Zero

__all__ = ["Sequential", "combine", "sharing"]

T = TypeVar("T")

_POOLS = nn.AvgPool2d, AvgPool3x3, nn.MaxPool2d


class _Innermost(local):  # one per thread: nn.DataParallel runs each replica in a thread
    memo: dict[Hashable, tuple[Tensor, object]] | None = None


_innermost = _Innermost()


@contextmanager
def sharing() -> Iterator[None]:
    """Inside, the ReLU and the poolings of a tensor are computed once and reused.

    A cell opens it around its forward. Nested blocks share nothing with each other.
    """
    before, _innermost.memo = _innermost.memo, {}
    try:
        yield
    finally:
        _innermost.memo = before


def combine(terms: Sequence[Term]) -> Tensor:
    """``Σ weight · module(x)``, equal to `msgdas.choice.combine` up to rounding."""
    terms = _without_zeros(terms)
    if fusible(terms[0].x):
        return fused_sum([summand for term in terms for summand in _summands(term)])
    if len(terms) > 1 and terms[0].weight is None:
        return _total([_output(module, x) for module, x, _ in terms])
    return _weighted_sum(terms)


def _without_zeros(terms: Sequence[Term]) -> Sequence[Term]:
    """Drop the terms that add zeros, but keep one if there are no others. Their weights' gradients are zero anyway."""
    return [term for term in terms if not isinstance(term.module, Zero) or hooked(term.module)] or terms[:1]


# ---------------------------------------------------------------- with compiled kernels


def _summands(term: Term) -> list[Summand]:
    """A term as summands of `fused_sum`. A choice whose output is a plain sum adds its own terms to the sum."""
    module, x, weight = term
    if isinstance(module, MixedOp) and weight is None and _is_plain_sum(module):
        inner = _without_zeros(module.terms([x] * len(module.labels)))
        return [summand for each in inner for summand in _summands(each)]
    return [_summand(module, x, weight)]


def _is_plain_sum(choice: MixedOp) -> bool:
    """Whether the choice's output is nothing but the sum of its terms: not gated, not recomputed, without hooks."""
    gate = choice.gate
    gated = gate is not None and gate.learns and bool(gate.probe or gate.added)
    recomputed = choice.recompute and torch.is_grad_enabled() and len(choice.active()) > 1
    return not (gated or recomputed or hooked(choice))


def _summand(module: nn.Module, x: Tensor, weight: Tensor | None) -> Summand:
    """``weight · module(x)``, leaving a BatchNorm at its end to `fused_sum`."""
    layers, norm = _layers_and_norm(module)
    if norm is None:
        return Summand(_output(module, x), weight)
    y = _chain(layers, x, share=True)
    if not fusible(y, norm.weight, norm.bias, norm.running_mean, norm.running_var):
        return Summand(norm(y), weight)
    statistics = Statistics(*running(norm), norm.momentum or 0.0, norm.eps)
    own = type(layers[-1]) is DenseConv2d and not hooked(layers[-1])
    return Summand(y, weight, statistics, norm.weight, norm.bias, own)


# ------------------------------------------------------------- with PyTorch's operations


def _total(outputs: list[Tensor]) -> Tensor:
    result, *others = outputs
    for i, output in enumerate(others):
        # Never add into the first output: an identity returns its input itself.
        result = plus(result, output) if i else result + output
    return result


def _weighted_sum(terms: Sequence[Term]) -> Tensor:
    """``Σ weight · module(x)``, terms that include their weight first.

    A weight is multiplied in while adding to the sum. Without a sum to add to, it would cost a pass over memory.
    """
    if len(terms) == 1:
        compute, weight = _weighted(terms[0])
        return compute() if weight is None else times(weight, compute())
    result: Tensor | None = None
    for compute, weight in sorted(map(_weighted, terms), key=lambda one: one[1] is not None):
        result = plus(result, compute(), weight)
    assert result is not None
    return result


def _weighted(term: Term) -> tuple[Callable[[], Tensor], Tensor | None]:
    """A function that computes the term, and the weight to multiply it by; None if the function includes it."""
    module, x, weight = term
    layers, norm = _layers_and_norm(module)
    if norm is None or weight is None:
        return lambda: _output(module, x), weight
    if len(layers) == 1 and norm.weight is None and _key(layers[0]) is not None:
        return lambda: _normalised(layers[0], norm, x), weight
    return lambda: _weighted_norm(norm, _chain(layers, x, share=True), weight), None


def _output(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)``, sharing its first layer with the cell."""
    if isinstance(module, nn.Sequential) and _is_sequential(module):
        return _chain(module, x, share=True)
    return _shared_output(module, x)


# ------------------------------------------------------------------ how terms begin


def _chain(layers: Iterable[nn.Module], x: Tensor, *, share: bool = False) -> Tensor:
    """Run the layers one after another; a ReLU before a convolution with a kernel becomes part of that kernel.

    Args:
        share: reuse the first layer's output within the cell.
    """
    layers = list(layers)
    if len(layers) > 1 and _key(layers[0]) is nn.ReLU and _takes_relu(layers[1], x):
        x, layers = layers[1].native(x, relu=True), layers[2:]  # type: ignore[operator]
    elif layers and share:
        x, layers = _shared_output(layers[0], x), layers[1:]
    for layer in layers:
        x = layer(x)
    return x


class Sequential(nn.Sequential):
    """Twin of ``nn.Sequential`` that lets convolution kernels compute the ReLU before them."""

    def forward(self, input: Tensor) -> Tensor:
        return _chain(self, input)


def _takes_relu(layer: nn.Module, x: Tensor) -> bool:
    return isinstance(layer, DenseConv2d) and layer.has_kernel(x) and not hooked(layer)


def _shared_output(module: nn.Module, x: Tensor) -> Tensor:
    key = None if _innermost.memo is None else _key(module)
    y: Tensor = module(x) if key is None else _once(x, key, lambda: module(x))
    return y


def _once(x: Tensor, key: Hashable, compute: Callable[[], T]) -> T:
    memo = _innermost.memo
    if memo is None:
        return compute()
    place = (id(x), key, torch.is_grad_enabled())
    if place not in memo:
        memo[place] = x, compute()  # keep x alive, or another tensor could get its id
    return memo[place][1]  # type: ignore[return-value]


def _key(module: nn.Module) -> Hashable | None:
    """A key that is equal for modules that compute the same: ReLUs and poolings. None for modules that cannot share.

    To share, a module must have no weights and not change its input in place.
    """
    kind = type(module)
    if kind is nn.ReLU:
        return None if module.inplace or hooked(module) else kind
    if kind not in _POOLS or hooked(module):
        return None
    return kind, *(getattr(module, name) for name in module.__constants__)  # type: ignore[union-attr]


# -------------------------------------------------------------------- how terms end


def _is_sequential(module: nn.Module) -> bool:
    """Whether the module does nothing but call its layers one after another."""
    return type(module) in (nn.Sequential, Sequential) and not hooked(module)


def _layers_and_norm(module: nn.Module) -> tuple[list[nn.Module], nn.BatchNorm2d | None]:
    """Split a sequence into its layers and the BatchNorm at its end. ``([], None)`` without one that uses batch
    statistics."""
    if not isinstance(module, nn.Sequential) or len(module) < 2 or not _is_sequential(module):
        return [], None
    *layers, norm = module
    if isinstance(norm, BatchNorm2d) and norm.training and norm.momentum is not None and not hooked(norm):
        return layers, norm
    return [], None


def _weighted_norm(norm: nn.BatchNorm2d, x: Tensor, weight: Tensor) -> Tensor:
    """``weight · norm(x)``."""
    mean, var = running(norm)
    weight = weight.to(
        _precision(x) if norm.running_mean is None else norm.running_mean.dtype
    )  # PyTorch wants one dtype
    # contiguous: PyTorch 2.14.1 misreads an expanded weight in the backward of channels_last on a CPU
    scale = weight.expand(x.shape[1]).contiguous() if norm.weight is None else weight * norm.weight
    shift = None if norm.bias is None else weight * norm.bias
    return batch_norm(x, mean, var, scale, shift, norm.momentum or 0.0, norm.eps)


def _normalised(pool: nn.Module, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """``norm(pool(x))`` for a norm without affine, computed once per cell; each norm has its own running statistics."""
    y, mean, var = _once(x, (_key(pool), norm.eps), lambda: _batch_norm(_shared_output(pool, x), norm.eps))
    for kept, found in zip(running(norm), (mean, var), strict=True):
        if kept is not None:
            kept.lerp_(found.to(kept.dtype), norm.momentum or 0.0)
    return y


def _batch_norm(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` normalised, and its mean and unbiased variance per channel."""
    mean, var = torch.zeros(2, x.shape[1], dtype=_precision(x), device=x.device)
    return batch_norm(x, mean, var, None, None, 1.0, eps), mean, var


def _precision(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
