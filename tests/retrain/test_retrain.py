"""Retraining: every number of a recipe does what it says."""

from __future__ import annotations

import json
from collections import Counter
from copy import deepcopy
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchvision.ops import StochasticDepth

from msgdas.data import load_data
from msgdas.data.augment import Augment
from msgdas.errors import InputError
from msgdas.retrain import RECIPES, Recipe, retrain
from msgdas.retrain.train import score, training_loss


class Net(nn.Module):
    """A convolution, a path that may drop, a classifier, and perhaps an auxiliary head; remembers what it saw."""

    def __init__(self, auxiliary=False):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.path = nn.Sequential(nn.Conv2d(4, 4, 1), StochasticDepth(0.7, "row"))
        self.classifier = nn.Linear(4, 10)
        self.head = nn.Linear(4, 10) if auxiliary else None
        self.seen = []  # (training, input, drop path) of each forward

    def forward(self, x):
        self.seen.append((self.training, x.detach(), self.path[1].p))
        x = self.conv(x)
        x = (x + self.path(x)).mean((2, 3))
        logits = self.classifier(x)
        return (logits, self.head(x)) if self.head is not None and self.training else logits


def digits(train=64, other=40):
    data = load_data("digits")
    parts = {"train": train, "val": other, "test": other}
    return replace(data, **{part: getattr(data, part).take(torch.arange(n)) for part, n in parts.items()})


# loss


def test_the_auxiliary_loss_enters_with_its_weight():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (8,), generator=generator)
    logits, head = (torch.randn(8, 10, generator=generator).double().requires_grad_() for _ in range(2))
    alone = [torch.autograd.grad(F.cross_entropy(z, labels, label_smoothing=0.1), z)[0] for z in (logits, head)]
    for weight in (0.4, 2.0):
        loss = training_loss((logits, head), labels, Recipe(auxiliary=weight))
        grads = torch.autograd.grad(loss, (logits, head))
        torch.testing.assert_close(grads, (alone[0], weight * alone[1]))
    for output in ((logits, head), logits):
        loss = training_loss(output, labels, Recipe(auxiliary=0.0))
        grads = torch.autograd.grad(loss, (logits, head), allow_unused=True)
        assert torch.equal(grads[0], alone[0])
        assert grads[1] is None


@pytest.mark.parametrize("auxiliary", [0.0, 0.4])
def test_an_auxiliary_head_is_trained_only_with_a_weight(auxiliary):
    net = Net(auxiliary=True)
    before = net.head.weight.detach().clone()
    retrain(net, digits(), Recipe(epochs=1, auxiliary=auxiliary))
    assert torch.equal(net.head.weight, before) == (auxiliary == 0)


def test_balanced_weights_are_in_the_loss():
    """``w_c = N / (classes · n_c)``, and the loss is ``Σ w_y · CE / Σ w_y``."""
    data = digits(train=64)
    counts = torch.bincount(data.train.labels, minlength=10)
    assert counts.unique().numel() > 1
    losses = {}
    for weights in ("none", "balanced"):
        torch.manual_seed(0)
        net, records = Net(), []
        start = deepcopy(net)
        start.path[1].p = 0.0
        recipe = Recipe(epochs=1, label_smoothing=0.0, class_weights=weights)
        retrain(net, replace(data, augment=Augment()), recipe, on_epoch=records.append)
        losses[weights] = records[0]["train_loss"]
    x = (data.train.pixels / 255 - data.mean[:, None, None]) / data.std[:, None, None]
    each = F.cross_entropy(start(x), data.train.labels, reduction="none").detach()
    w = (64 / (10 * counts))[data.train.labels]
    assert losses["none"] == pytest.approx(float(each.mean()), rel=1e-5)
    assert losses["balanced"] == pytest.approx(float((w * each).sum() / w.sum()), rel=1e-5)
    assert losses["none"] != pytest.approx(losses["balanced"], rel=1e-5)


# schedules


def test_drop_path_is_set_at_each_epoch():
    net = Net()
    retrain(net, digits(), Recipe(epochs=4, batch_size=32, drop_path=0.2))
    assert [p for training, _, p in net.seen if training] == pytest.approx([0, 0, 0.05, 0.05, 0.1, 0.1, 0.15, 0.15])


@pytest.mark.parametrize(("recipe", "start"), [(Recipe(), 0.1), (RECIPES["darts"], 1.0), (Recipe(rise=0.5), 0.1)])
def test_the_learning_rate_rises_linearly_and_falls_to_zero_as_a_cosine(recipe, start):
    assert recipe.lr_at(0.0) == pytest.approx(start * recipe.lr)
    assert recipe.lr_at(recipe.rise) == recipe.lr
    assert recipe.lr_at(recipe.rise / 2) == pytest.approx(recipe.lr * (1 if recipe.rise == 0 else 0.55))
    assert recipe.lr_at((1 + recipe.rise) / 2) == pytest.approx(recipe.lr / 2)
    assert recipe.lr_at(1.0) == 0


def test_the_optimizer_gets_the_recipe():
    seen = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: seen.append(dict(optimizer.param_groups[0])))
    recipe = replace(RECIPES["darts"], epochs=2, batch_size=16)
    try:
        retrain(Net(), digits(), recipe)
    finally:
        hook.remove()
    assert [group["lr"] for group in seen] == pytest.approx([recipe.lr_at(i / 7) for i in range(8)])
    for name in ("momentum", "nesterov", "weight_decay"):
        assert {group[name] for group in seen} == {getattr(recipe, name)}


# images


