"""What a search step costs in memory: a process per configuration.

Main memory: the peak resident set during the steps, less the resident set after imports, building, and the same steps
on two images, which read some 20 MiB of the program's own code from disk. On a GPU: the most that was allocated there
during the steps, less what was before.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch

from msgdas.alphas import Alphas
from msgdas.bench.setups import Method, Plain, Setting, batch, genotype_of, rewound, search_of, supernet
from msgdas.errors import InputError
from msgdas.fast.native import use_native
from msgdas.samplers import Sampler, SinglePath
from msgdas.search.method import Method as SearchMethod
from msgdas.search.search import Batch
from msgdas.subgraph import SubGraph

__all__ = ["PLAIN", "measure", "peak"]

PLAIN = Method("plain", "plain")
PATHS = 24  # single-path sub-graphs that a configuration runs: for any K the largest of as many
STEPS = 6  # of one that runs several candidates at once: there all sub-graphs are alike
MIB = 2**20

Step = Callable[[Batch, Batch], None]


def measure(
    setting: Setting,
    methods: Sequence[Method],
    *,
    repeats: int = 1,
    on_process: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[float]]:
    """MiB of every method, by its text; `PLAIN` is random sub-graphs of the space, as plain networks.

    A method of K sub-graphs with the option ``one_by_one`` runs one of them a step: with K = 1 the very paths of K.

    Args:
        repeats: processes per method, each of another seed.
        on_process: gets the number of processes that have ended, and of all.

    Raises:
        InputError: a process failed.
    """
    found: dict[str, list[float]] = {method.text: [] for method in methods}
    for repeat in range(repeats):
        for method in methods:
            on_process(sum(map(len, found.values())), repeats * len(methods))
            found[method.text].append(_in_a_process(replace(setting, seed=setting.seed + repeat), method))
    return found


def _in_a_process(setting: Setting, method: Method) -> float:
    given = json.dumps({"setting": asdict(setting), "method": asdict(method)})
    environment = os.environ | {"OMP_NUM_THREADS": str(setting.threads)}
    command = [sys.executable, "-m", "msgdas.bench.memory", given]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise InputError(f"memory of {method.text}: {lines[-1] if lines else f'ended with code {done.returncode}'}")
    return float(done.stdout)


def peak(setting: Setting, method: Method) -> float:
    """MiB that the steps of one configuration add; once, in a fresh process."""
    torch.manual_seed(setting.seed)
    steps = _plain_steps(setting) if method == PLAIN else _steps(method, setting)
    before = 0.0
    for size in (2, setting.batch_size):
        train, valid = (batch(replace(setting, batch_size=size), method) for _ in range(2))
        before = _begin(setting.device)
        for step in steps:
            step(train, valid)
    return _peak(setting.device) - before


class _OneByOne:
    """The sub-graphs of a draw, one at a call: the draw is repeated until all of them were handed out."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler, self._next, self._before = sampler, 0, torch.Tensor()

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        generator = generator or torch.default_generator
        if self._next:
            generator.set_state(self._before)
        self._before = generator.get_state()
        drawn = self._sampler(alphas, tau=tau, generator=generator)
        one = drawn[self._next]
        self._next = (self._next + 1) % len(drawn)
        return [one]


def one_by_one_of(method: SearchMethod) -> SearchMethod:
    """The method, complete for its network, with one of its sub-graphs a step."""
    assert method.weight_sampler is not None
    return replace(method, sampler=_OneByOne(method.sampler), weight_sampler=_OneByOne(method.weight_sampler))


def _plain_steps(setting: Setting) -> list[Step]:
    net = supernet(setting)
    alphas, generator = Alphas.of(net, init=0.0), torch.Generator().manual_seed(setting.seed)
    drawn = [SinglePath()(alphas, generator=generator)[0] for _ in range(PATHS)]
    return [_plain_step(Plain(net, genotype_of(net, alphas.labels, subgraph))) for subgraph in drawn]


def _plain_step(plain: Plain) -> Step:
    return lambda train, valid: plain.step(train)


def _steps(method: Method, setting: Setting) -> list[Step]:
    options = dict(method.options)
    one_by_one = options.pop("one_by_one", False)
    search = search_of(replace(method, options=options), setting)

    def step(train: Batch, valid: Batch) -> None:
        search.step(train, valid)
        search.done = 0

    with rewound(search), torch.no_grad():
        drawn = search.draw()
    if any(len(gate.active) > 1 for subgraph in drawn for gate in subgraph.values()):
        return [step] * STEPS
    if one_by_one:
        search.method = one_by_one_of(search.method)
    return [step] * (PATHS if one_by_one else max(1, PATHS // len(drawn)))


def _begin(device: str) -> float:
    """MiB now; from here on the peak counts."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / MIB
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _peak(device: str) -> float:
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    return _resident("VmHWM")


def _resident(field: str) -> float:
    """MiB. Linux hands ru_maxrss of the parent on to a started process, hence /proc where there is one."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(field + ":"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


def main(given: str) -> None:
    """Print the MiB of one configuration."""
    asked = json.loads(given)
    setting = Setting(**asked["setting"])
    torch.set_num_threads(setting.threads)
    use_native(setting.native)
    sys.stdout.write(f"{peak(setting, Method(**asked['method']))}\n")


if __name__ == "__main__":
    main(sys.argv[1])
