"""Training of a network without choices: SGD, cosine, the best epoch on validation, one look at test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn
from torch.nn import functional as F

from msgdas.data import Batches, DataSet
from msgdas.errors import InputError
from msgdas.runs import Run, stop_on_signals
from msgdas.search.loop import Means, Stopped
from msgdas.search.schedules import cosine, linear
from msgdas.search.search import Batch

__all__ = ["Recipe", "retrain"]

Record = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How a found network is trained.

    Attributes:
        lr: peak learning rate of SGD with Nesterov momentum; it rises over the first 5 % of the steps, then falls as
        a cosine.
        label_smoothing: of the training loss.
    """

    epochs: int = 60
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    clip: float = 5.0

    def lr_at(self, progress: float) -> float:
        """Learning rate at ``progress`` in [0, 1]."""
        rise = 0.05
        if progress < rise:
            return linear(self.lr / 10, self.lr)(progress / rise)
        return cosine(self.lr, 0.0)((progress - rise) / (1 - rise))


def retrain(
    network: nn.Module,
    data: DataSet,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    run: Run | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
) -> Record:
    """Train on the whole training part, keep the epoch that is best on validation, test it once.

    Args:
        network: is left with the weights of its best epoch.
        run: where metrics and checkpoints go, and where an interrupted training goes on from, bit for bit on a CPU.
        on_step: gets epoch, step (both from 0) and the steps of an epoch.

    Returns:
        ``test_accuracy``, ``val_accuracy`` (fractions), ``best_epoch``, ``epochs``, ``seconds``, ``per_class`` (test
        accuracy of each class) and ``confusion`` (test counts, rows are true classes).

    Raises:
        Stopped: SIGINT or SIGTERM came; the last whole epoch is saved.
        InputError: the loss is not a number.
    """
    if recipe.epochs < 1:
        raise InputError(f"epochs={recipe.epochs}: use 1 or more")
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    common: dict[str, Any] = {"mean": data.mean, "std": data.std, "seed": seed, "device": device}
    train = Batches(data.train, recipe.batch_size, augment=data.augment, **common)
    state = _State(network, recipe)
    state.resume(run)
    with stop_on_signals() as stop:
        while state.epoch < recipe.epochs:
            record = _epoch(state, recipe, train, on_step, stop_requested=lambda: stop.requested)
            val_loss, predicted, labels = _predict(network, _ordered(data.val, **common))
            record |= {"val_loss": val_loss, "val_accuracy": float((predicted == labels).float().mean())}
            record["seconds"] = round(state.elapsed(), 3)
            state.end_epoch(record, run)
            if on_epoch:
                on_epoch(record)
            if stop.requested is not None and state.epoch < recipe.epochs:
                raise Stopped(stop.requested)
    network.load_state_dict(state.best)
    _, predicted, labels = _predict(network, _ordered(data.test, **common))
    return {
        "test_accuracy": float((predicted == labels).double().mean()),
        "val_accuracy": state.best_accuracy,
        "best_epoch": state.best_epoch,
        "epochs": recipe.epochs,
        "seconds": round(state.elapsed(), 1),
        **_by_class(predicted, labels, data.classes),
    }


class _State:
    """All that a training is."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        self.network = network
        self.optimizer = torch.optim.SGD(
            network.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=True,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.epoch, self.best_epoch, self.best_accuracy, self.best = 0, 0, -1.0, network.state_dict()
        self.seconds, self._started = 0.0, time.monotonic()

    def elapsed(self) -> float:
        return self.seconds + time.monotonic() - self._started

    def end_epoch(self, record: Record, run: Run | None) -> None:
        self.epoch += 1
        if record["val_accuracy"] >= self.best_accuracy:  # of equals the later, which was trained longer
            self.best_epoch, self.best_accuracy = self.epoch, record["val_accuracy"]
            self.best = deepcopy(self.network.state_dict())
        if run:
            run.log(record)
            run.save(
                {
                    "network": self.network.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "epoch": self.epoch,
                    "best": self.best,
                    "best_epoch": self.best_epoch,
                    "best_accuracy": self.best_accuracy,
                    "seconds": self.elapsed(),
                    "rng": torch.get_rng_state(),
                }
            )

    def resume(self, run: Run | None) -> None:
        state = run.load() if run else None
        if run:
            run.cut_metrics(state["epoch"] if state else 0)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        self.epoch, self.best, self.seconds = state["epoch"], state["best"], state["seconds"]
        self.best_epoch, self.best_accuracy = state["best_epoch"], state["best_accuracy"]


def _epoch(
    state: _State,
    recipe: Recipe,
    train: Batches,
    on_step: Callable[[int, int, int], None] | None,
    stop_requested: Callable[[], int | None],
) -> Record:
    state.network.train()
    means, total, lr = Means(), recipe.epochs * len(train), 0.0
    for step, (x, labels) in enumerate(train.epoch(state.epoch)):
        signal = stop_requested()
        if signal is not None and step > 0:
            raise Stopped(signal)
        lr = recipe.lr_at((state.epoch * len(train) + step) / max(1, total - 1))
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        logits = state.network(x)
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        accuracy = (logits.detach().argmax(-1) == labels).float().mean()
        values = torch.stack([loss.detach(), accuracy]).tolist()
        if values[0] != values[0]:
            raise InputError(f"train_loss is not a number in epoch {state.epoch + 1}, step {step}: lower --lr")
        means.add({"train_loss": values[0], "train_accuracy": values[1]})
        if on_step:
            on_step(state.epoch, step, len(train))
    return {
        "epoch": state.epoch + 1,
        "train_loss": means.get("train_loss"),
        "train_accuracy": means.get("train_accuracy"),
        "lr": lr,
    }


def _ordered(images: Any, **common: Any) -> Iterable[Batch]:
    return Batches(images, 500, shuffle=False, drop_last=False, **common).epoch(0)


@torch.no_grad()
def _predict(network: nn.Module, batches: Iterable[Batch]) -> tuple[float, Tensor, Tensor]:
    """Mean loss, predicted classes ``(N,)``, true classes ``(N,)``."""
    network.eval()
    logits, labels = zip(*((network(x), y) for x, y in batches), strict=True)
    all_logits, all_labels = torch.cat(logits), torch.cat(labels)
    return float(F.cross_entropy(all_logits, all_labels)), all_logits.argmax(-1).cpu(), all_labels.cpu()


def _by_class(predicted: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Record:
    confusion = confusion_matrix(labels, predicted, labels=range(len(classes)))
    per_class = {name: confusion[i, i] / confusion[i].sum() for i, name in enumerate(classes) if confusion[i].sum()}
    return {"per_class": {name: float(value) for name, value in per_class.items()}, "confusion": confusion.tolist()}
