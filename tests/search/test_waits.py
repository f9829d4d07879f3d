"""The host waits for the device when it draws and when a step is over, and at no other time.

A GPU is not needed: on the device "meta" tensors have no numbers, so that whatever reads one is found out.
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.optim import SGD, Adam
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from msgdas.bench.setups import Contender, Setting, batch, search_of, supernet

PACKAGE = f"{os.sep}msgdas{os.sep}"
SETTING = Setting("nasbench201", 4, 1, batch_size=4, image_size=8, device="meta")
FOR_SHAPES = {"nonzero", "_unique2", "unique_dim", "masked_select", "repeat_interleave"}  # known on the device alone
MAKERS = torch.tensor, torch.as_tensor, torch.Tensor.new_tensor
CASES = [
    *((Contender(f"k={k}", "msgdas", {"k": k, "guidance": 1.0}), 2) for k in (1, 2, 3)),
    (Contender("supernet", "msgdas", {"k": 3, "guidance": 1.0, "supernet_weight": 1.0}), 2),
    (Contender("ranked", "msgdas", {"k": 3, "gradient": "ranked"}), 2),
    (Contender("exchange", "msgdas", {"k": 3, "gradient": "exchange"}), 2),
    (Contender("picked", "msgdas", {"k": 3, "gradient": "picked"}), 2),
    *((Contender(name, name), 2) for name in ("gdas", "proxylessnas", "random")),
    *((Contender(name, name), 1) for name in ("darts", "darts-2nd", "r-darts", "pc-darts")),
    (Contender("snas", "snas"), 2),  # the end of the weights' half and that of the alphas'
    (Contender("drnas", "drnas"), 4),  # torch draws a Dirichlet on the host: there, back, and the gradients too
]


def here():
    """The line of the library's code that is running."""
    lines = [frame for frame in traceback.extract_stack() if PACKAGE in frame.filename]
    return f"{lines[-1].filename.split(PACKAGE)[-1]}:{lines[-1].lineno}" if lines else "?"


class Seen(TorchDispatchMode):
    """What a step does: its operations with their shapes, and what a host would wait for; it goes on with zeros."""

    def __init__(self):
        super().__init__()
        self.waits, self.operations = Counter(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors}
        self.operations.append((name, *(tensor.shape for tensor in tensors)))
        to = torch.device(kwargs["device"]).type if kwargs.get("device") else None  # none: a cast, where it is
        if name == "_local_scalar_dense" and "meta" in devices:
            self.waits["read", here()] += 1
            return 0
        if name == "_to_copy" and devices == {"meta"} and to == "cpu":
            self.waits["read", here()] += 1
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if name == "_to_copy" and devices == {"cpu"} and to == "meta" and not kwargs.get("non_blocking"):
            self.waits["written", here()] += 1
        if name in FOR_SHAPES and "meta" in devices:
            self.waits[name, here()] += 1
        return func(*args, **kwargs)


class Made(TorchFunctionMode):
    """Counts tensors that are made on a device of numbers of Python's."""

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func in MAKERS and made.device.type == "meta":
            self.waits["made", here()] += 1
        return made


def seen(step):
    found = Seen()
    with found, Made(found.waits):
        step()
    return found


def a_search(contender, setting=SETTING):
    search = search_of(contender, setting, supernet(setting))
    search.weight_optimizer = SGD(search.net.parameters(), lr=0.1, momentum=0.9)  # there are no fused ones for "meta"
    search.alpha_optimizer = Adam(search.alphas.parameters())
    return search


@pytest.mark.parametrize(("contender", "most"), CASES, ids=lambda case: getattr(case, "text", ""))
def test_a_step_waits_for_its_draw_and_for_its_end(contender, most):
    search, train, valid = a_search(contender), batch(SETTING), batch(SETTING)
    steps = [lambda: search.step(train, None)]
    if search.method.learning == "alternate":
        steps.append(lambda: search.alpha_step(train, valid))
    for step in steps:
        waits = seen(step).waits
        assert waits.total() <= most, waits


@pytest.mark.parametrize("name", ["darts", "darts-2nd"])
@pytest.mark.parametrize("space", ["nasbench201", pytest.param("darts", marks=pytest.mark.slow)])
def test_a_step_of_all_candidates_repeats_itself(name, space):
    """What a CUDA graph needs: the same operations on the same shapes, whatever the numbers are, up to the end."""
    setting = replace(SETTING, space=space, cells=3 if space == "darts" else 1)
    search, train, valid = a_search(Contender(name, name), setting), batch(setting), batch(setting)
    for step in (lambda: search.step(train, None), lambda: search.alpha_step(train, valid)):
        seen(step)  # its optimizer makes what it keeps
        first, again = seen(step), seen(step)
        assert first.waits.total() == 1, first.waits
        assert again.operations == first.operations


def test_what_the_host_would_wait_for_is_seen():
    x = torch.ones(3, device="meta")
    assert seen(lambda: x.sum().item()).waits.total() == 1
    assert seen(lambda: x.tolist()).waits.total() >= 1
    assert seen(lambda: torch.ones(3).to("meta")).waits.total() == 1
    assert seen(lambda: torch.ones(3).to("meta", non_blocking=True)).waits.total() == 0
    assert seen(lambda: torch.tensor([1.0], device="meta")).waits.total() == 1
    assert seen(lambda: x.double()).waits.total() == 0
