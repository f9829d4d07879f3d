"""What `speed` and `memory` measure: search steps of methods, and plain training of the sub-graphs that they run.

Images are random, in the device's faster memory format.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD as PyTorchSGD

from msgdas.alphas import Alphas
from msgdas.choice import MixedOp
from msgdas.discretize import discretize
from msgdas.errors import InputError
from msgdas.fast import layout, slow_down, speed_up
from msgdas.genotype import Genotype
from msgdas.methods import METHODS, darts
from msgdas.samplers import Sampler, SinglePath
from msgdas.search.execution import Execution
from msgdas.search.gradients import AlphaStep, mean_backward
from msgdas.search.method import Method
from msgdas.search.optimizers import SGD
from msgdas.search.search import Batch, Search
from msgdas.spaces import find_space
from msgdas.spaces.supernet_options import supernet_options
from msgdas.subgraph import SubGraph, cut
from msgdas.supernet import all_choices, choices

__all__ = [
    "Contender",
    "Plain",
    "Setting",
    "batch",
    "default_contenders",
    "genotype_of",
    "naive",
    "plain_networks",
    "rewound",
    "search_of",
    "supernet",
]

LR = 1e-3  # of the weights; small, so that no loss diverges on random labels
CLASSES = 10


@dataclass(frozen=True)
class Setting:
    """What all contenders share."""

    space: str
    channels: int
    cells: int
    image_size: int = 32
    batch_size: int = 64
    device: str = "cpu"
    threads: int = 1
    seed: int = 0
    native: bool = False  # with compiled kernels


@dataclass(frozen=True)
class Contender:
    """One line of a benchmark: a method with options.

    Like a plain network it has no warm-up and no DropBlock, unless its options say otherwise.

    Attributes:
        text: its name in tables.
        name: one of `METHODS`, or ``"naive"``: `naive` on a super-net that is not sped up.
        options: arguments of the method's function, fields of `Method` and fields of `Execution`, by name.
    """

    text: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


def default_contenders(setting: Setting) -> list[Contender]:
    """MSG-DAS with every K that the space's smallest choice allows, and the methods it builds on."""
    smallest = min(len(same[0].labels) for same in choices(supernet(setting)).values())
    ours = [Contender(f"msgdas:k={k}", "msgdas", {"k": k}) for k in range(1, smallest + 1)]
    return [*ours, *(Contender(name, name) for name in ("gdas", "proxylessnas", "darts", "darts-2nd"))]


