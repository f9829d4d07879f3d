"""Measure time and memory of search steps against the library's targets.

    python benchmarks/memory_and_speed.py --channels 8 --cells 1 --batch 64 --rounds 20

Each row is a median with quartiles: of the time ratios within rounds, or of the memory ratios over processes. The
leading number is the target's. Ratios "/ plain" are to ordinary training of the same sub-graphs' networks, sped up as
the super-net is; "/ PyTorch's" of PyTorch's own operations. "naive" is the super-net as public code runs it
(`msgdas.bench.setups.naive`). Times are of a process that keeps freed memory, as the command line does; memory is of
processes that do not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from msgdas.bench import memory, speed
from msgdas.bench.rows import Earlier, Row, to_table, write_rows
from msgdas.bench.setups import Contender, Setting, supernet
from msgdas.bench.speed import Round
from msgdas.errors import InputError
from msgdas.fast.memory import keep_freed_memory
from msgdas.fast.native import use_native
from msgdas.supernet import choices

KS = (1, 2, 3, 4)
TIMES = [
    *(Contender(name, name) for name in ("random", "gdas", "darts", "naive", "darts-2nd")),
    *(Contender(f"k{k}", "msgdas", {"k": k}) for k in KS),
    *(Contender(f"k{k} taught", "msgdas", {"k": k, "guidance": 1.0, "hypergradient": None}) for k in KS),
]
PICKED = {"k": 4, "guidance": 1.0, "gradient": "picked"}  # for target 4: the same paths, four or one per step
MEMORY = {
    "plain": memory.PLAIN,
    "gdas": Contender("gdas", "gdas"),
    "k1-probed": Contender("k1-probed", "msgdas", {"k": 1, "guidance": 1.0}),
    "k1-picked": Contender("k1-picked", "msgdas", PICKED | {"one_by_one": True}),
    "k4-picked": Contender("k4-picked", "msgdas", PICKED),
    **{f"k{k}": Contender(f"k{k}", "msgdas", {"k": k, "guidance": 1.0}) for k in KS[1:]},
    "multi-path": Contender("multi-path", "darts"),
    "second-order": Contender("second-order", "darts-2nd"),
    "naive": Contender("naive", "naive"),
}
PAIRS: dict[tuple[str, str], tuple[str, float | None]] = {  # memory ratios: number and value of the target
    ("k4-picked", "k1-picked"): ("4", 1.03),
    ("k4", "naive"): ("4", 0.25),
    ("k4", "multi-path"): ("-", None),
    ("multi-path", "naive"): ("5", 0.60),
    ("second-order", "multi-path"): ("6", 1.1),
} | {(name, "plain"): ("-", None) for name in MEMORY if name != "plain"}
RESULTS = Path(__file__).parent / "results" / "memory_and_speed.csv"


def time_rows(setting: Setting, rounds: int, clock: str) -> Iterator[Row]:
    """Ratios of step times to plain training."""
    candidates = max(len(same[0].labels) for same in choices(supernet(setting)).values())
    measured = partial(speed.measure, rounds=rounds, clock=clock, pytorch=True)
    (tiny,) = measured(replace(setting, batch_size=2), TIMES[:1], repeat=15).values()  # too short to time just one
    times = measured(setting, TIMES)
    yield from _to_plain("1 one-path weight step", times["random"], "weight", 1.03)
    yield from _to_plain("1 same at batch 2", tiny, "weight", 1.05)
    yield from _to_plain("2 alpha step, picked", times["gdas"], "alpha", 0.70)
    for k in KS:
        of, ours = f"K = {k}", times[f"k{k}"]
        yield from _to_plain(f"3 weight step, {of}", ours, "weight", 1.03)
        yield from _to_plain(f"3 same + teacher, {of}", times[f"k{k} taught"], "weight", (k + 1.1) / k)
        if k == 1:
            yield from _to_plain(f"7 alpha probed, {of}", ours, "alpha", 0.70 + 0.25 * (candidates - 1))
        else:
            yield from _to_plain(f"3b alpha compare, {of}", ours, "alpha", 0.35)
    yield from _across(times)
    yield from _to_plain("- GDAS weight step", times["gdas"], "weight")
    yield from _to_plain("- multi-path weight", times["darts"], "weight")
    yield from _to_plain("- multi-path alpha", times["darts"], "alpha")
    plain = [one.plain / one.pytorch for rounds in times.values() for one in rounds if one.pytorch]
    yield Row("- plain / PyTorch's", plain)


def _to_plain(name: str, rounds: Sequence[Round], what: str, target: float | None = None) -> Iterator[Row]:
    """Ratios to K plain steps, of networks of our operations and of PyTorch's."""
    yield Row(f"{name} / plain", [one.ratios()[what] for one in rounds], target=target)
    yield Row(f"{name} / PyTorch's", [one.ratios_to_pytorch()[what] for one in rounds], target=target)


def _across(times: Mapping[str, Sequence[Round]]) -> Iterator[Row]:
    """Ratios within the rounds: one method to another, and the two steps of one method."""
    against = [ours.step / naive.step for ours, naive in zip(times["darts"], times["naive"], strict=True)]
    yield Row("5 multi-path weight + alpha / naive", against, target=0.45)
    second = [(one.alpha or 0.0) / one.weight for one in times["darts-2nd"]]
    yield Row("6 darts-2nd alpha / own weight", second, target=3.6)


def memory_rows(setting: Setting, names: Sequence[str], repeats: int) -> Iterator[Row]:
    """Peak memory of each configuration (MiB), and their ratios."""
    mib = memory.measure(setting, [MEMORY[name] for name in names], repeats=repeats)
    for name, values in mib.items():
        yield Row(f"- memory {name}", values, "MiB")
    for (name, base), (number, target) in PAIRS.items():
        if name in mib and base in mib:
            ratios = [a / b for a, b in zip(mib[name], mib[base], strict=True)]
            yield Row(f"{number} memory {name} / {base}", ratios, target=target)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print. Returns 1 if a ratio has grown since ``--compare``, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="nasbench201", help="with four or more candidates per choice")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20, help="of timing; 0: memory only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=speed.CLOCKS, default="wall", help="cpu: process time, for a busy machine")
    parser.add_argument("--native", action="store_true", help="use the compiled kernels")
    parser.add_argument(
        "--memory", nargs="*", choices=MEMORY, default=list(MEMORY), help="configurations to measure memory of"
    )
    parser.add_argument("--memory-repeats", type=int, default=3, help="processes per configuration")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--compare", type=Path, help="earlier result; exit code 1 if a ratio has grown")
    args = parser.parse_args(arguments)
    setting = Setting(
        args.space,
        args.channels,
        args.cells,
        args.image_size,
        args.batch,
        args.device,
        args.threads,
        native=args.native,
    )
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    where = speed.where(setting, args.clock)
    console = Console(width=80, highlight=False)
    try:
        use_native(args.native)
        earlier = Earlier.read(args.compare, where) if args.compare else None
        times = time_rows(setting, args.rounds, args.clock) if args.rounds else ()
        rows = [*times, *memory_rows(setting, args.memory, args.memory_repeats)]
        write_rows(args.out, rows, where)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    size = f"C={setting.channels} N={setting.cells}, batch {setting.batch_size}"
    title = f"{setting.space} {size}, {setting.device}, threads {setting.threads}, {args.clock}"
    console.print(to_table(rows, title))
    return 0 if earlier is None or earlier.tell(rows, console) else 1


if __name__ == "__main__":
    sys.exit(main())
