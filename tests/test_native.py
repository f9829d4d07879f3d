"""Compiled kernels: what they compute is what PyTorch's operations do, and who lacks a compiler is told."""

from __future__ import annotations

import pytest
import torch
from reference import alphas_of
from torch import nn
from torch.nn import functional as F

import msgdas.native
from msgdas.alphas import Alphas
from msgdas.cli import main
from msgdas.discretize import discretize
from msgdas.errors import InputError
from msgdas.methods import darts, gdas
from msgdas.native import _kernels, native, use_native
from msgdas.ops import BatchNorm2d, dense, fused, relu_conv_bn
from msgdas.ops.dense import DenseConv2d
from msgdas.ops.depthwise import DepthwiseConv2d
from msgdas.ops.fused import Statistics, Summand, fused_inner, fused_sum, fusible
from msgdas.ops.weighted import alone, sharing
from msgdas.runs import Run
from msgdas.samplers import Fixed, Softmax
from msgdas.spaces import darts as darts_space
from msgdas.spaces import nasbench201
from msgdas.subgraph import cut, select

pytestmark = pytest.mark.usefixtures("kernels")
STATISTICS = Statistics(None, None, 0.1, 1e-5)


def a_map(channels=4, side=8, *, dtype=torch.float64, centre=0.0):
    x = torch.randn(4, channels, side, side, dtype=dtype) + centre
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def a_scalar():
    return torch.rand((), dtype=torch.float64, requires_grad=True)


def plain(summand):
    x, weight, statistics, gamma, beta = summand
    y = x if statistics is None else F.batch_norm(x, None, None, gamma, beta, True, 0.0, statistics.eps)
    return y if weight is None else weight * y


def of_every_kind(channels):
    gamma, beta = (torch.randn(channels, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return [
        Summand(a_map(channels), a_scalar(), STATISTICS),
        Summand(a_map(channels)),
        Summand(a_map(channels, centre=3.0), a_scalar(), STATISTICS, gamma, beta),
        Summand(a_map(channels), a_scalar()),
        Summand(a_map(channels), None, STATISTICS, gamma, beta),
        Summand(a_map(channels), None, STATISTICS, gamma),
        Summand(a_map(channels), torch.tensor(0.3, dtype=torch.float64)),
    ]


def leaves(summands):
    tensors = {id(t): t for s in summands for t in (s.x, s.weight, s.gamma, s.beta) if t is not None}
    return [t for t in tensors.values() if t.requires_grad]


@pytest.mark.parametrize("channels", [1, 3, 4, 8, 12, 32, 36, 64])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("which", [slice(0, 1), slice(4, 5), slice(0, 2), slice(1, 4), slice(0, 7)])
def test_a_sum_and_its_gradients_are_those_of_the_plain_one(channels, threads, which):
    summands = of_every_kind(channels)[which]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = fused_sum(summands)
        grad = torch.randn_like(y)
        found = torch.autograd.grad(y, leaves(summands), grad)
    finally:
        torch.set_num_threads(before)
    like = sum(map(plain, summands))
    wanted = torch.autograd.grad(like, leaves(summands), grad)
    assert type(y.grad_fn).__name__ == "_SumBackward"
    for a, b in zip([y, *found], [like, *wanted], strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("channels", [1, 8, 12, 64])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", range(7))
def test_an_inner_product_is_that_with_the_plain_summand(channels, threads, kind):
    summand = of_every_kind(channels)[kind]
    grad = torch.randn(summand.x.shape, dtype=torch.float64)  # contiguous
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            found, wanted = fused_inner(grad, summand), (grad * plain(summand)).sum()
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(found, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("grad", [torch.randn(4, 1, 1, 1).double(), torch.randn(4, 4, 8, 8)])
def test_an_inner_product_with_what_is_not_alike_is_left_to_pytorch(grad):
    summand = Summand(a_map().detach(), None, STATISTICS)
    wanted = (grad * plain(summand)).sum()
    assert torch.allclose(fused_inner(grad, summand).double(), wanted, rtol=1e-6, atol=1e-6)


def test_second_derivatives_are_right():
    x, z, weight = a_map(2, 4), a_map(2, 4), a_scalar()
    gamma = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def of(x, z, weight, gamma):
        terms = [Summand(x, weight, STATISTICS, gamma), Summand(z), Summand(z, weight)]
        return fused_sum([t._replace(x=t.x.contiguous(memory_format=torch.channels_last)) for t in terms])

    assert torch.autograd.gradcheck(of, (x, z, weight, gamma))
    assert torch.autograd.gradgradcheck(of, (x, z, weight, gamma))


def test_running_statistics_are_those_of_pytorch():
    x = a_map(dtype=torch.float32)
    ours, theirs = BatchNorm2d(4), torch.nn.BatchNorm2d(4)
    for _ in range(3):
        ours(x), theirs(x)
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, rtol=1e-6, atol=1e-6), name


def test_a_mean_far_from_zero_costs_no_digits():
    x = a_map(8, 16, dtype=torch.float32, centre=1000.0)
    y = fused_sum([Summand(x, None, STATISTICS)])
    exact = F.batch_norm(x.double(), None, None, None, None, True)
    assert (y - exact).abs().max() < 1e-3


def test_what_is_not_a_number_stays_so():
    x = a_map().detach()
    x[1, 2, 3, 4] = torch.nan
    y = fused_sum([Summand(x, None, STATISTICS), Summand(a_map())])
    assert y[:, 2].isnan().all()
    assert not y[:, 1].isnan().any()


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, 4, 8, 8),  # contiguous
        torch.zeros(2, 4, 8, 8, dtype=torch.bfloat16).to(memory_format=torch.channels_last),
        torch.zeros(1, 3, 5, 5).to(memory_format=torch.channels_last),  # rows that do not come out even
        torch.zeros(2, 4),
    ],
)
def test_what_the_kernels_cannot_take_is_left_to_pytorch(x):
    assert not fusible(x)


