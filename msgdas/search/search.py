"""One engine for every method: the state of a search, and its step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from msgdas.alphas import Alphas
from msgdas.choice import Choice, MixedOp
from msgdas.derive import derive
from msgdas.genotype import Genotype
from msgdas.ops.drop import DropBlockIdentity
from msgdas.ops.statistics import quiet, tracing
from msgdas.runs.finite import inputs, refuse_not_finite
from msgdas.runs.resumable import random_states, set_random_states
from msgdas.samplers import Fixed, Sampler
from msgdas.samplers.softmax import full
from msgdas.search.describe import describe
from msgdas.search.execution import Execution
from msgdas.search.gradients import AlphaStep, Parts, mean_backward
from msgdas.search.method import Method
from msgdas.search.precision import LossScale
from msgdas.search.schedules import at
from msgdas.search.step_metrics import StepMetrics
from msgdas.subgraph import SubGraph, cut
from msgdas.supernet import all_choices, select

__all__ = ["Batch", "Search"]

Batch = tuple[Tensor, Tensor]
ONLY_CHECKED = ("guidance", "penalty")  # metrics that are not reported


class Search:
    """The state of a search, and its step: an alpha step on a validation batch, then a weight step on a training batch.

    What is computed is the `Method`, how it is run the `Execution`; nothing here knows a method by name.

    Examples:
        >>> search = Search(net, methods.msgdas(k=3), steps=1000)
        >>> for train, valid in zip(train_batches, valid_batches):
        ...     search.step(train, valid)
        >>> search.derive()

    Args:
        net: any module that contains choices; its ``forward`` stays as it is.
        method: what to compute (`msgdas.methods`). ``search.method`` is ``method.for_net(net)``.
        loss: ``(logits, labels) -> scalar``.
        execution: precision, micro-batches, memory format and the like.
        steps: length of the whole search, warm-up included; `fit` sets it from epochs and data.
        seed: seed of the initial alphas and of the sampler's draws.

    Attributes:
        alphas: the architecture parameters.
        places: the choices of ``net`` by name.
        weight_optimizer, alpha_optimizer: the optimizers.
        done: number of steps taken.
        watched: for each epoch after the warm-up, the value of the early-stopping rule and the derived genotype.
    """

    def __init__(
        self,
        net: nn.Module,
        method: Method,
        *,
        loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
        execution: Execution = Execution(),
        steps: int = 1,
        seed: int = 0,
    ) -> None:
        self.net, self.loss, self.execution, self.steps = net, loss, execution, steps
        self.generator = torch.Generator().manual_seed(seed)
        device = next((p.device for p in net.parameters()), torch.device("cpu"))
        self.alphas = Alphas.of(net, generator=self.generator).to(device)
        self.method = method.for_net(net)
        self._uniform = self.alphas.uniform()
        if self.method.prior:
            self.method.prior.begin(self.alphas)
        if execution.memory_format is not None:
            net.to(memory_format=execution.memory_format)
        self._weights = [p for p in net.parameters() if p.requires_grad]
        self.weight_optimizer = self.method.weight_optimizer(self._weights)
        self.alpha_optimizer = self.method.alpha_optimizer(self.alphas.parameters())
        self.scale, self._memory = LossScale.of(execution.precision), dict[str, Tensor]()
        self.done = 0
        self.watched: list[tuple[float, dict[str, Any]]] = []
        # Walking over all modules takes too long to do in every step.
        self.places = all_choices(net)
        self._tracing = tracing(net)
        self._drops = [m for m in self._tracing if isinstance(m, DropBlockIdentity)]
        self._mixed = [m for m in net.modules() if isinstance(m, MixedOp)]
        recomputable = (m for m in net.modules() if isinstance(getattr(m, "recompute", None), bool))
        self._cells = [m for m in recomputable if not isinstance(m, Choice)]
        for module in self._drops:
            module.block = self.method.drop_block or module.block

    def to(self, device: str | torch.device) -> Search:
        """Move network, alphas and optimizer states to a device."""
        self.net.to(device, memory_format=self.execution.memory_format)  # type: ignore[call-overload]
        self.alphas.to(device)
        self._uniform.to(device)
        for optimizer in (self.weight_optimizer, self.alpha_optimizer):
            for p, state in optimizer.state.items():
                for key, value in state.items():
                    if isinstance(value, Tensor) and value.shape == p.shape:
                        # Fused optimizers read parameter and state in memory order, so both need the same layout.
                        state[key] = torch.empty_like(p).copy_(value)
        return self

    # ------------------------------------------------------------------ progress

    @property
    def warmup_steps(self) -> int:
        """Number of steps, from the start, that only train weights."""
        return round(self.method.warmup * self.steps)

    @property
    def warming_up(self) -> bool:
        """Whether the next step only trains weights."""
        return self.done < self.warmup_steps

    @property
    def progress(self) -> float:
        """Progress of the whole search: 0 at the first step, 1 at the last."""
        return min(1.0, self.done / max(1, self.steps - 1))

    @property
    def search_progress(self) -> float:
        """Progress of the part after the warm-up: 0 at its first step, 1 at the last."""
        return min(1.0, max(0.0, (self.done - self.warmup_steps) / max(1, self.steps - 1 - self.warmup_steps)))

    # ---------------------------------------------------------------------- step

    def step(self, train: Batch, valid: Batch | None) -> dict[str, float]:
        """One alpha step on ``valid`` (not during the warm-up), then one weight step on ``train``.

        Args:
            train, valid: ``(x, labels)``; ``valid`` may be None if the method takes no alpha step now.

        Returns:
            Means over the K sub-graphs: ``train_loss``, ``train_accuracy``; after the warm-up also ``valid_loss`` and
            ``valid_accuracy``. With a teacher ``teacher_accuracy``; if the super-net learns too, ``supernet_loss`` and
            ``supernet_accuracy``.

        Raises:
            InputError: an alpha, a gate, a weight or a loss is NaN or infinite; the optimizer did not step with it.
        """
        if not self.net.training:  # net.train() walks over all modules
            self.net.train()
        metrics = StepMetrics()
        if not self.warming_up and self.method.learning == "alternate" and valid is not None:
            self._alpha_step(valid, train, metrics)
        joint = self.method.learning == "joint" and not self.warming_up
        means = self._joint_step(train, metrics) if joint else self._weight_step(train, metrics)
        self.done += 1
        return means

    def zero_grad(self) -> None:
        """Drop all gradients, also those that a failed step left."""
        self.weight_optimizer.zero_grad(set_to_none=True)
        self.alpha_optimizer.zero_grad(set_to_none=True)

    def alpha_step(self, train: Batch, valid: Batch) -> None:
        """Only the alpha step of a `step` after the warm-up, for benchmarks."""
        self._alpha_step(valid, train, StepMetrics())

    def _alpha_step(self, valid: Batch, train: Batch, metrics: StepMetrics) -> None:
        method = self.method
        assert method.hypergradient is not None
        subgraphs = self.draw(method.sampler)
        _set_lr(self.weight_optimizer, at(method.weight_lr, self.progress))
        self._set_modules(at(method.drop, self.progress) if method.drop_in_alpha_steps else 0.0)
        with quiet(self._tracing, drop=method.drop_in_alpha_steps):
            guided = method.guidance is not None and method.guidance.alpha_step
            objective = self._objective(valid, metrics, "valid", self._teach(valid, metrics) if guided else None)
            virtual = self._objective(train, StepMetrics(), "train", None)
            method.hypergradient(
                AlphaStep(
                    self.net,
                    self.alphas,
                    subgraphs,
                    objective,
                    parallel=self.execution.parallel,
                    train_objective=virtual,
                    weight_optimizer=self.weight_optimizer,
                    generator=self.generator,
                    scale=self.scale.value,
                    memory=self._memory,
                    places=self.places,
                )
            )
        self._move_alphas(valid, metrics, subgraphs)

    def _move_alphas(self, batch: Batch, metrics: StepMetrics, subgraphs: list[SubGraph]) -> None:
        """Add the gradients of the penalties and step the alphas' optimizer."""
        after = self.method.after_alpha_step
        for penalty in self.method.penalties:
            value = penalty(self.alphas)
            metrics.add("penalty", value.detach())
            value.backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for p in self.alphas.parameters() if p.grad is not None]
        norms = {"alpha_gradient": nn.utils.get_total_norm(grads)} if grads else {}
        if not norms or self._means(batch, metrics, subgraphs, norms)[1]:
            before_CO = self.alphas.stack().detach() if after else None
            _set_lr(self.alpha_optimizer, at(self.method.alpha_lr, self.progress))
            self.alpha_optimizer.step()
            if after and before_CO is not None:
                after(self.alphas, before_CO, subgraphs)
        self.alpha_optimizer.zero_grad(set_to_none=True)

    def _weight_step(self, batch: Batch, metrics: StepMetrics) -> dict[str, float]:
        with torch.no_grad():
            subgraphs = self.draw(self.method.weight_sampler)
        return self._move_weights(batch, metrics, subgraphs)

    def _joint_step(self, batch: Batch, metrics: StepMetrics) -> dict[str, float]:
        """Weights and alphas learn from the same pass, through the same gates."""
        subgraphs = self.draw(self.method.sampler)
        leaves, push = cut(subgraphs)
        means = self._move_weights(batch, metrics, leaves)
        push()
        self._move_alphas(batch, metrics, subgraphs)
        return means

    def _move_weights(self, batch: Batch, metrics: StepMetrics, subgraphs: list[SubGraph]) -> dict[str, float]:
        method = self.method
        _set_lr(self.weight_optimizer, at(method.weight_lr, self.progress))
        self._set_modules(at(method.drop, self.progress))
        logits = self._train_supernet(batch, metrics)
        guided = method.guidance is not None and method.guidance.weight_step and not self.warming_up
        teacher = self._teach(batch, metrics, logits) if guided else None
        objective = self._objective(batch, metrics, "train", teacher)
        mean_backward(
            self.places,
            subgraphs,
            objective,
            parallel=self.execution.parallel,
            weights=self._weights,
            scale=self.scale.value,
        )
        norm = nn.utils.clip_grad_norm_(self._weights, method.clip)
        means, good = self._means(batch, metrics, subgraphs, {"weight_gradient": norm})
        if good:
            self.weight_optimizer.step()
        # Candidates that do not run next time must have no gradient; with zeros SGD would still apply weight decay.
        self.weight_optimizer.zero_grad(set_to_none=True)
        return means

    def _means(
        self, batch: Batch, metrics: StepMetrics, subgraphs: list[SubGraph], norms: Mapping[str, Tensor]
    ) -> tuple[dict[str, float], bool]:
        """The means of the metrics, and whether to step with gradients of these norms. Waits for the device once.

        Raises:
            InputError: a value is NaN or infinite, unless it is a gradient that a smaller `LossScale` can avoid.
        """
        values = metrics.means(norms)
        means = {name: value for name, value in values.items() if name not in norms}
        good = self.scale.take(values[name] for name in norms)
        suspects = {
            **inputs(batch),
            "alpha": self.alphas.logits.items(),
            "gate": ((name, gate.weights) for subgraph in subgraphs for name, gate in subgraph.items()),
            "weight": self.net.named_parameters(),
        }
        refuse_not_finite(self.done + 1, values if good else means, suspects)
        return {name: value for name, value in means.items() if name not in ONLY_CHECKED}, good

    def draw(self, sampler: Sampler | None = None) -> list[SubGraph]:
        """Draw the sub-graphs of one step.

        During the warm-up the method's ``warmup_sampler`` draws them, from uniform probabilities or the prior.

        Args:
            sampler: draws them after the warm-up; None: the method's ``sampler``.
        """
        sampler = sampler or self.method.sampler
        if self.warming_up:
            return (self.method.warmup_sampler or sampler)(self._expected, tau=1.0, generator=self.generator)
        return sampler(self.alphas, tau=at(self.method.tau, self.search_progress), generator=self.generator)

    @property
    def _expected(self) -> Alphas:
        """The alphas of the present: uniform ones during the warm-up, unless there is a prior."""
        return self._uniform if self.warming_up and not self.method.prior else self.alphas

    def _train_supernet(self, batch: Batch, metrics: StepMetrics) -> Tensor | None:
        """Accumulate the weight gradient of the super-net's own loss. Returns its logits, which need no gradient; None
        if it does not learn now."""
        training = self.method.supernet_training
        weight = 0.0 if training is None else at(training.weight, self.progress)
        if training is None or weight == 0:
            return None
        share = weight * self.scale.value / self.execution.micro_batches  # `mean_backward` divides by the scale
        with torch.no_grad():
            gates = full(self._expected)
        found = []
        with (
            quiet(self._tracing, drop=training.drop),
            select(self.places, gates),
            self._recomputing(training.recompute),
        ):
            for x, labels in zip(*map(self.execution.split, batch), strict=True):
                logits = self.execution.logits(self.net, x)
                loss = self.loss(logits, labels)
                (share * loss).backward()  # type: ignore[no-untyped-call]
                metrics.add("supernet_loss", loss.detach())
                metrics.add_accuracy("supernet", logits, labels)
                found.append(logits.detach())
        return torch.cat(found)

    def _teach(self, batch: Batch, metrics: StepMetrics, logits: Tensor | None = None) -> Tensor:
        """Logits of the whole super-net, the teacher: ``logits``, if a pass has given them already."""
        x, labels = batch
        if logits is None:
            with torch.no_grad(), quiet(self._tracing), select(self.places, full(self.alphas)):
                logits = torch.cat([self.execution.logits(self.net, part) for part in self.execution.split(x)])
        metrics.add_accuracy("teacher", logits, labels)
        return logits

    def _objective(self, batch: Batch, metrics: StepMetrics, part: str, teacher: Tensor | None) -> Parts:
        """The loss of the currently selected sub-graph on a batch."""
        guidance, split, micro_batches = self.method.guidance, self.execution.split, self.execution.micro_batches

        def loss_of(x: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
            logits = self.execution.logits(self.net, x)
            loss = self.loss(logits, labels)
            metrics.add(f"{part}_loss", loss.detach())
            metrics.add_accuracy(part, logits, labels)
            if teacher is not None and guidance is not None:
                extra = guidance(logits, teacher, self.search_progress)
                metrics.add("guidance", extra.detach())
                loss = loss + extra
            return loss if micro_batches == 1 else loss / micro_batches

        x, labels = batch
        teachers = [None] * micro_batches if teacher is None else split(teacher)
        return Parts([partial(loss_of, *one) for one in zip(split(x), split(labels), teachers, strict=True)])

    def _set_modules(self, drop: float) -> None:
        """Set what modules need for the next step. Done in every step, because searches may share a network."""
        for module in self._drops:
            if module.p != drop:  # setting an attribute of an nn.Module is slower than reading it
                module.p = drop
        self._set_recompute(choices=self.execution.recompute, cells=False)

    def _set_recompute(self, *, choices: bool, cells: bool) -> None:
        for modules, value in ((self._mixed, choices), (self._cells, cells)):
            for module in modules:
                if module.recompute != value:
                    module.recompute = value  # type: ignore[assignment]

    @contextmanager
    def _recomputing(self, what: str) -> Iterator[None]:
        """Inside, ``"none"``, every ``"choice"`` or every ``"cell"`` and choice is recomputed in backward."""
        self._set_recompute(choices=self.execution.recompute or what != "none", cells=what == "cell")
        try:
            yield
        finally:
            self._set_recompute(choices=self.execution.recompute, cells=False)

    # -------------------------------------------------------------------- result

    def derive(self) -> Genotype:
        """The architecture that the alphas currently stand for."""
        return derive(self.net, self.alphas)

    @torch.no_grad()
    def evaluate(self, genotype: Genotype, batches: Iterable[Batch]) -> float:
        """Accuracy, a fraction, of a sub-graph with the shared weights.

        BatchNorm uses the statistics of each batch, so ``batches`` must mix the classes.
        """
        (subgraph,) = Fixed(genotype)(self.alphas)
        correct = count = 0
        was_training = self.net.training
        self.net.train()
        with quiet(self._tracing), select(self.places, subgraph):
            for x, labels in batches:
                correct += int((self.execution.logits(self.net, x).argmax(-1) == labels).sum())
                count += len(labels)
        self.net.train(was_training)
        return correct / max(1, count)

    def describe(self) -> dict[str, Any]:
        """Method, execution, loss and length as JSON values, for the run folder and the report."""
        blocks = sorted({module.block for module in self._drops})
        parts = {"loss": describe(self.loss), "steps": self.steps, "drop_block": blocks}
        return self.method.describe() | self.execution.describe() | parts

    def state_dict(self) -> dict[str, Any]:
        """The whole state: weights, alphas, both optimizers, step, random states."""
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
        """Restore a state of `state_dict`, including the global random state."""
        self.net.load_state_dict(state["net"])
        self.alphas.load_state_dict(state["alphas"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        self.done, self.steps, self.watched = state["done"], state["steps"], state["watched"]
        self.scale = LossScale(**state.get("scale", {}))  # older checkpoints have neither
        self._memory = dict(state.get("memory", {}))
        self.generator.set_state(state["generator"])
        set_random_states(state)


def _set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
