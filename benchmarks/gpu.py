"""Measure what a search costs on a GPU: step times, kernel launches, memory, and a whole search on CIFAR-10.

    python benchmarks/gpu.py --out benchmarks/results/gpu.csv

All images are random, 32 × 32 pixels. Times are medians over rounds; in each round every configuration runs in turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from msgdas.bench import memory, setups, speed
from msgdas.bench.rows import Row, write_rows
from msgdas.bench.setups import Contender, Plain, Setting
from msgdas.errors import InputError
from msgdas.search.gradients import mean_backward
from msgdas.search.search import Search
from msgdas.subgraph import cut

RESULTS = Path(__file__).parent / "results" / "gpu.csv"
SIZES = (("nasbench201", 16, 5), ("darts", 16, 8))
CONTENDERS = (
    *(Contender(f"msgdas:k={k}", "msgdas", {"k": k}) for k in (1, 2, 3, 4)),
    *(Contender(name, name) for name in ("gdas", "proxylessnas", "darts")),
)
EPOCHS, WARMUP, IMAGES = 50, 0.6, 25_000  # the whole search: on each half of CIFAR-10's training part
PARTS = ("ratios", "launches", "graphs", "whole", "profile")
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx")


@dataclass(frozen=True)
class Whole:
    """A configuration of the whole search: MSG-DAS with a precision and a memory format."""

    k: int = 3
    precision: str = "bfloat16"
    layout: torch.memory_format = torch.contiguous_format

    @property
    def text(self) -> str:
        return f"k={self.k} {self.precision} {str(self.layout).removeprefix('torch.')}"


class Subject:
    """A search on the GPU, and its steps."""

    def __init__(
        self, setting: Setting, contender: Contender, layout: torch.memory_format = torch.contiguous_format
    ) -> None:
        net = setups.supernet(setting).to(memory_format=layout)
        self.search: Search = setups.search_of(contender, setting, net)
        self.train, self.valid = (
            (x.contiguous(memory_format=layout), y) for x, y in [setups.batch(setting), setups.batch(setting)]
        )

    def weight(self) -> None:
        self.search.step(self.train, None)
        self.search.done = 0

    def alpha(self) -> None:
        self.search.alpha_step(self.train, self.valid)


def plain_step(setting: Setting) -> Callable[[], None]:
    """A training step of a random sub-graph's network."""
    search = setups.search_of(Contender("random", "random"), setting)
    net, (kept,) = setups.plain_networks(search, search.method.sampler, search.net)
    plain, batch = Plain(net, kept), setups.batch(setting)
    return lambda: plain.step(batch)


def timed(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each step per round, after three warm-up rounds."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-3, rounds):
        for name, step in steps.items():
            torch.cuda.synchronize()
            start = perf_counter()
            step()
            torch.cuda.synchronize()
            if turn >= 0:
                found[name].append(1e3 * (perf_counter() - start))
    return found


@dataclass(frozen=True)
class Profile:
    """Averages per step: kernels launched, waits of the host for the device, milliseconds the device was busy."""

    launches: float
    waits: float
    busy: float
    table: str


def profiled(step: Callable[[], None], steps: int = 5) -> Profile:
    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    events = seen.key_averages()
    launches = sum(e.count for e in events if e.key in LAUNCHES)
    waits = sum(e.count for e in events if e.key in ("cudaStreamSynchronize", "cudaDeviceSynchronize")) - 1
    busy = sum(e.self_device_time_total for e in events if e.device_type.name == "CUDA") / 1e3
    shown = "\n".join(
        f"{e.self_device_time_total / 1e3 / steps:9.3f} ms device {e.self_cpu_time_total / 1e3 / steps:9.3f} ms host "
        f"{e.count / steps:7.1f} x {e.key[:90]}"
        for e in sorted(events, key=lambda e: -max(e.self_device_time_total, e.self_cpu_time_total))[:24]
    )
    return Profile(launches / steps, waits / steps, busy / steps, shown)


def ratios(setting: Setting, rounds: int, console: Console) -> Iterator[Row]:
    """Ratios of every method to plain training of its sub-graphs."""
    times = speed.measure(setting, CONTENDERS, rounds=rounds)
    used = {each.text: [memory.peak(setting, each)] for each in (memory.PLAIN, *CONTENDERS)}
    rows = speed.to_rows(times, used, setting)
    console.print(speed.to_table(rows, list(times), setting), width=80)
    for row in rows:
        yield replace(row, name=f"{setting.space} {row.name}")


def launches(setting: Setting, console: Console) -> Iterator[Row]:
    """Kernels launched per step."""
    subjects = {each.text: Subject(setting, each) for each in CONTENDERS[:3]}
    steps = {"plain": plain_step(setting)} | {f"{t} weight": s.weight for t, s in subjects.items()}
    steps |= {f"{t} alpha": s.alpha for t, s in subjects.items()}
    table = Table(
        "step", "launches", "waits", "ms busy", title=f"{setting.space}, batch {setting.batch_size}", box=None
    )
    for name, step in steps.items():
        seen = profiled(step)
        table.add_row(name, f"{seen.launches:.0f}", f"{seen.waits:.0f}", f"{seen.busy:.2f}")
        yield Row(f"{setting.space} {name} launches", [seen.launches], "kernels")
        yield Row(f"{setting.space} {name} waits", [seen.waits], "waits")
        yield Row(f"{setting.space} {name} busy", [seen.busy], "ms")
    console.print(table)


def graphs(setting: Setting, rounds: int, console: Console) -> Iterator[Row]:
    """Forward and backward of DARTS, kernel by kernel and replayed as a CUDA graph.

    tests/search/test_waits.py shows without a GPU that nothing in them waits for the device or reads a number.
    """
    subject = Subject(setting, Contender("darts", "darts"))
    net, (x, labels) = subject.search.net, subject.train
    weights = [p for p in net.parameters() if p.requires_grad]
    leaves, _ = cut(subject.search.draw())

    def work() -> None:
        for weight in weights:
            weight.grad = None
        mean_backward(net, leaves, lambda: F.cross_entropy(net(x), labels))

    side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        work()
    kept = [weight.grad for weight in weights]  # each replay writes here
    work()
    wanted = [weight.grad for weight in weights]
    graph.replay()
    pairs = [(a, b) for a, b in zip(kept, wanted, strict=True) if a is not None and b is not None]
    off = max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in pairs)
    took = timed({"one by one": work, "graph": graph.replay}, rounds)
    ratios = [a / b for a, b in zip(took["graph"], took["one by one"], strict=True)]
    console.print(f"{setting.space}: DARTS's forward and backward as a CUDA graph: {median(ratios):.2f} of the time")
    console.print(f"gradients differ by {off:.1e} of the largest of each weight's")
    yield Row(f"{setting.space} darts graph / one by one", ratios, "ratio")
    yield Row(f"{setting.space} darts graph gradients off", [off], "ratio")