def naive() -> Method:
    """First-order DARTS as public code runs it: the alpha step also computes all weight gradients, and SGD is PyTorch's
    default implementation."""
    optimizer = partial(PyTorchSGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return replace(darts(), hypergradient=_all_gradients, weight_optimizer=optimizer)


def _all_gradients(step: AlphaStep) -> None:
    leaves, push = cut(step.subgraphs)
    mean_backward(step.places, leaves, step.objective, weights=list(step.net.parameters()), scale=step.scale)
    push()
    step.net.zero_grad(set_to_none=True)


def supernet(setting: Setting, **options: Any) -> nn.Module:
    """A super-net of the setting, sped up, in training mode."""
    net = _plain_supernet(setting, **options)
    speed_up(net)
    return net.to(memory_format=layout(setting.device))


def _plain_supernet(setting: Setting, **options: Any) -> nn.Module:
    net = find_space(setting.space).supernet(
        channels=setting.channels,
        cells=setting.cells,
        classes=CLASSES,
        in_channels=3,
        image_size=setting.image_size,
        **options,
    )
    return net.to(setting.device).train()


def search_of(contender: Contender, setting: Setting, net: nn.Module | None = None) -> Search:
    """A search on ``net``, or on a super-net of its own where the method asks for one. Its alphas do not move, so that
    every step draws from the same distribution.

    Raises:
        InputError: the method is unknown, or the space refuses what it asks for.
    """
    name, options = contender.name, contender.options
    if name == "naive":
        net, function = _plain_supernet(setting), naive
    elif name in METHODS:
        own = supernet_options(find_space(setting.space), name, METHODS[name]().supernet)
        net = supernet(setting, **own) if own or net is None else net
        function = METHODS[name]
    else:
        raise InputError(f"method {name!r} is not known: use {', '.join(METHODS)}")
    arguments = {option: value for option, value in options.items() if option in signature(function).parameters}
    execution = {f.name: options[f.name] for f in fields(Execution) if f.name in options}
    common = {"warmup": 0.0, "drop": 0.0, "alpha_lr": 0.0, "weight_lr": LR}
    rest = {option: value for option, value in options.items() if option not in arguments | execution}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what K = O compares does not matter here
        return Search(
            net,
            replace(function(**arguments), **(common | rest)),
            execution=Execution(**execution),  # sets no memory format: network and batches have theirs
            steps=1000,
            seed=setting.seed,
        )


def batch(setting: Setting, contender: Contender | None = None) -> Batch:
    """Random images and labels, in the contender's memory format."""
    size, side = setting.batch_size, setting.image_size
    x = torch.randn(size, 3, side, side, device=setting.device)
    naively = contender is not None and contender.name == "naive"
    x = x.contiguous(memory_format=torch.contiguous_format if naively else layout(setting.device))
    return x, torch.randint(CLASSES, (size,), device=setting.device)


class Plain:
    """Plain training of the network of one sub-graph, sped up as the super-net is.

    Args:
        net: the super-net; its weights are copied.
        kept: the sub-graph.
        pytorch: do not speed it up: train with PyTorch's own operations.
    """

    def __init__(self, net: nn.Module, kept: Genotype, *, pytorch: bool = False) -> None:
        self.net = discretize(net, kept).train()
        if pytorch:
            slow_down(self.net)
        else:
            speed_up(self.net)  # the modules that `discretize` has added
        self.forward: Callable[..., Tensor] = self.net
        self.optimizer = SGD()(self.net.parameters())
        for group in self.optimizer.param_groups:
            group["lr"] = LR

    def step(self, train: Batch) -> None:
        """Forward, backward, clip, fused SGD; the loss is read, as any loop does."""
        x, labels = train
        loss = F.cross_entropy(self.forward(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss.item()


def plain_networks(search: Search, sampler: Sampler | None, base: nn.Module) -> tuple[nn.Module, list[Genotype]]:
    """The super-net and the sub-graphs that the next step with ``sampler`` will draw.

    For methods that run several operations at a choice, ``base`` (a super-net without options) and one random sub-graph
    of it.
    """
    with rewound(search), torch.no_grad():
        drawn = search.draw(sampler)
        operations = {name for name, same in all_choices(search.net).items() if isinstance(same[0], MixedOp)}
        net, labels = search.net, search.alphas.labels
        if any(len(gate.active) > 1 for one in drawn for name, gate in one.items() if name in operations):
            alphas = Alphas.of(base, init=0.0)
            net, labels = base, alphas.labels
            drawn = SinglePath()(alphas, generator=search.generator)
    return net, [genotype_of(net, labels, subgraph) for subgraph in drawn]


def genotype_of(net: nn.Module, labels: Mapping[str, tuple[str, ...]], subgraph: SubGraph) -> Genotype:
    """The genotype of a sub-graph. Nodes whose inputs are not searched keep all of them."""
    kept = {name: tuple(labels[name][i] for i in gate.active) for name, gate in subgraph.items()}
    to_genotype = getattr(net, "genotype", None)
    return to_genotype(kept) if to_genotype else Genotype(getattr(net, "space", "custom"), kept)


@contextmanager
def rewound(search: Search) -> Iterator[None]:
    """Restore the generator of the search on exit, so that it draws the same sub-graphs again."""
    state = search.generator.get_state()
    try:
        yield
    finally:
        search.generator.set_state(state)
