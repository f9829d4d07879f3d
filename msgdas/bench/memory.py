"""Peak memory of a search step, measured in a process per configuration.

On a CPU: the peak resident set during the steps, minus the resident set after imports, building the network and the
same steps on two images, which load some 20 MiB of code. On a GPU: the peak of allocated memory during the steps, minus
what was allocated before them.
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
from msgdas.bench.setups import Contender, Plain, Setting, batch, genotype_of, rewound, search_of, supernet
from msgdas.errors import InputError
from msgdas.fast.native import use_native
from msgdas.samplers import Sampler, SinglePath
from msgdas.search.method import Method
from msgdas.search.search import Batch
from msgdas.subgraph import SubGraph

__all__ = ["PLAIN", "measure", "peak"]

PLAIN = Contender("plain", "plain")
PATHS = 24  # single-path sub-graphs that each configuration runs: the peak of the same number for every K
STEPS = 6  # steps of a configuration that runs several candidates at once: its sub-graphs are all alike
MIB = 2**20

Step = Callable[[Batch, Batch], None]


def measure(
    setting: Setting,
    contenders: Sequence[Contender],
    *,
    repeats: int = 1,
    on_process: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[float]]:
    """Peak memory in MiB of every contender, by its text. `PLAIN` trains random sub-graphs of the space as plain
    networks.

    With the option ``one_by_one`` a method of K sub-graphs runs one of them per step: the same paths, one at a time.

    Args:
        repeats: processes per contender, each with another seed.
        on_process: called with the number of finished processes and the number of all.

    Raises:
        InputError: a process failed.
    """
    found: dict[str, list[float]] = {contender.text: [] for contender in contenders}
    for repeat in range(repeats):
        for contender in contenders:
            on_process(sum(map(len, found.values())), repeats * len(contenders))
            found[contender.text].append(_in_a_process(replace(setting, seed=setting.seed + repeat), contender))
    return found


def _in_a_process(setting: Setting, contender: Contender) -> float:
    given = json.dumps({"setting": asdict(setting), "contender": asdict(contender)})
    environment = os.environ | {"OMP_NUM_THREADS": str(setting.threads)}
    command = [sys.executable, "-m", "msgdas.bench.memory", given]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise InputError(f"memory of {contender.text}: {lines[-1] if lines else f'ended with code {done.returncode}'}")
    return float(done.stdout)


def peak(setting: Setting, contender: Contender) -> float:
    """MiB that the steps of one configuration add. Call it once in a fresh process."""
    torch.manual_seed(setting.seed)
    steps = _plain_steps(setting) if contender == PLAIN else _steps(contender, setting)
    before = 0.0
    for size in (2, setting.batch_size):
        train, valid = (batch(replace(setting, batch_size=size), contender) for _ in range(2))
        before = _begin(setting.device)
        for step in steps:
            step(train, valid)
    return _peak(setting.device) - before


class _OneByOne:
    """Hands out the sub-graphs of one draw, one per call: rewinds the generator until all were handed out."""

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


def one_by_one_of(method: Method) -> Method:
    """``method``, already complete for its network, running one of its sub-graphs per step."""
    assert method.weight_sampler is not None
    return replace(method, sampler=_OneByOne(method.sampler), weight_sampler=_OneByOne(method.weight_sampler))


def _plain_steps(setting: Setting) -> list[Step]:
    net = supernet(setting)
    alphas, generator = Alphas.of(net, init=0.0), torch.Generator().manual_seed(setting.seed)
    drawn = [SinglePath()(alphas, generator=generator)[0] for _ in range(PATHS)]
    return [_plain_step(Plain(net, genotype_of(net, alphas.labels, subgraph))) for subgraph in drawn]


def _plain_step(plain: Plain) -> Step:
    return lambda train, valid: plain.step(train)


def _steps(contender: Contender, setting: Setting) -> list[Step]:
    options = dict(contender.options)
    one_by_one = options.pop("one_by_one", False)
    search = search_of(replace(contender, options=options), setting)

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
    """Reset the peak; return MiB in use now."""
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
    """A field of ``/proc/self/status`` in MiB. On Linux a new process inherits the ru_maxrss of its parent, so that is
    only used where there is no /proc."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(field + ":"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


def main(given: str) -> None:
    """Print the peak memory of one configuration in MiB."""
    asked = json.loads(given)
    setting = Setting(**asked["setting"])
    torch.set_num_threads(setting.threads)
    use_native(setting.native)
    sys.stdout.write(f"{peak(setting, Contender(**asked['contender']))}\n")


if __name__ == "__main__":
    main(sys.argv[1])