@pytest.mark.parametrize(("cutout", "side"), [(0.5, 4), (0.3, 2), (1.0, 8), (0.0, 3)])
def test_cutout_is_a_fraction_of_the_side_and_only_in_training(cutout, side):
    """On white images what is cut out shows; 0 leaves the data set's own cutout."""
    data = digits(other=10)
    white = replace(data.train, pixels=torch.full_like(data.train.pixels, 255))
    data = replace(data, train=white, val=white, test=white, augment=Augment(cutout=3))
    net = Net()
    retrain(net, data, Recipe(epochs=1, cutout=cutout))
    cuts = {training: [] for training in (True, False)}
    for training, x, _ in net.seen:
        cuts[training] += (x < x.max()).flatten(1).sum(1).tolist()
    assert max(cuts[True]) <= side**2
    assert min(cuts[True]) >= (side // 2) ** 2
    assert side == 8 or max(cuts[True]) == side**2
    assert not any(cuts[False])


def test_prediction_takes_batches_of_the_recipe_and_sees_every_image_once():
    data, net = digits(other=40), Net()
    retrain(net, data, Recipe(epochs=2, batch_size=16))
    sizes = [len(x) for training, x, _ in net.seen if not training]
    assert sizes == [16, 16, 8] * 3  # validation of two epochs, then test
    pixels = torch.cat([x for training, x, _ in net.seen if not training][-3:])
    torch.testing.assert_close(pixels * data.std + data.mean, data.test.pixels / 255, rtol=0, atol=1e-5)


# result


@pytest.mark.parametrize("classes", [5, 6, 10])
def test_the_scores_are_what_they_say(classes):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(50, classes, generator=generator)
    labels = torch.randint(0, classes - 1, (50,), generator=generator)  # nothing of the last class
    result = score(logits, labels, tuple(map(str, range(classes))))
    pairs = [(row.argsort(descending=True).tolist(), y) for row, y in zip(logits, labels.tolist(), strict=True)]
    assert result["test_accuracy"] == sum(order[0] == y for order, y in pairs) / 50
    assert ("top5_accuracy" in result) == (classes > 5)
    if classes > 5:
        assert result["top5_accuracy"] == sum(y in order[:5] for order, y in pairs) / 50
    right, all_of = Counter(y for order, y in pairs if order[0] == y), Counter(y for _, y in pairs)
    assert result["per_class"] == {str(y): right[y] / all_of[y] for y in sorted(all_of)}
    assert result["mean_class_accuracy"] == pytest.approx(sum(right[y] / n for y, n in all_of.items()) / len(all_of))
    assert sum(map(sum, result["confusion"])) == 50


def test_the_network_is_left_with_the_weights_that_were_tested():
    data, net, states, records = digits(), Net(), [], []

    def keep(record):
        records.append(record)
        states.append(deepcopy(net.state_dict()))

    result = retrain(net, data, Recipe(epochs=4, batch_size=16), on_epoch=keep)
    accuracies = [record["val_accuracy"] for record in records]
    best = max(i for i, accuracy in enumerate(accuracies) if accuracy == max(accuracies))
    assert (result["best_epoch"], result["val_accuracy"]) == (best + 1, accuracies[best])
    assert all(torch.equal(value, states[best][name]) for name, value in net.state_dict().items())
    x = (data.test.pixels / 255 - data.mean[:, None, None]) / data.std[:, None, None]
    assert result["test_accuracy"] == float((net(x).argmax(1) == data.test.labels).double().mean())


# recipes


def test_the_recipe_of_darts():
    """Liu et al. 2019, arXiv:1806.09055, and its train.py."""
    assert asdict(RECIPES["darts"]) == {
        "epochs": 600,
        "batch_size": 96,
        "lr": 0.025,
        "rise": 0.0,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 3e-4,
        "clip": 5.0,
        "label_smoothing": 0.0,
        "cutout": 16 / 32,
        "auxiliary": 0.4,
        "drop_path": 0.2,
        "class_weights": "none",
    }
    assert RECIPES["short"] == Recipe()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("rise", 1.0),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-4),
        ("clip", 0.0),
        ("label_smoothing", 1.1),
        ("cutout", 1.5),
        ("auxiliary", -0.4),
        ("drop_path", 1.0),
        ("class_weights", "balance"),
    ],
)
def test_a_wrong_value_is_one_line(field, value):
    with pytest.raises(InputError, match=rf"^{field}={value!r}: .*use") as error:
        Recipe(**{field: value})
    assert "\n" not in str(error.value)


def test_nesterov_needs_momentum():
    with pytest.raises(InputError, match="nesterov=True"):
        Recipe(momentum=0.0)
    assert Recipe(momentum=0.0, nesterov=False).momentum == 0


@pytest.mark.parametrize("count", [200, 2000])
def test_the_results_of_many_classes_stay_small(count):
    names = tuple(f"class_{i:04d}" for i in range(count))
    labels = torch.arange(3 * count) % count
    predicted = torch.where(labels < 150, (labels + 1) % count, labels)  # three times each
    predicted[:3] = 7  # once: 0, 1 and 2 for 7
    logits = F.one_hot(predicted, count).float()
    result = score(logits, labels, names)
    wrong = labels != predicted
    assert result["test_accuracy"] == pytest.approx(1 - int(wrong.sum()) / len(labels))
    assert result["per_class"][names[3]] == 0
    assert result["per_class"][names[150]] == 1
    assert ("confusion" in result, "confused" in result) == (count == 200, count == 2000)
    if count == 200:
        assert result["confusion"][3][4] == 3
        assert sum(map(sum, result["confusion"])) == len(labels)
    else:
        assert len(result["confused"]) == 100
        assert result["confused"][0] == [names[3], names[4], 3]
        assert [times for *_, times in result["confused"]] == [3] * 100
        assert len(json.dumps(result)) < 60_000