def test_summands_of_several_shapes_are_added_by_pytorch():
    normalised, odd = Summand(a_map(), a_scalar(), STATISTICS), torch.randn(4, 1, 1, 1, dtype=torch.float64)
    assert torch.allclose(fused_sum([normalised, Summand(odd, None)]), plain(normalised) + odd, rtol=1e-12, atol=1e-12)


def test_small_maps_are_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(fused, "SIZE", 2**14)
    assert not fusible(a_map(side=8))
    assert fusible(a_map(side=64))


def test_mixed_precision_is_left_to_pytorch():
    """The map is float32 and its gradient is not; the kernels read one type."""
    conv, x, found = DepthwiseConv2d(4, 5, dilation=2), a_map(dtype=torch.float32), []
    for use in (True, False):
        use_native(use)
        with torch.autocast("cpu", torch.bfloat16):
            loss = conv(x).square().sum()
        found.append(torch.autograd.grad(loss, (x, conv.weight)))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("channels", [4, 32, 48])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_gradients_of_a_depthwise_convolution(side, channels, kernel, stride, dilation):
    conv = DepthwiseConv2d(channels, kernel, stride, dilation).double()
    x = torch.randn(8, channels, side, side, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    y = conv(x)
    like = F.conv2d(x, conv.weight, None, stride, conv.padding, dilation, channels)
    assert torch.equal(y, like)
    assert type(y.grad_fn).__name__ == ("_NativeBackward" if kernel > 3 or dilation > 1 else "ConvolutionBackward0")
    grad = torch.randn_like(y)
    wanted = torch.autograd.grad(like, (x, conv.weight), grad)
    for a, b in zip(torch.autograd.grad(y, (x, conv.weight), grad), wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_second_derivatives_of_a_depthwise_convolution():
    conv = DepthwiseConv2d(2, 3, dilation=2).double()
    x = torch.randn(4, 2, 4, 4, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradcheck(conv, x)
    assert torch.autograd.gradgradcheck(conv, x)


KERNELS = [(1, 1), (3, 1), (3, 2), (3, 3)]  # sides and strides of dense convolutions that have kernels


@pytest.mark.parametrize(("kernel", "stride"), KERNELS)
@pytest.mark.parametrize(("c_in", "c_out", "height", "width"), [(8, 8, 1, 1), (8, 24, 7, 5), (40, 16, 9, 14)])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_dense_convolution_and_its_gradients_are_those_of_pytorch(
    kernel, stride, c_in, c_out, height, width, relu, threads
):
    conv = DenseConv2d(c_in, c_out, kernel, stride).double()
    x = torch.randn(4, c_in, height, width, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    assert conv.has_kernel(x)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = conv.native(x, relu=True) if relu else conv(x)
        grad = torch.randn_like(y)
        found = torch.autograd.grad(y, (x, conv.weight), grad)
    finally:
        torch.set_num_threads(before)
    assert type(y.grad_fn).__name__ == "_NativeBackward"
    like = F.conv2d(x.relu() if relu else x, conv.weight, None, stride, kernel // 2)
    wanted = torch.autograd.grad(like, (x, conv.weight), grad)
    for a, b in zip([y, *found], [like, *wanted], strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride"), KERNELS)
@pytest.mark.parametrize(("c_in", "c_out"), [(56, 24), (24, 56)])
def test_columns_that_fill_no_vector_of_float32(kernel, stride, c_in, c_out):
    """Of float64 eight columns fill one."""
    conv, x = DenseConv2d(c_in, c_out, kernel, stride), a_map(c_in, 7, dtype=torch.float32)
    y = conv.native(x)
    grad = torch.randn_like(y)
    found = torch.autograd.grad(y, (x, conv.weight), grad)
    exact, weight = (t.detach().double().requires_grad_() for t in (x, conv.weight))
    like = F.conv2d(exact, weight, None, stride, kernel // 2)
    wanted = torch.autograd.grad(like, (exact, weight), grad.double())
    for a, b in zip([y, *found], [like, *wanted], strict=True):
        assert torch.allclose(a.double(), b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), KERNELS)
def test_second_derivatives_of_a_dense_convolution(kernel, stride, relu):
    conv = DenseConv2d(8, 8, kernel, stride).double()
    x = torch.randn(1, 8, 2, 3, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    take = lambda x, weight: dense._Native.apply(x, weight, stride, relu)  # noqa: E731
    assert torch.autograd.gradgradcheck(take, (x, conv.weight), fast_mode=True)


def test_a_kernel_takes_the_relu_before_it_in(monkeypatch):
    """To the bit; not where somebody watches the ReLU or the convolution."""
    called = []
    monkeypatch.setattr(nn.ReLU, "forward", lambda s, x: called.append(s) or F.relu(x))
    candidate, x = relu_conv_bn(8, 8, 3), a_map(8, dtype=torch.float32)
    found = []
    for watched in (None, candidate[0], candidate[1]):
        if watched:
            handle = watched.register_forward_hook(lambda *_: None)
        with sharing():
            found.append(alone(candidate, x))
        if watched:
            handle.remove()
    assert called == [candidate[0]] * 2
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_winograd_rounds_as_a_direct_convolution_does():
    """With the usual points the error is five times that of PyTorch's own in float32."""
    conv, x = DenseConv2d(32, 32, 3), a_map(32, 16, dtype=torch.float32)
    like = F.conv2d(x.double(), conv.weight.double(), padding=1)
    ours, theirs = (((y - like).norm() / like.norm()).item() for y in (conv(x), F.conv2d(x, conv.weight, padding=1)))
    assert ours < 4 * theirs


@pytest.mark.parametrize(
    ("conv", "x"),
    [
        (DenseConv2d(8, 8, 3).eval(), a_map(8, dtype=torch.float32)),
        (DenseConv2d(8, 8, 5), a_map(8, dtype=torch.float32)),
        (DenseConv2d(8, 8, 1, 2), a_map(8, dtype=torch.float32)),
        (DenseConv2d(3, 8, 3), a_map(3, dtype=torch.float32)),
        (DenseConv2d(8, 12, 3), a_map(8, dtype=torch.float32)),
    ],
)
def test_other_dense_convolutions_are_left_to_pytorch(conv, x):
    assert not conv.has_kernel(x)
    assert torch.equal(conv(x), F.conv2d(x, conv.weight, None, conv.stride, conv.padding))


def test_a_wide_weight_that_few_pixels_share_is_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(dense, "PAIRS", 8)
    few, many = a_map(64, 8, dtype=torch.float32), a_map(64, 16, dtype=torch.float32)
    for stride in (1, 2):
        conv = DenseConv2d(64, 64, 3, stride)
        assert (conv.has_kernel(few), conv.has_kernel(many)) == (False, True)
    assert DenseConv2d(64, 64, 1).has_kernel(few)


def test_a_dense_convolution_of_what_does_not_fit_says_what_pytorch_says():
    with pytest.raises(RuntimeError, match="expected input"):
        DenseConv2d(8, 8, 3)(a_map(16, dtype=torch.float32))
    with pytest.raises(RuntimeError, match="scalar type"):
        DenseConv2d(8, 8, 3)(a_map(8))


@pytest.mark.parametrize("space", [nasbench201, darts_space])
def test_nodes_of_the_spaces_are_one_sum_each(space, monkeypatch):
    """Every candidate's BatchNorm, gate and addition in one pass: no BatchNorm of PyTorch's runs in them."""
    net = space.supernet(channels=4, cells=3, classes=3, image_size=16).to(memory_format=torch.channels_last)
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


def test_probes_write_no_normalised_maps_and_find_the_same(monkeypatch):
    net = nasbench201.supernet(channels=8, cells=1, image_size=16).to(torch.float64, memory_format=torch.channels_last)
    text = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"
    subgraphs = Fixed(nasbench201.from_string(text))(alphas_of(net))
    x = a_map(3, 16).detach()
    unwritten, found = [], []
    monkeypatch.setattr(fused, "_run", lambda *given, of=fused._run: (unwritten.append(given[3] is None), of(*given)))
    for use in (True, False):
        use_native(use)
        (leaf,), _ = cut(subgraphs, others="probed")
        with select(net, leaf):
            net(x).square().mean().backward()
        found.append([gate.weights.grad for gate in leaf.values()])
    cells, probed = 3, 1 + 2 + 1 + 2 + 2 + 1  # on each edge, of two convolutions that end with a BatchNorm
    assert sum(unwritten) == cells * probed
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "text", ["|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"]
)
@pytest.mark.parametrize("training", [True, False])
def test_a_derived_network_computes_the_same_bits(text, training):
    net = nasbench201.supernet(channels=8, image_size=16).to(memory_format=torch.channels_last)
    genotype = nasbench201.from_string(text)
    (subgraph,), plain = Fixed(genotype)(Alphas.of(net)), discretize(net, genotype)
    x = torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    with select(net.train(training), subgraph):
        assert torch.equal(net(x), plain.train(training)(x))


@pytest.mark.parametrize("method", [darts, gdas])
def test_a_search_repeats_bit_for_bit(method):
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        net = nasbench201.supernet(channels=8, cells=1, image_size=16).to(memory_format=torch.channels_last)
        search = method(net, warmup=0.0, steps=3)
        x = torch.randn(8, 3, 16, 16).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(8)
        torch.set_num_threads(2)
        try:
            for _ in range(3):
                search.step((x, labels), (x, labels))
        finally:
            torch.set_num_threads(1)
        found.append(dict(net.state_dict()) | dict(search.alphas.logits))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


# ------------------------------------------------------------------ the compiler


@pytest.mark.parametrize(("compiler", "said"), [("no-such-compiler", "No such file"), ("false", "failed: ")])
def test_without_a_compiler_there_is_one_line(compiler, said, monkeypatch):
    use_native(False)
    monkeypatch.setattr(msgdas.native, "_kernels", _kernels.__wrapped__)  # nothing is kept
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(InputError, match=compiler) as error:
        use_native()
    assert said in str(error.value)
    assert "leave --native out" in str(error.value)
    assert "\n" not in str(error.value)
    assert not native()


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    """A search and a training use the kernels, and say so in their settings; the next one without does not."""
    used = []
    monkeypatch.setattr(fused, "_run", lambda *given, of=fused._run: (used.append(1), of(*given)))
    small = ["--data=digits", "--epochs=2", "--warmup=1", "--images=64", "--batch-size=32", "--threads=1"]
    assert run("search", *small, "--native", f"--out={tmp_path / 'run'}") == 0
    assert used
    assert Run.open(tmp_path / "run", lock=False).config["settings"]["native"] is True
    used.clear()
    assert run("train", tmp_path / "run", "--epochs=1", "--channels=4", "--cells=1", "--native") == 0
    assert used
    used.clear()
    assert run("search", *small, f"--out={tmp_path / 'plain'}") == 0
    assert not used
    capsys.readouterr()
    assert run("search", "--resume", "--native=false", f"--out={tmp_path / 'run'}") == 2
    assert "--native False is not the run's True" in capsys.readouterr().err


def test_a_command_without_a_compiler_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(msgdas.native, "_kernels", _kernels.__wrapped__)
    monkeypatch.setenv("CC", "no-such-compiler")
    assert run("search", "--data=digits", "--native", f"--out={tmp_path / 'run'}") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no-such-compiler" in said
    assert not (tmp_path / "run").exists()
