"""One engine for every method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from msgdas.alphas import Alphas
from msgdas.choice import MixedOp
from msgdas.derive import derive
from msgdas.errors import InputError
from msgdas.fast.layout import layout
from msgdas.genotype import Genotype
from msgdas.ops.drop import DropBlockIdentity
from msgdas.ops.statistics import quiet, tracing
from msgdas.runs.finite import refuse_not_finite
from msgdas.runs.resumable import random_states, set_random_states
from msgdas.samplers import Fixed, Sampler
from msgdas.samplers.softmax import full
from msgdas.search.describe import describe
from msgdas.search.early_stop import EarlyStop
from msgdas.search.gradients import AlphaStep, Hypergradient, Parts, mean_backward
from msgdas.search.guidance import Guidance
from msgdas.search.optimizers import default_alpha_optimizer, default_weight_optimizer
from msgdas.search.precision import LossScale, autocast
from msgdas.search.prior import Prior
from msgdas.search.schedules import Schedule, at, cosine
from msgdas.search.step_metrics import Seen
from msgdas.subgraph import SubGraph, cut
from msgdas.supernet import select

__all__ = ["Batch", "Penalty", "Search"]

Batch = tuple[Tensor, Tensor]
Penalty = Callable[[Alphas], Tensor]
AfterAlphaStep = Callable[[Alphas, Tensor, Sequence[SubGraph]], None]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]


class Search:
    """The state of a search and its step: an alpha step on a validation batch, then a weight step on a training batch.

    Every method is a `Search` made of a few parts (see `msgdas.methods`); nothing here knows a method by name.

    Args:
        net: any module with choices; its ``forward`` stays as it is.
        sampler: draws the K sub-graphs of the alpha step; and of the weight step unless ``weight_sampler`` does.
        hypergradient: how the loss reaches the alphas; None: by no alpha step (``joint``, or random search).
        joint: after warm-up the alphas learn in the weight step, from the training batch, through the gates of the same
            pass (SNAS); there is no validation batch then.
        warmup: fraction of the steps, from the start, that train weights only. ``warmup_sampler`` draws them with all
            logits zero, or from the prior.
        prior: of an earlier search: where the alphas begin, and what the warm-up draws from.
        guidance: what a sub-graph learns besides the labels; starts when the warm-up ends.
        penalties: functions ``alphas -> scalar`` added to the loss of the alphas.
        after_alpha_step: function ``(alphas, logits before the step as (C, O), subgraphs)`` that may change the alphas
            after their step.
        early_stop: rule that ends the search after an epoch; `fit` asks it.
        loss: ``(logits, labels) -> scalar``.
        tau: temperature of the sampler, or a schedule over the progress of the search after warm-up.
        weight_lr, alpha_lr: learning rates, or schedules over the progress of the whole search.
        drop: DropBlock-Identity's p in weight steps, or a schedule over the progress of the whole search.
        drop_block: side of its blocks in pixels; default: each module's own (3).
        drop_in_alpha_steps: whether it is on in alpha steps too.
        clip: largest norm of the weight gradient.
        weight_optimizer, alpha_optimizer: functions of the parameters.
        parallel: run the K sub-graphs of a step together: more memory, same gradients.
        micro_batches: parts of each batch that run one after another, at the memory of one: same gradients, but for
            what looks at a whole batch, as BatchNorm does (its statistics are each part's own) and a weighted loss.
        precision: of the forwards and backwards, ``"float32"``, ``"bfloat16"`` or ``"float16"`` (see
            `msgdas.search.precision`); weights, alphas, noise and losses are float32 always.
        recompute: operations that run together are run again in backward: less memory, more time, same gradients.
        steps: of the whole search, warm-up included; `fit` sets it from epochs and data.
        seed: of the sampler's draws and the initial alphas.
    """

    def __init__(
        self,
        net: nn.Module,
        sampler: Sampler,
        *,
        hypergradient: Hypergradient | None,
        joint: bool = False,
        weight_sampler: Sampler | None = None,
        warmup: float = 0.0,
        warmup_sampler: Sampler | None = None,
        prior: Prior | None = None,
        guidance: Guidance | None = None,
        penalties: Sequence[Penalty] = (),
        after_alpha_step: AfterAlphaStep | None = None,
        early_stop: EarlyStop | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
        tau: float | Schedule = 1.0,
        weight_lr: float | Schedule = cosine(0.05, 1e-3),
        alpha_lr: float | Schedule = 1e-2,
        drop: float | Schedule = 0.0,
        drop_block: int | None = None,
        drop_in_alpha_steps: bool = False,
        clip: float = 5.0,
        weight_optimizer: OptimizerFactory = default_weight_optimizer,
        alpha_optimizer: OptimizerFactory = default_alpha_optimizer,
        parallel: bool = False,
        micro_batches: int = 1,
        precision: str = "float32",
        recompute: bool = False,
        steps: int = 1,
        seed: int = 0,
    ) -> None:
        if not 0 <= warmup <= 1:
            raise InputError(f"warmup={warmup}: the fraction of the steps before the alphas move, 0 to 1")
        if joint and hypergradient is not None:
            raise InputError("joint=True has no alpha step: pass hypergradient=None, or joint=False")
        if micro_batches < 1 or (parallel and micro_batches > 1):
            raise InputError(f"micro_batches={micro_batches}: use 1 or more, and 1 with parallel=True")
        if recompute and parallel:
            raise InputError("recompute=True saves the memory that parallel=True spends: leave one out")
        self.net, self.micro_batches, self.recompute = net, micro_batches, recompute
        self.generator = torch.Generator().manual_seed(seed)
        device = next((p.device for p in net.parameters()), torch.device("cpu"))
        self.alphas = Alphas.of(net, generator=self.generator).to(device)
        self.prior, self._uniform = prior, self.alphas.uniform()
        if prior:
            prior.begin(self.alphas)
        self.sampler = sampler
        self.weight_sampler = weight_sampler or sampler
        self.warmup_sampler = warmup_sampler or self.weight_sampler
        self.hypergradient, self.guidance, self.penalties = hypergradient, guidance, tuple(penalties)
        self.joint, self.after_alpha_step, self.early_stop = joint, after_alpha_step, early_stop
        self.loss, self.clip, self.parallel, self.precision = loss, clip, parallel, precision
        self.warmup, self.tau, self.drop, self.drop_in_alpha_steps = warmup, tau, drop, drop_in_alpha_steps
        self.weight_lr, self.alpha_lr = weight_lr, alpha_lr
        self._weights = [p for p in net.parameters() if p.requires_grad]
        self.weight_optimizer = weight_optimizer(self._weights)
        self.alpha_optimizer = alpha_optimizer(self.alphas.parameters())
        self.scale, self._memory = LossScale.of(precision), dict[str, Tensor]()
        self.steps, self.done = steps, 0
        self.watched: list[tuple[float, dict[str, Any]]] = []  # of each epoch: early_stop's measure, what it derives
        self._tracing = tracing(net)
        self._drops = [m for m in self._tracing if isinstance(m, DropBlockIdentity)]
        for module in self._drops:
            module.block = drop_block or module.block
        self._mixed = [m for m in net.modules() if isinstance(m, MixedOp)]
        self.drop_block = sorted({module.block for module in self._drops})

    def to(self, device: str | torch.device) -> Search:
        """Move network, alphas and optimizer states, the network in the device's `layout`."""
        self.net.to(device, memory_format=layout(device))  # type: ignore[call-overload]
        self.alphas.to(device)
        self._uniform.to(device)
        for optimizer in (self.weight_optimizer, self.alpha_optimizer):
            for p, state in optimizer.state.items():  # fused kernels read parameter and state in the same order
                for key, value in state.items():
                    if isinstance(value, Tensor) and value.shape == p.shape:
                        state[key] = torch.empty_like(p).copy_(value)
        return self

    # ------------------------------------------------------------------ progress

    @property
    def warmup_steps(self) -> int:
        """Steps that train weights only."""
        return round(self.warmup * self.steps)

    @property
    def warming_up(self) -> bool:
        """Whether the next step trains weights only."""
        return self.done < self.warmup_steps

    @property
    def progress(self) -> float:
        """Of the whole search, 0 at the first step and 1 at the last."""
        return min(1.0, self.done / max(1, self.steps - 1))

    @property
    def search_progress(self) -> float:
        """Of the part after warm-up, 0 at its first step and 1 at the last."""
        return min(1.0, max(0.0, (self.done - self.warmup_steps) / max(1, self.steps - 1 - self.warmup_steps)))

    # ---------------------------------------------------------------------- step

    def step(self, train: Batch, valid: Batch | None) -> dict[str, float]:
        """An alpha step on ``valid`` (not during warm-up) and a weight step on ``train``; each ``(x, labels)``.

        Returns:
            Means over the K sub-graphs: ``train_loss``, ``train_accuracy``, and after warm-up ``valid_loss``,
            ``valid_accuracy`` and, with a teacher, ``teacher_accuracy``.

        Raises:
            InputError: an alpha, a gate, a weight or a loss is not a number; the optimizer has not stepped with it.
        """
        if not self.net.training:  # a walk over all modules
            self.net.train()
        seen = Seen()
        if not self.warming_up and self.hypergradient is not None and valid is not None:
            self._alpha_step(valid, train, seen)
        joint = self.joint and not self.warming_up
        means = self._joint_step(train, seen) if joint else self._weight_step(train, seen)
        self.done += 1
        return means

    def alpha_step(self, train: Batch, valid: Batch) -> None:
        """The first half of a `step` after the warm-up, by itself: what benchmarks time."""
        self._alpha_step(valid, train, Seen())

    def _alpha_step(self, valid: Batch, train: Batch, seen: Seen) -> None:
        assert self.hypergradient is not None
        subgraphs = self.draw(self.sampler)
        _set_lr(self.weight_optimizer, at(self.weight_lr, self.progress))
        self._set_modules(at(self.drop, self.progress) if self.drop_in_alpha_steps else 0.0)
        with quiet(self._tracing, drop=self.drop_in_alpha_steps):
            guided = self.guidance is not None and self.guidance.alpha_step
            objective = self._objective(valid, seen, "valid", self._teach(valid, seen) if guided else None)
            virtual = self._objective(train, Seen(), "train", None)
            self.hypergradient(
                AlphaStep(
                    self.net,
                    self.alphas,
                    subgraphs,
                    objective,
                    parallel=self.parallel,
                    train_objective=virtual,
                    weight_optimizer=self.weight_optimizer,
                    generator=self.generator,
                    scale=self.scale.value,
                    memory=self._memory,
                )
            )
        self._move_alphas(seen, subgraphs)

    def _move_alphas(self, seen: Seen, subgraphs: list[SubGraph]) -> None:
        """A step of the alphas by the gradients that they have, and the penalties'."""
        for penalty in self.penalties:
            penalty(self.alphas).backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for p in self.alphas.parameters() if p.grad is not None]
        norms = {"alpha_gradient": nn.utils.get_total_norm(grads)} if grads else {}
        if not norms or self._means(seen, subgraphs, norms)[1]:
            before_CO = self.alphas.stack().detach() if self.after_alpha_step else None
            _set_lr(self.alpha_optimizer, at(self.alpha_lr, self.progress))
            self.alpha_optimizer.step()
            if self.after_alpha_step and before_CO is not None:
                self.after_alpha_step(self.alphas, before_CO, subgraphs)
        self.alpha_optimizer.zero_grad(set_to_none=True)

    def _weight_step(self, batch: Batch, seen: Seen) -> dict[str, float]:
        with torch.no_grad():
            subgraphs = self.draw(self.weight_sampler)
        return self._move_weights(batch, seen, subgraphs)

    def _joint_step(self, batch: Batch, seen: Seen) -> dict[str, float]:
        """Weights and alphas by one pass, through the same gates."""
        subgraphs = self.draw(self.sampler)
        leaves, push = cut(subgraphs)
        means = self._move_weights(batch, seen, leaves)
        push()
        self._move_alphas(seen, subgraphs)
        return means

    def _move_weights(self, batch: Batch, seen: Seen, subgraphs: list[SubGraph]) -> dict[str, float]:
        guided = self.guidance is not None and self.guidance.weight_step and not self.warming_up
        teacher = self._teach(batch, seen) if guided else None
        _set_lr(self.weight_optimizer, at(self.weight_lr, self.progress))
        self._set_modules(at(self.drop, self.progress))
        objective = self._objective(batch, seen, "train", teacher)
        mean_backward(
            self.net,
            subgraphs,
            objective,
            parallel=self.parallel,
            weights=self._weights,
            scale=self.scale.value,
        )
        norm = nn.utils.clip_grad_norm_(self._weights, self.clip)
        means, good = self._means(seen, subgraphs, {"weight_gradient": norm})
        if good:
            self.weight_optimizer.step()
        self.weight_optimizer.zero_grad(set_to_none=True)  # what does not run next time has no gradient, not zeros
        return means

    def _means(
        self, seen: Seen, subgraphs: list[SubGraph], norms: Mapping[str, Tensor]
    ) -> tuple[dict[str, float], bool]:
        """The means of what was seen, and whether to step with gradients of these norms; one device sync.

        Raises:
            InputError: one of them is not a number, but for gradients that a smaller `LossScale` will mend.
        """
        values = seen.means(norms)
        means = {name: value for name, value in values.items() if name not in norms}
        good = self.scale.take(values[name] for name in norms)
        suspects = {
            "alpha": self.alphas.logits.items(),
            "gate": ((name, gate.weights) for subgraph in subgraphs for name, gate in subgraph.items()),
            "weight": self.net.named_parameters(),
        }
        refuse_not_finite(self.done + 1, values if good else means, suspects)
        return means, good

    def draw(self, sampler: Sampler) -> list[SubGraph]:
        """The sub-graphs of one step; uniform ones, or the prior's, during warm-up."""
        if self.warming_up:
            alphas = self.alphas if self.prior else self._uniform
            return self.warmup_sampler(alphas, tau=1.0, generator=self.generator)
        return sampler(self.alphas, tau=at(self.tau, self.search_progress), generator=self.generator)

    def _teach(self, batch: Batch, seen: Seen) -> Tensor:
        x, labels = batch
        with torch.no_grad(), quiet(self._tracing), select(self.net, full(self.alphas)):
            logits = torch.cat([self._logits(part) for part in self._parts(x)])
        seen.accuracy("teacher", logits, labels)
        return logits

    def _objective(self, batch: Batch, seen: Seen, part: str, teacher: Tensor | None) -> Parts:
        """The loss on a batch, of the sub-graph selected at the moment."""

        def of(x: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
            logits = self._logits(x)
            loss = self.loss(logits, labels)
            seen.add(f"{part}_loss", loss.detach())
            seen.accuracy(part, logits, labels)
            if teacher is not None and self.guidance is not None:
                loss = loss + self.guidance(logits, teacher, self.search_progress)
            return loss if self.micro_batches == 1 else loss / self.micro_batches

        x, labels = batch
        teachers = [None] * self.micro_batches if teacher is None else self._parts(teacher)
        return Parts([partial(of, *one) for one in zip(self._parts(x), self._parts(labels), teachers, strict=True)])

    def _parts(self, tensor: Tensor) -> Sequence[Tensor]:
        if len(tensor) % self.micro_batches:
            raise InputError(f"a batch of {len(tensor)} is not to be cut into {self.micro_batches} equal micro-batches")
        return tensor.chunk(self.micro_batches) if self.micro_batches > 1 else [tensor]

    def _logits(self, x: Tensor) -> Tensor:
        x = x if x.device.type == "cpu" else x.contiguous()  # the layout of the first map is that of all
        with autocast(x.device, self.precision):
            logits: Tensor = self.net(x)
        return logits if self.precision == "float32" else logits.float()

    def _set_modules(self, drop: float) -> None:
        """For the step that follows; the network may be another search's too."""
        for module in self._drops:
            if module.p != drop:  # to set it takes nn.Module longer than to look
                module.p = drop
        for choice in self._mixed:
            if choice.recompute != self.recompute:
                choice.recompute = self.recompute

    # -------------------------------------------------------------------- result

    def derive(self) -> Genotype:
        """The architecture that the alphas stand for now."""
        return derive(self.net, self.alphas)

    @torch.no_grad()
    def evaluate(self, genotype: Genotype, batches: Iterable[Batch]) -> float:
        """Accuracy (a fraction) of a sub-graph with the shared weights, normalised with batch statistics: ``batches``
        must mix the classes."""
        (subgraph,) = Fixed(genotype)(self.alphas)
        correct = count = 0
        was_training = self.net.training
        self.net.train()
        with quiet(self._tracing), select(self.net, subgraph):
            for x, labels in batches:
                correct += int((self._logits(x).argmax(-1) == labels).sum())
                count += len(labels)
        self.net.train(was_training)
        return correct / max(1, count)

    def describe(self) -> dict[str, Any]:
        """Every part and number that this search is made of, as plain JSON values; a schedule as [start, end]."""
        return describe(self)

    def state_dict(self) -> dict[str, Any]:
        """All that a search is: weights, alphas, both optimizers, step, random states."""
        return {
            "net": self.net.state_dict(),
            "alphas": self.alphas.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "watched": self.watched,
            "done": self.done,
            "steps": self.steps,
            "scale": asdict(self.scale),
            "memory": dict(self._memory),
            "generator": self.generator.get_state(),
            **random_states(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Back to a state of `state_dict`, the global random state included."""
        self.net.load_state_dict(state["net"])
        self.alphas.load_state_dict(state["alphas"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        self.done, self.steps, self.watched = state["done"], state["steps"], state["watched"]
        self.scale = LossScale(**state.get("scale", {}))  # earlier versions had neither
        self._memory = dict(state.get("memory", {}))
        self.generator.set_state(state["generator"])
        set_random_states(state)


def _set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
