"""Compare search steps with the public code of DARTS and GDAS.

    python benchmarks/peers.py --darts DIR --autodl DIR --batch 64 --rounds 15 --clock cpu

``--darts`` is a checkout of github.com/quark0/darts, ``--autodl`` one of github.com/D-X-Y/AutoDL-Projects; give one or
both. Their networks, operations and architect are imported unchanged, contiguous and with PyTorch's default optimizers,
and take the steps of their training scripts. Logging and accuracies are left out on their side, not on ours. Without a
GPU their ``.cuda()`` does nothing. GDAS runs the same random path on both sides, a new one each round. "added" is our
alpha step with the gradient of their code (`msgdas.search.gradients.added`).

A row is the median, with quartiles, of ours / theirs within the rounds; the leading number is the target's. The
committed results are against quark0/darts f276dd3 and D-X-Y/AutoDL-Projects f46486e.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from msgdas.bench import speed
from msgdas.bench.rows import Row, machine, to_table, write_rows
from msgdas.bench.setups import CLASSES, LR, Contender, Setting, batch, search_of
from msgdas.errors import InputError
from msgdas.fast.memory import keep_freed_memory
from msgdas.fast.native import use_native
from msgdas.search.search import Batch, Search
from msgdas.spaces.nasbench201 import EDGES, OPERATIONS

CLIP, MOMENTUM = 5.0, 0.9
SURE = 100.0  # a logit that no noise overcomes
RESULTS = Path(__file__).parent / "results" / "peers.csv"


@dataclass(frozen=True)
class Steps:
    """One search, on fixed batches.

    Attributes:
        weight, alpha: take the step.
        path: set the candidates ``(6,)`` of the edges of NAS-Bench-201 for the next steps.
    """

    weight: Callable[[], None]
    alpha: Callable[[], None]
    path: Callable[[Tensor], None] = lambda picks: None


# ---------------------------------------------------------------------------- ours


def ours(setting: Setting, name: str, **options: Any) -> Steps:
    """The steps of a method of `msgdas.methods`."""
    search = search_of(Contender(name, name, options), setting)
    train, valid = batch(setting), batch(setting)

    def weight() -> None:
        search.step(train, None)
        search.done = 0

    return Steps(weight, lambda: search.alpha_step(train, valid), lambda picks: insist(search, picks))


@torch.no_grad()
def insist(search: Search, picks: Tensor) -> None:
    """Set the alphas so that they draw the candidates ``(6,)`` of NAS-Bench-201; do nothing in other spaces."""
    for (source, target), pick in zip(EDGES, picks.tolist(), strict=True):
        name = f"cell/{source}-{target}"
        if name in search.alphas.names:
            search.alphas[name].zero_()[pick] = SURE


# -------------------------------------------------------------------------- theirs


def official(option: str, checkout: Path, repository: str, inside: str, names: Mapping[str, str]) -> list[Any]:
    """Import an attribute from each module of a checkout; ``inside`` is the folder of its modules.

    Raises:
        InputError: not such a checkout.
    """
    given = f"{option} '{checkout}'"
    if not checkout.is_dir():
        raise InputError(f"{given} is no folder: give a checkout of github.com/{repository}")
    for module in names:
        file = Path(inside, *module.split(".")).with_suffix(".py")
        if not (checkout / file).is_file():
            raise InputError(f"{given} has no {file}: give a checkout of github.com/{repository}")
    sys.path.insert(0, str(checkout.resolve() / inside))
    try:
        return [getattr(importlib.import_module(module), name) for module, name in names.items()]
    except Exception as error:  # whatever its code raises
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{given} cannot be imported ({what}): give a checkout of github.com/{repository}") from error
    finally:
        sys.path.pop(0)


def darts_network(checkout: Path) -> Callable[[Setting, bool], Steps]:
    """A function that makes the steps of DARTS's public code from a setting and the order."""
    modules = {"model_search": "Network", "architect": "Architect"}
    network, architect = official("--darts", checkout, "quark0/darts", "cnn", modules)

    def make(setting: Setting, second_order: bool) -> Steps:
        net = network(setting.channels, CLASSES, setting.cells, nn.CrossEntropyLoss()).train()
        settings = {"momentum": MOMENTUM, "weight_decay": 3e-4, "arch_learning_rate": 0.0, "arch_weight_decay": 1e-3}
        of_alphas = architect(net, SimpleNamespace(**settings))
        of_weights = torch.optim.SGD(net.parameters(), LR, momentum=MOMENTUM, weight_decay=3e-4)
        train, valid = contiguous(setting), contiguous(setting)
        return Steps(
            lambda: weight_step(net, net, of_weights, train),
            lambda: of_alphas.step(*train, *valid, LR, of_weights, unrolled=second_order),
        )

    return make


