"""Gradients for the weights of candidates that do not run: probed and added gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available
from torch.autograd.function import once_differentiable

from msgdas.ops.statistics import quiet

__all__ = ["gated", "inner"]

Run = Callable[[int, Tensor], Tensor]
Inner = Callable[[Tensor, Tensor], Tensor]


def inner(a: Tensor, b: Tensor) -> Tensor:
    """``⟨a, b⟩``, summed in float32 or better."""
    return (a * b).sum(dtype=torch.promote_types(a.dtype, torch.float32))


def gated(
    module: nn.Module,
    weights: Tensor,
    y: Tensor,
    picked: int,
    run: Run,
    probed: Mapping[int, Tensor],
    *,
    added: bool = False,
    inner: Inner = inner,
) -> Tensor:
    """``w_i · y`` for a hard gate: ``w_i`` is exactly 1, so forward returns ``y``. Backward gives every weight its
    gradient.

    The picked candidate gets ``∂L/∂w_i = ⟨∂L/∂y, y⟩``. A probed one runs in backward, without grad, on its stored
    input, and gets ``∂L/∂w_j = ⟨∂L/∂y, o_j(x_j)⟩``: the exact straight-through gradient, at the activation memory of
    one path. With ``added``, every weight also gets ``⟨∂L/∂y, 1⟩``.

    This is an autograd Function and not a tensor hook: an identity candidate returns its input itself, and a hook on
    that tensor would see the gradients of all its consumers.

    Args:
        module: holds the candidates; probing leaves no trace in its running statistics.
        weights: ``(O,)``.
        y: the output of candidate ``picked``.
        run: ``(j, x) -> o_j(x)``.
        probed: candidate index → its input.
        inner: the inner product.
    """
    output: Tensor = _Gated.apply(weights, y, module, picked, run, tuple(probed), added, inner, *probed.values())
    return output


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        y: Tensor,
        module: nn.Module,
        picked: int,
        run: Run,
        probed: tuple[int, ...],
        added: bool,
        inner: Inner,
        *inputs: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(y, *inputs)
        ctx.module, ctx.picked, ctx.run, ctx.probed, ctx.added, ctx.inner = module, picked, run, probed, added, inner
        ctx.weights_like = len(weights), weights.dtype, weights.device
        ctx.autocast = _autocast_again(y.device.type)
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, *inputs = ctx.saved_tensors
        gates = None
        if ctx.needs_input_grad[0]:
            size, dtype, device = ctx.weights_like
            gates = torch.zeros(size, dtype=dtype, device=device)
            if ctx.added:
                gates += grad.sum(dtype=torch.promote_types(grad.dtype, torch.float32))
            gates[ctx.picked] = ctx.inner(grad, y)
            with torch.no_grad(), quiet(ctx.module), ctx.autocast():
                for j, x in zip(ctx.probed, inputs, strict=True):
                    gates[j] = ctx.inner(grad, ctx.run(j, x))
        return gates, grad, *(None for _ in range(6 + len(inputs)))


def _autocast_again(device_type: str) -> Callable[[], AbstractContextManager[None]]:
    """Reopens the autocast that is in force now: backward does not run under it."""
    if not is_autocast_available(device_type):
        return nullcontext
    dtype, enabled = torch.get_autocast_dtype(device_type), torch.is_autocast_enabled(device_type)
    return partial(torch.autocast, device_type, dtype, enabled)
