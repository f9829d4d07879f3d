"""Twin of BatchNorm, faster in training on the CPU for large maps with few channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msgdas.fast.backward import wanted
from msgdas.fast.fused import Statistics, Summand, fused_sum, fusible

__all__ = ["BatchNorm2d", "batch_norm", "running"]

_SUMS = False, True, True  # gradients to compute: not the map's, but the weight's and the bias's
LINE = 16  # channels per cache line
WIDE = 128  # channels that a folded map has at least
ONE_THREAD, THREADS = (16, 2**15), (64, 2**14)  # (channels, pixels of a batch): folding pays below and from here on


class BatchNorm2d(nn.BatchNorm2d):
    """Twin of ``nn.BatchNorm2d`` that uses `batch_norm` in training."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.momentum is None or torch.compiler.is_compiling():
            return super().forward(input)
        self._check_input_dim(input)
        return batch_norm(input, *running(self), self.weight, self.bias, self.momentum, self.eps)


def running(norm: nn.BatchNorm2d) -> tuple[Tensor | None, Tensor | None]:
    """The running mean and variance that a forward of ``norm`` in training must update; counts the forward."""
    if not norm.track_running_stats or norm.num_batches_tracked is None:
        return None, None
    norm.num_batches_tracked.add_(1)
    return norm.running_mean, norm.running_var


def batch_norm(
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """``F.batch_norm`` in training, equal up to rounding. Updates ``mean`` and ``var``.

    PyTorch's kernels process channels_last maps pixel by pixel, which is slow for few channels: vector instructions are
    half empty, and threads write to the same cache line. But a map of n · k pixels and C channels is, in memory, a map
    of n pixels and C · k channels. Folded like that, the same kernels are up to five times as fast, and more precise,
    because each sum has fewer terms.

    Args:
        x: ``(B, C, H, W)``.
        mean, var: running statistics ``(C,)``, or None.
        weight, bias: ``(C,)``, or None.
    """
    if fusible(x, weight, bias, mean, var):
        return fused_sum([Summand(x, None, Statistics(mean, var, momentum, eps), weight, bias)])
    fold = _fold(x, weight)
    if fold == 1:
        return F.batch_norm(x, mean, var, weight, bias, True, momentum, eps)
    y, batch_mean, batch_var = _Folded.apply(x, weight, bias, eps, fold)
    if mean is not None and var is not None:
        count = x.numel() // x.shape[1]
        mean.lerp_(batch_mean.to(mean.dtype), momentum)
        var.lerp_(batch_var.to(var.dtype) * (count / (count - 1)), momentum)
    output: Tensor = y
    return output


def _fold(x: Tensor, weight: Tensor | None) -> int:
    """How many pixels to fold into one; 1 if folding does not pay or is not possible."""
    channels, pixels = x.shape[1], x.numel() // max(1, x.shape[1])
    if channels % LINE == 0 or channels >= THREADS[0] or pixels < THREADS[1] or x.device.type != "cpu":
        return 1  # most maps leave here, before the slower questions
    many, enough = ONE_THREAD if torch.get_num_threads() == 1 else THREADS
    if channels >= many or pixels < enough or x.dim() != 4 or x.dtype not in (torch.float32, torch.float64):
        return 1
    if (weight is not None and weight.dtype != x.dtype) or not x.is_contiguous(memory_format=torch.channels_last):
        return 1
    fold = 1
    while channels * fold < WIDE or channels * fold % LINE:
        fold *= 2
    return fold if pixels % fold == 0 else 1


class _Folded(torch.autograd.Function):
    """BatchNorm by batch statistics. Also returns mean and biased variance."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, fold: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        means, vars = torch.ops.aten.batch_norm_update_stats(_folded(x, fold), None, None, 0.0)
        var, mean = torch.var_mean(means.view(fold, -1), 0, correction=0)  # groups have equal size
        var += vars.view(fold, -1).mean(0)
        invstd = (var + eps).rsqrt_()
        scale = invstd if weight is None else invstd * weight
        shift = -mean * scale if bias is None else torch.addcmul(bias, mean, scale, value=-1)
        y = _scaled(x, fold, scale, shift)
        ctx.save_for_backward(x, weight, mean, invstd)
        ctx.eps, ctx.fold = eps, fold
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd = ctx.saved_tensors
        wants = [grad is not None and want for want in wanted(ctx, 3)]
        if grad is None or not any(wants):
            return None, None, None, None, None
        if torch.is_grad_enabled():  # to be differentiated again: PyTorch's operation can be
            found = torch.ops.aten.native_batch_norm_backward(
                grad, x, weight, None, None, mean, invstd, True, ctx.eps, wants
            )
        else:
            found = _gradients(grad, x, weight, mean, invstd, ctx.fold, wants[0])
        return *(each if want else None for each, want in zip(found, wants, strict=True)), None, None


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, invstd: Tensor, fold: int, of_x: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of the map, ``w / σ · (g − mean(g) − x̂ · mean(g · x̂))`` (None unless ``of_x``), of the weight,
    ``Σ g · x̂``, and of the bias, ``Σ g``."""
    grads = _folded(grad.contiguous(memory_format=torch.channels_last), fold)
    ones = x.new_ones(grads.shape[1])
    _, of_weights, of_biases = torch.ops.aten.native_batch_norm_backward(
        grads, _folded(x, fold), ones, None, None, _repeated(mean, fold), _repeated(invstd, fold), True, 0.0, _SUMS
    )
    of_weight, of_bias = of_weights.view(fold, -1).sum(0), of_biases.view(fold, -1).sum(0)
    if not of_x:
        return None, of_weight, of_bias
    scale, share = invstd if weight is None else invstd * weight, -1 / (x.numel() // len(mean))
    of_map = share * scale * invstd * of_weight
    result = _scaled(x, fold, of_map, torch.addcmul(share * scale * of_bias, mean, of_map, value=-1))
    _folded(result, fold).addcmul_(grads, _repeated(scale, fold))
    return result, of_weight, of_bias


def _scaled(x: Tensor, fold: int, scale: Tensor, shift: Tensor) -> Tensor:
    """``x · scale + shift``. The result is no view, so that the next module may change it in place."""
    y = torch.empty_like(x)
    torch.addcmul(_repeated(shift, fold), _folded(x, fold), _repeated(scale, fold), out=_folded(y, fold))
    return y


def _repeated(each: Tensor, fold: int) -> Tensor:
    return torch.cat([each] * fold)


def _folded(x: Tensor, fold: int) -> Tensor:
    """``(B, C, H, W)`` as ``(B · H · W / fold, C · fold)``, in the same memory."""
    return x.permute(0, 2, 3, 1).view(-1, x.shape[1] * fold)
