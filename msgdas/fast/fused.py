"""``Σ weight · BatchNorm(x)`` in few passes over memory, by compiled kernels (`msgdas.fast.use_native`).

Normalised maps are never written to memory. Equal to the plain sum up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from msgdas.fast.backward import Deferred, defers, wanted
from msgdas.fast.native import LANES, Term, run, takes

__all__ = ["Statistics", "Summand", "fused_sum", "fusible"]

SIZE = 2**16  # numbers in a map: the kernels pay from here on


class Statistics(NamedTuple):
    """Arguments of a BatchNorm in training: running statistics ``(C,)`` to update (or None) and constants."""

    mean: Tensor | None
    var: Tensor | None
    momentum: float
    eps: float


class Summand(NamedTuple):
    """``weight · (gamma · x̂ + beta)`` with ``x̂`` normalised by batch statistics; ``weight · x`` without ``statistics``.

    Attributes:
        x: ``(B, C, H, W)``.
        weight: a scalar; None: 1.
        gamma, beta: ``(C,)``; None: 1 and 0.
        own: whether only the sum reads ``x`` and nobody watches its gradient, so that it need not be written to memory.
    """

    x: Tensor
    weight: Tensor | None = None
    statistics: Statistics | None = None
    gamma: Tensor | None = None
    beta: Tensor | None = None
    own: bool = False


Constants = Sequence[Statistics | None]  # one per summand
PARTS = 4  # tensors per summand: x, weight, gamma, beta; summand k has places 4k to 4k + 3 in the lists below


def fusible(x: Tensor, *like: Tensor | None) -> bool:
    """Whether the kernels are in use, pay for the map ``x`` and can read it, and all of ``like`` have its dtype."""
    return (
        takes(x, SIZE)
        and x.numel() % math.lcm(x.shape[1], LANES) == 0
        and all(each is None or each.dtype == x.dtype for each in like)
    )


def fused_sum(summands: Sequence[Summand]) -> Tensor:
    """The sum of all summands; updates running statistics. Maps of summands with statistics must be `fusible`."""
    first = summands[0]
    if len(summands) == 1 and first.weight is None and first.statistics is None:
        return first.x
    like = _like(first.x)
    if not fusible(first.x) or any(_like(each.x) != like for each in summands[1:]):
        return reduce(add, map(_output, summands))
    tensors = [tensor for each in summands for tensor in (each.x, each.weight, each.gamma, each.beta)]
    constants = [each.statistics for each in summands]
    if torch.is_grad_enabled():
        # Each tensor once, as an argument of its own: autograd sees only tensors among the arguments.
        present = {id(tensor): tensor for tensor in tensors if tensor is not None}
        numbers = {key: place for place, key in enumerate(present)}
        places = [None if tensor is None else numbers[id(tensor)] for tensor in tensors]
        output: Tensor = _Sum.apply(*present.values(), constants, places, [each.own for each in summands])
        return output
    return _forward(constants, tensors)[0]


def _like(x: Tensor) -> tuple[object, ...]:
    return x.shape, x.dtype, x.stride()


def _output(summand: Summand) -> Tensor:
    y = summand.x if summand.statistics is None else fused_sum([summand._replace(weight=None)])
    return y if summand.weight is None else summand.weight * y


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        *present, constants, places, own = args
        tensors = [None if place is None else present[place] for place in places]
        y, ctx.found = _forward(constants, tensors)
        for k, statistics in enumerate(constants):
            weight = places[PARTS * k + 1]
            if statistics is None and (weight is None or not ctx.needs_input_grad[weight]):
                tensors[PARTS * k] = None  # not needed in backward: do not keep the map
        ctx.save_for_backward(*tensors)
        ctx.constants, ctx.places, ctx.own = constants, places, own
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.needs_input_grad) - 3
        wanting = wanted(ctx, count)
        wants = [place is not None and wanting[place] for place in ctx.places]
        if torch.is_grad_enabled():  # to be differentiated again
            grads = _differentiable(grad, ctx.constants, ctx.saved_tensors, wants)
        else:
            grads = _backward(grad, ctx.constants, ctx.found, ctx.saved_tensors, wants, _deferring(ctx))
        sums: list[Tensor | None] = [None] * count
        for place, found in zip(ctx.places, grads, strict=True):
            if place is not None and found is not None:
                before = sums[place]
                sums[place] = found if before is None else before + found
        return *sums, None, None, None


def _deferring(ctx: Any) -> dict[int, Any]:
    """Summand → the autograd node of the convolution before it, if that can take a `Deferred` gradient."""
    nodes = ctx.next_functions if any(ctx.own) else ()
    found = {k: nodes[ctx.places[PARTS * k]][0] for k, own in enumerate(ctx.own) if own}
    return {k: node for k, node in found.items() if ctx.constants[k] is not None and defers(node)}


def _forward(constants: Constants, tensors: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """The sum, and ``(K, 2, C)``: mean and 1 / standard deviation of the normalised summands."""
    first = tensors[0]
    assert first is not None
    y, found = torch.empty_like(first), first.new_empty(len(constants), 2, first.shape[1])
    _run("forward", first, _terms(constants, found, tensors), y)
    return y, found


def _backward(
    grad: Tensor,
    constants: Constants,
    found: Tensor,
    tensors: Sequence[Tensor | None],
    wants: Sequence[bool],
    deferring: dict[int, Any],
) -> list[Tensor | None]:
    """The gradients in ``wants``, None for the others; like ``tensors`` in order."""
    grad = grad.contiguous(memory_format=torch.channels_last)
    terms = _terms(constants, found, tensors)
    grads: list[Tensor | None] = [None] * len(tensors)
    for k, (term, statistics) in enumerate(zip(terms, constants, strict=True)):
        x, weight, gamma, beta = range(PARTS * k, PARTS * (k + 1))
        if wants[x] and statistics is None and term.weight == 1.0:
            grads[x] = grad
        elif wants[x] and k in deferring:
            y, factors = tensors[x], found.new_empty(3, math.lcm(grad.shape[1], LANES))
            assert y is not None
            grads[x], term.factors, deferring[k].deferred = grad, factors.data_ptr(), Deferred(y, factors)
        elif wants[x]:
            grads[x] = of_x = torch.empty_like(grad)
            term.of_x = of_x.data_ptr()
        if wants[gamma]:
            grads[gamma] = of_gamma = torch.empty_like(found[0, 0])
            term.of_gamma = of_gamma.data_ptr()
        if wants[beta]:
            grads[beta] = of_beta = torch.empty_like(found[0, 0])
            term.of_beta = of_beta.data_ptr()
        if statistics is None and not wants[weight]:
            term.x = 0  # the kernel need not read the map
    _run("backward", grad, terms, grad)
    for k, term in enumerate(terms):
        weight_k = tensors[PARTS * k + 1]
        if weight_k is not None and wants[PARTS * k + 1]:
            grads[PARTS * k + 1] = weight_k.new_tensor(term.of_weight)
    return grads


def _terms(constants: Constants, found: Tensor, tensors: Sequence[Tensor | None]) -> Any:
    """The summands as the C struct that the kernels read."""
    terms, at, size = (Term * len(constants))(), found.data_ptr(), found.element_size() * found[0].numel()
    for k, statistics in enumerate(constants):
        x, weight, gamma, beta = tensors[PARTS * k : PARTS * (k + 1)]
        factor = 1.0 if weight is None else weight.item()
        if statistics is None:
            terms[k] = Term(x=_address(x), weight=factor)
        else:
            mean, var, momentum, eps = statistics
            terms[k] = Term(
                x=_address(x),
                stats=at + k * size,
                gamma=_address(gamma),
                beta=_address(beta),
                running_mean=_address(mean),
                running_var=_address(var),
                weight=factor,
                momentum=momentum,
                eps=eps,
            )
    return terms


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _run(kernel: str, like: Tensor, terms: Any, y: Tensor | None) -> None:
    """Call a kernel on maps like ``like``. ``y``: the sum, or its gradient."""
    channels = like.shape[1]
    run(kernel, like.dtype, like.numel() // channels, channels, len(terms), terms, y)


def _differentiable(
    grad: Tensor, constants: Constants, tensors: Sequence[Tensor | None], wants: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients by PyTorch's operations, which can be differentiated again."""
    grads: list[Tensor | None] = [None] * len(tensors)
    for k, statistics in enumerate(constants):
        x, weight, gamma, beta = parts = tensors[PARTS * k : PARTS * (k + 1)]
        if x is None:
            grads[PARTS * k] = grad if weight is None else grad * weight
            continue
        y = x if statistics is None else F.batch_norm(x, None, None, gamma, beta, True, 0.0, statistics.eps)
        y = y if weight is None else weight * y
        wanting = {PARTS * k + j: part for j, part in enumerate(parts) if part is not None and wants[PARTS * k + j]}
        found = torch.autograd.grad(y, list(wanting.values()), grad, create_graph=True) if wanting else ()
        for place, one in zip(wanting, found, strict=True):
            grads[place] = one
    return grads