def gdas_network(checkout: Path) -> Callable[[Setting], Steps]:
    """A function that makes the steps of GDAS's public code from a setting."""
    modules = {"xautodl.models.cell_searchs.search_model_gdas": "TinyNetworkGDAS"}
    (network,) = official("--autodl", checkout, "D-X-Y/AutoDL-Projects", "", modules)

    def make(setting: Setting) -> Steps:
        net = network(setting.channels, setting.cells, 4, CLASSES, list(OPERATIONS), False, False).train()
        of_weights = torch.optim.SGD(net.get_weights(), LR, momentum=MOMENTUM, weight_decay=5e-4, nesterov=True)
        of_alphas = torch.optim.Adam(net.get_alphas(), lr=0.0, betas=(0.5, 0.999), weight_decay=1e-3)
        train, valid = contiguous(setting), contiguous(setting)
        row_of = [net.edge2index[f"{target}<-{source}"] for source, target in EDGES]

        def logits(x: Tensor) -> Tensor:
            return net(x)[1]

        def alpha() -> None:
            of_alphas.zero_grad()
            loss = F.cross_entropy(logits(valid[0]), valid[1])
            loss.backward()  # type: ignore[no-untyped-call]
            of_alphas.step()
            loss.item()

        def path(picks: Tensor) -> None:
            with torch.no_grad():
                net.arch_parameters.zero_()
                net.arch_parameters[row_of, picks] = SURE

        return Steps(lambda: weight_step(net, logits, of_weights, train), alpha, path)

    return make


