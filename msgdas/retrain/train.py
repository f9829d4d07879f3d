"""Train a network without choices: SGD, cosine schedule, best epoch on validation, one test."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msgdas.data import AnyImages, Batches, DataSet
from msgdas.data.augment import Augment
from msgdas.retrain.compiled import compiled, refuse_drop_path
from msgdas.retrain.recipe import Recipe
from msgdas.runs import Run, stop_on_signals
from msgdas.runs.finite import NotANumber, inputs, refuse_not_finite
from msgdas.runs.resumable import Place, go_on, random_states, resume, set_random_states

__all__ = ["retrain", "score", "training_loss"]

Record = dict[str, Any]
MOST_CONFUSION = 200  # classes up to which the confusion matrix is kept: it has their square of numbers
MOST_CONFUSED = 100  # mistakes kept of more classes
Batch = tuple[Tensor, Tensor]  # images, labels
Output = Tensor | tuple[Tensor, Tensor]


def retrain(
    network: nn.Module,
    data: DataSet,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    compile: bool = False,
    run: Run | None = None,
    on_start: Callable[[float], None] | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
) -> Record:
    """Train on the whole training part, keep the epoch that is best on validation, test it once.

    Args:
        network: returns ``(B, classes)`` logits; in training mode, if it has an auxiliary head, the pair of its logits
            and the head's. Drop path is every `torchvision.ops.StochasticDepth` in it. Its memory format is kept. It is
            left on ``device``, in evaluation mode, with the weights of its best epoch.
        compile: train with ``torch.compile``, which takes a minute or more before the first step. Validation and test
            are not compiled.
        run: stores metrics and checkpoints. An interrupted training resumes from it, bit for bit on a CPU.
        on_start: gets the estimated seconds of the training, after a few trial steps that are undone.
        on_step: gets epoch, step (both from 0) and the steps per epoch.
        on_epoch: gets the record of each epoch.

    Returns:
        `score` on the test part, and ``val_accuracy``, ``best_epoch``, ``epochs``, ``seconds``.

    Raises:
        Stopped: SIGINT or SIGTERM arrived; the step was finished and saved.
        InputError: a loss or gradient is not finite (the last checkpoint, if any, is kept), or the network cannot be
            compiled.
    """
    if compile:
        refuse_drop_path(recipe.drop_path)
    network.to(device)
    train = _batches(data.train, data, recipe, device, augment=_augment(data, recipe), seed=seed)
    val, test = (_batches(part, data, recipe, device, shuffle=False, drop_last=False) for part in (data.val, data.test))
    weights = data.class_weights().to(device) if recipe.class_weights == "balanced" else None
    training = _Training(network, recipe, recipe.epochs * len(train), weights, compile=compile)
    place = resume(training, run, len(train))
    with stop_on_signals() as stop:
        if on_start:
            on_start(_estimate_seconds(training, place, train, val))
        go_on(
            training,
            place,
            _steps(training, place, train),
            stop=stop,
            epochs=recipe.epochs,
            end_epoch=lambda: _end_epoch(training, place, val),
            run=run,
            on_step=on_step,
            on_epoch=on_epoch,
        )
        network.load_state_dict(training.best)
        logits, labels = _predict(network, test.epoch(0))
    return {
        "val_accuracy": training.best_accuracy,
        "best_epoch": training.best_epoch,
        "epochs": recipe.epochs,
        "seconds": round(place.elapsed(), 1),
        **score(logits, labels, data.classes),
    }


class _Training:
    """State and step of a training.

    Args:
        steps: of the whole training.
        weights: ``(classes,)``, class weights of the loss.
        compile: compile forward and backward.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, steps: int, weights: Tensor | None, *, compile: bool = False
    ) -> None:
        from torchvision.ops import StochasticDepth  # lazy: it takes a second

        self._forward = compiled(network) if compile else network
        self.network, self.recipe, self.steps, self.weights = network, recipe, steps, weights
        self.optimizer = torch.optim.SGD(
            network.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.best_epoch, self.best_accuracy, self.best = 0, -1.0, dict[str, Tensor]()
        self._drops = [m for m in network.modules() if isinstance(m, StochasticDepth)]

    def begin_epoch(self, epoch: int) -> None:
        """Set training mode and the drop path probability of ``epoch``, counted from 0."""
        self.network.train()
        for module in self._drops:
            module.p = self.recipe.drop_path_at(epoch)

    def step(self, batch: Batch, done: int) -> dict[str, float]:
        """Do one step of SGD after ``done`` others; return ``train_loss`` and ``train_accuracy``.

        Raises:
            InputError: the loss or gradient is not finite; the weights are unchanged.
        """
        x, labels = batch
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(done / max(1, self.steps - 1))
        output = self._forward(x)
        loss = training_loss(output, labels, self.recipe, self.weights)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        logits = output[0] if isinstance(output, tuple) else output
        accuracy = (logits.detach().argmax(-1) == labels).float().mean()
        names = ("train_loss", "train_accuracy", "weight_gradient")
        values = dict(zip(names, torch.stack([loss.detach(), accuracy, norm]).tolist()))
        refuse_not_finite(done + 1, values, inputs(batch) | {"weight": self.network.named_parameters()})
        self.optimizer.step()
        self.zero_grad()
        return {name: values[name] for name in names[:2]}

    def zero_grad(self) -> None:
        """Drop the gradients, also those of a step that failed."""
        self.optimizer.zero_grad(set_to_none=True)

    def keep_best(self, epoch: int, accuracy: float) -> None:
        """Keep the weights of ``epoch`` (from 1) if no epoch was better; of equals, the later was trained longer."""
        if accuracy >= self.best_accuracy:
            self.best_epoch, self.best_accuracy = epoch, accuracy
            self.best = deepcopy(self.network.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_accuracy": self.best_accuracy,
            **random_states(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_epoch, self.best_accuracy = state["best"], state["best_epoch"], state["best_accuracy"]
        set_random_states(state)


def training_loss(output: Output, labels: Tensor, recipe: Recipe, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, plus ``recipe.auxiliary`` times that of the auxiliary head.

    Args:
        output: ``(B, classes)`` logits, or the pair of them and the auxiliary head's.
        labels: ``(B,)`` int64.
        weights: ``(classes,)``, the weight of each class.
    """
    heads = output if isinstance(output, tuple) else (output,)
    losses = [F.cross_entropy(logits, labels, weights, label_smoothing=recipe.label_smoothing) for logits in heads]
    return losses[0] + recipe.auxiliary * losses[1] if recipe.auxiliary and len(losses) > 1 else losses[0]


def score(logits: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Record:
    """Accuracies as fractions, from ``(N, classes)`` logits and ``(N,)`` labels.

    Returns:
        ``test_accuracy``; ``top5_accuracy`` (only for more than 5 classes); ``per_class``, the accuracy of each class
        that has images, and ``mean_class_accuracy``, their mean; ``confusion``, counts with true classes as rows, or,
        of more than 200 classes, ``confused``: the 100 most frequent mistakes as true class, predicted class, count.
    """
    count, predicted = len(classes), logits.argmax(-1)
    hits = torch.bincount(labels[labels == predicted], minlength=count).tolist()
    images = torch.bincount(labels, minlength=count).tolist()
    per_class = {name: right / n for name, right, n in zip(classes, hits, images) if n}
    scores: Record = {"test_accuracy": _accuracy(predicted, labels)}
    if count > 5:
        top5 = (logits.topk(5).indices == labels[:, None]).any(-1)
        scores["top5_accuracy"] = float(top5.double().mean())
    scores["mean_class_accuracy"] = sum(per_class.values()) / len(per_class)
    return scores | {"per_class": per_class} | _mistakes(labels, predicted, classes)


def _mistakes(labels: Tensor, predicted: Tensor, classes: tuple[str, ...]) -> Record:
    """``confusion`` or ``confused`` of `score`."""
    count = len(classes)
    if count <= MOST_CONFUSION:
        return {"confusion": torch.bincount(labels * count + predicted, minlength=count**2).view(count, count).tolist()}
    wrong = labels != predicted
    found = Counter(zip(labels[wrong].tolist(), predicted[wrong].tolist())).most_common(MOST_CONFUSED)
    return {"confused": [[classes[true], classes[said], times] for (true, said), times in found]}


def _augment(data: DataSet, recipe: Recipe) -> Augment:
    return replace(data.augment, cutout=round(recipe.cutout * data.image_size)) if recipe.cutout else data.augment


def _batches(images: AnyImages, data: DataSet, recipe: Recipe, device: str | torch.device, **more: Any) -> Batches:
    return Batches(images, recipe.batch_size, mean=data.mean, std=data.std, device=device, **more)


def _estimate_seconds(training: _Training, place: Place, train: Batches, val: Batches) -> float:
    """Estimate the seconds that the remaining epochs take, from three trial steps and a validation batch; undone."""
    before = deepcopy(training.state_dict())
    batch, images = next(train.epoch(0)), next(val.epoch(0))
    training.begin_epoch(place.epoch)
    step = min(_seconds(lambda: _try(training, batch, place.done)) for _ in range(3))
    validation = min(_seconds(lambda: _predict(training.network, [images])) for _ in range(2))
    training.load_state_dict(before)
    training.zero_grad()
    return (training.steps - place.done) * step + (training.recipe.epochs - place.epoch) * len(val) * validation


def _try(training: _Training, batch: Batch, done: int) -> None:
    with suppress(NotANumber):  # the step itself says so
        training.step(batch, done)


def _seconds(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def _steps(training: _Training, place: Place, train: Batches) -> Iterator[dict[str, float]]:
    """Do the remaining steps, one per ``next``."""
    for epoch in range(place.epoch, training.recipe.epochs):
        training.begin_epoch(epoch)
        for batch in train.epoch(epoch, place.step):
            yield training.step(batch, place.done)


def _end_epoch(training: _Training, place: Place, val: Batches) -> Record:
    """Validate, keep the weights if they are the best, and return the epoch's record."""
    logits, labels = _predict(training.network, val.epoch(0))
    accuracy = _accuracy(logits.argmax(-1), labels)
    training.keep_best(place.epoch + 1, accuracy)
    return {
        "epoch": place.epoch + 1,
        "train_loss": place.means.get("train_loss"),
        "train_accuracy": place.means.get("train_accuracy"),
        "lr": training.optimizer.param_groups[0]["lr"],
        "val_loss": float(F.cross_entropy(logits, labels)),
        "val_accuracy": accuracy,
        "seconds": round(place.elapsed(), 3),
    }


@torch.no_grad()
def _predict(network: nn.Module, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """``(N, classes)`` logits and ``(N,)`` labels, on the CPU."""
    network.eval()
    logits, labels = zip(*((network(x).cpu(), y.cpu()) for x, y in batches))
    return torch.cat(logits), torch.cat(labels)


def _accuracy(predicted: Tensor, labels: Tensor) -> float:
    return float((predicted == labels).double().mean())
