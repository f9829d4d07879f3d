"""The compiled kernels compute what PyTorch's operations do."""

from __future__ import annotations

import pytest
import torch
from reference import a_map, alphas_of, fast, searching, threads
from torch import nn

import msgdas.fast.native
from msgdas.cli.main import main
from msgdas.errors import InputError
from msgdas.fast import fused, speed_up
from msgdas.fast.native import _kernels, native, use_native
from msgdas.methods import darts, gdas
from msgdas.ops.conv import depthwise_conv
from msgdas.runs import Run
from msgdas.samplers import Softmax
from msgdas.spaces import darts as darts_space
from msgdas.spaces import nasbench201
from msgdas.supernet import select

pytestmark = pytest.mark.usefixtures("kernels")


def test_mixed_precision_is_left_to_pytorch():
    """The map is float32 and its gradient is not; the kernels read one type."""
    conv, x, found = fast(depthwise_conv(4, 5, dilation=2)), a_map(dtype=torch.float32), []
    for use in (True, False):
        use_native(use, everywhere=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = conv(x).square().sum()
        found.append(torch.autograd.grad(loss, (x, conv.weight)))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("space", [nasbench201, darts_space])
def test_nodes_of_the_spaces_are_one_sum_each(space, monkeypatch):
    """Every candidate's BatchNorm, gate and addition in one pass: no BatchNorm of PyTorch's runs in them."""
    net = space.supernet(channels=4, cells=3, classes=3, image_size=16).to(memory_format=torch.channels_last)
    speed_up(net)
    sizes = []
    monkeypatch.setattr(fused, "_run", lambda *given, of=fused._run: (sizes.append(len(given[2])), of(*given)))
    (subgraph,) = Softmax()(alphas_of(net).float())
    x = torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    with select(net, subgraph), torch.no_grad():
        net(x)
    cells, edges = (9, (1, 2, 3)) if space is nasbench201 else (3, (2, 3, 4, 5))
    candidates = 4 if space is nasbench201 else 7  # that are not none
    for incoming in edges:
        assert sizes.count(incoming * candidates) == cells


@pytest.mark.parametrize("space", [nasbench201, darts_space])
def test_what_lies_between_the_nodes_takes_its_relu_in(space, monkeypatch):
    """The blocks that halve the map, and what brings a cell's inputs to its width."""
    net = space.supernet(channels=8, cells=3, classes=3, image_size=16).to(memory_format=torch.channels_last)
    speed_up(net)
    called, x = [], torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(nn.ReLU, "forward", lambda s, x: called.append(s) or torch.relu(x))
    chains = [
        chain for name, chain in net.named_modules() if name.endswith((".convs.0", ".convs.1", ".before", ".last"))
    ]
    relus = [
        chain[0] for chain in chains if isinstance(chain, nn.Sequential)
    ]  # of a factorised reduction there is none
    (subgraph,) = Softmax()(alphas_of(net).float())
    for use in (True, False):
        use_native(use, everywhere=True)
        called.clear()
        with select(net, subgraph), torch.no_grad():
            net(x)
        assert [relu in called for relu in relus] == [not use] * len(relus)


@pytest.mark.parametrize("method", [darts, gdas])
def test_a_search_repeats_bit_for_bit(method):
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        net = nasbench201.supernet(channels=8, cells=1, image_size=16).to(memory_format=torch.channels_last)
        speed_up(net)
        search = searching(net, method(), warmup=0.0, steps=3)
        x = torch.randn(8, 3, 16, 16).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(8)
        with threads(2):
            for _ in range(3):
                search.step((x, labels), (x, labels))
        found.append(dict(net.state_dict()) | dict(search.alphas.logits))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


# ------------------------------------------------------------------ the compiler


def test_without_a_compiler_they_stay_off(monkeypatch):
    use_native(False)
    monkeypatch.setattr(msgdas.fast.native, "_kernels", _kernels.__wrapped__)  # nothing is loaded yet
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(InputError, match="no-such-compiler"):
        use_native()
    assert not native()


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    """A search and a training use the kernels, and say so in their settings; the next one without does not."""
    used = []
    monkeypatch.setattr(fused, "_run", lambda *given, of=fused._run: (used.append(1), of(*given)))
    small = ["--data=digits", "--epochs=2", "--warmup=1", "--images=256", "--batch-size=128", "--threads=1"]
    assert run("search", *small, "--native", f"--out={tmp_path / 'run'}") == 0
    assert used
    assert Run.open(tmp_path / "run", lock=False).config["settings"]["native"] is True
    used.clear()
    assert (
        run("train", tmp_path / "run", "--epochs=1", "--batch-size=128", "--channels=8", "--cells=1", "--native") == 0
    )
    assert used
    used.clear()
    assert run("search", *small, f"--out={tmp_path / 'plain'}") == 0
    assert not used
    capsys.readouterr()
    assert run("search", "--resume", "--native=false", f"--out={tmp_path / 'run'}") == 2
    assert "--native False is not the run's True" in capsys.readouterr().err


def test_a_command_without_a_compiler_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(msgdas.fast.native, "_kernels", _kernels.__wrapped__)
    monkeypatch.setenv("CC", "no-such-compiler")
    assert run("search", "--data=digits", "--native", f"--out={tmp_path / 'run'}") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no-such-compiler" in said
    assert not (tmp_path / "run").exists()