def weight_step(
    net: nn.Module, logits: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, train: Batch
) -> None:
    """The weight step of both training scripts."""
    x, labels = train
    optimizer.zero_grad()
    loss = F.cross_entropy(logits(x), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(net.parameters(), CLIP)
    optimizer.step()
    loss.item()


def stay(anything: Any, *args: Any, **settings: Any) -> Any:
    """Stand in for ``.cuda()``."""
    return anything


def contiguous(setting: Setting) -> Batch:
    """A random batch in the layout of public code."""
    x, labels = batch(setting)
    return x.contiguous(), labels


# ------------------------------------------------------------------------- measure


def measure(subjects: Mapping[str, Steps], rounds: int, clock: str) -> dict[str, dict[str, list[float]]]:
    """Seconds of ``"weight"``, ``"alpha"`` and both (``"step"``) by subject, per round, after one warm-up round.

    All subjects run the same random path in a round, in an order that changes with the round.
    """
    now, generator = speed.CLOCKS[clock], torch.Generator().manual_seed(0)
    found: dict[str, dict[str, list[float]]] = {name: {"weight": [], "alpha": [], "step": []} for name in subjects}
    for turn in range(-1, rounds):
        picks = torch.randint(len(OPERATIONS), (len(EDGES),), generator=generator)
        for name in speed.in_turn(subjects, turn):
            subject = subjects[name]
            subject.path(picks)
            gc.collect()
            times = [now()]
            for step in (subject.alpha, subject.weight):
                step()
                times.append(now())
            if turn >= 0:
                took = {"alpha": times[1] - times[0], "weight": times[2] - times[1], "step": times[2] - times[0]}
                for what, seconds in took.items():
                    found[name][what].append(seconds)
    return found


def ratio(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Ratios within the rounds."""
    return [x / y for x, y in zip(a, b, strict=True)]


def darts_rows(make: Callable[[Setting, bool], Steps], setting: Setting, rounds: int, clock: str) -> Iterator[Row]:
    """Steps of DARTS over those of its public code (target 9)."""
    for name, order, target in (("darts", "first", 1 / 2.2), ("darts-2nd", "second", None)):
        subjects = {"ours": ours(setting, name), "official": make(setting, order == "second")}
        times = measure(subjects, rounds, clock)
        text = f"{order} order, C={setting.channels}"
        step = ratio(times["ours"]["step"], times["official"]["step"])
        yield Row(f"{'9' if target else '-'} DARTS {text}: search step", step, target=target)
        for what in ("weight", "alpha"):
            yield Row(f"- DARTS {text}: {what} step", ratio(times["ours"][what], times["official"][what]))


def gdas_rows(make: Callable[[Setting], Steps], setting: Setting, rounds: int, clock: str) -> Iterator[Row]:
    """Steps of GDAS over those of its public code (target 10, for N = 1)."""
    subjects = {"ours": ours(setting, "gdas"), "added": ours(setting, "gdas", gradient="added")}
    times = measure(subjects | {"official": make(setting)}, rounds, clock)
    text = f"GDAS C={setting.channels} N={setting.cells}"
    number, weight, alpha = ("10", 1 / 2.0, 1 / 3.0) if setting.cells == 1 else ("-", None, None)
    base = times["official"]
    yield Row(f"{number} {text}: weight step", ratio(times["ours"]["weight"], base["weight"]), target=weight)
    yield Row(f"{number} {text}: alpha step", ratio(times["ours"]["alpha"], base["alpha"]), target=alpha)
    yield Row(f"- {text}: alpha step, added", ratio(times["added"]["alpha"], base["alpha"]))
    yield Row(f"- {text}: search step", ratio(times["ours"]["step"], base["step"]))


def all_rows(args: argparse.Namespace) -> Iterator[Row]:
    """The rows of every checkout given. Checkouts are imported before anything is measured."""
    if args.darts is None and args.autodl is None:
        raise InputError("nothing to compare with: give --darts DIR, --autodl DIR, or both")
    darts = None if args.darts is None else darts_network(args.darts)
    gdas = None if args.autodl is None else gdas_network(args.autodl)
    if darts is not None:
        yield from darts_rows(darts, Setting("darts", 8, 5, batch_size=args.batch), args.rounds, args.clock)
    if gdas is not None:
        for channels, cells in ((8, 1), (16, 5)):
            setting = Setting("nasbench201", channels, cells, batch_size=args.batch)
            yield from gdas_rows(gdas, setting, args.rounds, args.clock)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print. Returns 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--darts", type=Path, metavar="DIR", help="checkout of github.com/quark0/darts")
    parser.add_argument("--autodl", type=Path, metavar="DIR", help="checkout of github.com/D-X-Y/AutoDL-Projects")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=speed.CLOCKS, default="wall", help="cpu: of the process, on a busy machine")
    parser.add_argument("--native", action="store_true", help="ours with compiled kernels")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as the command line does; for both sides
    torch.manual_seed(0)
    sizes = {"threads": args.threads, "clock": args.clock, "batch": args.batch, "image_size": 32}
    where = machine("cpu") | sizes | {"native": args.native}
    try:
        use_native(args.native)
        if min(args.batch, args.rounds, args.threads) < 1:
            raise InputError("--batch, --rounds and --threads must be 1 or more")
        with (
            mock.patch.object(Tensor, "cuda", stay),
            mock.patch.object(nn.Module, "cuda", stay),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", "This overload of")  # their code calls what PyTorch has deprecated since
            rows = list(all_rows(args))
        write_rows(args.out, rows, where)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    Console(width=80, highlight=False).print(to_table(rows, "time of ours / official"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