def whole(setting: Setting, configurations: Sequence[Whole], rounds: int, console: Console) -> Iterator[Row]:
    """Steps of MSG-DAS, and the time of a search of 50 epochs that follows from them."""
    table = Table("", "weight ms", "alpha ms", "MiB", f"{EPOCHS} epochs", box=None)
    table.title = f"{setting.space}, batch {setting.batch_size}: MSG-DAS on CIFAR-10"
    per_epoch = IMAGES // setting.batch_size
    for one in configurations:
        contender = Contender(one.text, "msgdas", {"k": one.k, "precision": one.precision})
        subject = Subject(setting, contender, one.layout)
        torch.cuda.reset_peak_memory_stats()
        took = timed({"weight": subject.weight, "alpha": subject.alpha}, rounds)
        mib = torch.cuda.max_memory_allocated() / memory.MIB
        mean = {name: median(ms) for name, ms in took.items()}
        minutes = EPOCHS * per_epoch * (mean["weight"] + (1 - WARMUP) * mean["alpha"]) / 6e4
        table.add_row(one.text, f"{mean['weight']:.1f}", f"{mean['alpha']:.1f}", f"{mib:.0f}", f"{minutes:.1f} min")
        name = f"{setting.space} batch {setting.batch_size} {one.text}"
        yield Row(f"{name} weight", took["weight"], "ms")
        yield Row(f"{name} alpha", took["alpha"], "ms")
        yield Row(f"{name} memory", [mib], "MiB")
        yield Row(f"{name} {EPOCHS} epochs", [minutes], "min")
        del subject
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print. Returns 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write("benchmarks/gpu.py needs a GPU and CUDA: torch.cuda.is_available() is False here\n")
        return 2
    console, rows = Console(width=80, highlight=False), list[Row]()
    settings = [Setting(space, channels, cells, device="cuda") for space, channels, cells in SIZES]
    try:
        for setting in settings:
            large = replace(setting, batch_size=256)
            if "ratios" in args.parts:
                rows += ratios(setting, args.rounds, console)
            if "launches" in args.parts:
                rows += launches(setting, console)
            if "graphs" in args.parts:
                rows += graphs(setting, args.rounds, console)
            if "whole" in args.parts:
                layouts = (torch.channels_last, torch.contiguous_format)
                ways = [Whole(3, p, layout) for p in ("float32", "bfloat16") for layout in layouts]
                rows += whole(large, [*ways, Whole(1), Whole(2)], args.rounds, console)
            if "profile" in args.parts:
                subject = Subject(large, Contender("k=3", "msgdas", {"k": 3, "precision": "bfloat16"}))
                for name, step in {"weight": subject.weight, "alpha": subject.alpha}.items():
                    console.print(f"\n{setting.space}, batch 256, K = 3, bfloat16, {name} step, mean of 5:")
                    sys.stdout.write(profiled(step).table + "\n")
            write_rows(args.out, rows, speed.where(settings[0], "wall"))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
