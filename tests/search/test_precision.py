"""Mixed precision and micro-batches: what they leave as it is."""

import pytest
import torch
from reference import X, Y, searching, small_net
from torch import nn
from torch.nn import functional as F

from msgdas.choice import MixedOp
from msgdas.errors import InputError
from msgdas.methods import METHODS
from msgdas.search.precision import LossScale, autocast
from msgdas.spaces import nasbench201


def without_batch_norm():
    torch.manual_seed(0)
    ops = lambda: {"linear": nn.Linear(6, 6), "tanh": nn.Tanh(), "skip": nn.Identity()}  # noqa: E731
    return nn.Sequential(nn.Linear(3, 6), *(MixedOp(f"c{i}", ops()) for i in range(3)), nn.Linear(6, 3)).double()


@pytest.mark.parametrize(
    "options", [{}, {"gradient": "probed"}, {"guidance": 1.0}, {"guidance": 1.0, "supernet_weight": 0.5}], ids=str
)
def test_micro_batches_do_not_change_a_step(options):
    x, y = torch.randn(8, 3).double(), torch.randint(3, (8,))
    found, told = [], []
    for parts in (1, 4):
        search = searching(
            without_batch_norm(), METHODS["msgdas"](k=2, **options), warmup=0.0, micro_batches=parts, steps=9
        )
        search.alphas.double()
        means = [search.step((x, y), (x.flip(0), y.flip(0))) for _ in range(3)][-1]
        found.append([*search.net.parameters(), *search.alphas.parameters()])
        told.append(means)
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)
    assert told[1] == pytest.approx(told[0], rel=1e-5)


def test_only_one_micro_batch_is_alive_in_backward():
    search = searching(small_net(1), METHODS["gdas"](), micro_batches=4, steps=1)
    sizes = []
    search.net.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    search.step((X, Y), (X, Y))
    assert sizes == [1] * 8


@pytest.mark.parametrize("bad", [{"micro_batches": 0}, {"micro_batches": 2, "parallel": True}], ids=str)
def test_bad_micro_batches(bad):
    with pytest.raises(InputError, match="micro_batches"):
        searching(small_net(1), METHODS["gdas"](), **bad)
    with pytest.raises(InputError, match="batch of 4"):
        searching(small_net(1), METHODS["gdas"](), micro_batches=3).step((X, Y), (X, Y))


METHODS_OF = [(m, {}) for m in ("msgdas", "gdas", "darts", "darts-2nd", "proxylessnas")]


@pytest.mark.parametrize(("method", "options"), [*METHODS_OF, ("msgdas", {"gradient": "probed", "guidance": 1.0})])
@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_a_precision_is_of_the_network_alone(method, options, half):
    x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(8) % 3
    losses = {}
    for precision in ("float32", half):
        torch.manual_seed(0)
        net = nasbench201.supernet(channels=4, classes=3, image_size=8)
        kinds = set()
        net.classifier.register_forward_hook(lambda _, __, out, kinds=kinds: kinds.add(out.dtype))
        search = searching(net, METHODS[method](**options), warmup=0.0, precision=precision, steps=9)
        losses[precision] = search.step((x, y), (x, y))["train_loss"]
        assert kinds == {getattr(torch, precision)}
        tensors = [*net.parameters(), *net.buffers(), *search.alphas.parameters()]
        assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float32}
    assert losses[half] == pytest.approx(losses["float32"], rel=0.05)
    assert losses[half] != losses["float32"]


def test_a_loss_sees_float32_logits():
    def loss(logits, labels):
        assert logits.dtype == torch.float32
        return F.cross_entropy(logits, labels)

    net = nasbench201.supernet(channels=4, classes=3, image_size=8)
    searching(net, METHODS["gdas"](), loss=loss, precision="bfloat16").step((X.float(), Y), (X.float(), Y))


def test_float32_is_float32_inside_an_autocast_of_the_callers_too():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16), autocast(x.device, "float32"):
        assert (x @ x).dtype is torch.float32


def test_an_unknown_precision_is_one_line():
    with pytest.raises(InputError, match="bfloat16"):
        searching(small_net(1), METHODS["gdas"](), precision="float8")


# ------------------------------------------------------------------------ loss scale


METHODS_OF_SCALE = [
    *((*one, {}) for one in METHODS_OF),
    ("snas", {}, {}),
    ("msgdas", {"gradient": "probed"}, {"parallel": True}),
    ("msgdas", {"guidance": 1.0, "supernet_weight": 0.5}, {}),
]


@pytest.mark.parametrize(("method", "options", "execution"), METHODS_OF_SCALE)
def test_a_scaled_loss_has_the_same_gradients(method, options, execution):
    """Bit for bit: the scale is a power of two, and float32 has room."""
    found = []
    for scale in (1.0, 2.0**10):
        torch.manual_seed(0)
        search = searching(small_net(1), METHODS[method](**options), warmup=0.0, steps=9, **execution)
        search.scale = LossScale(scale)
        for _ in range(3):
            search.step((X, Y), (X.flip(0), Y.flip(0)))
        found.append([p.detach() for p in (*search.net.parameters(), *search.alphas.parameters())])
        assert search.scale.value == scale
    for plain, scaled in zip(*found, strict=True):
        assert torch.equal(plain, scaled)


def test_the_scale_follows_what_overflows():
    scale = LossScale.of("float16")
    start = scale.value
    assert not scale.take([1.0, float("inf")])
    assert not scale.take([float("nan")])
    assert scale.value == start / 4
    for _ in range(2 * LossScale.PATIENCE):
        assert scale.take([1.0])
    assert scale.value == start
    for precision in ("float32", "bfloat16"):
        still = LossScale.of(precision)
        assert still.take([float("inf")])  # which is an error
        assert still == LossScale(1.0)


@pytest.mark.parametrize("method", ["gdas", "snas"])
def test_a_step_that_overflows_is_left_out_and_the_next_ones_are_not(method):
    torch.manual_seed(0)
    net = nasbench201.supernet(channels=4, classes=3, image_size=8)
    search = searching(net, METHODS[method](), warmup=0.0, precision="float16", steps=99)
    search.scale.value = 2.0**30
    x, y = torch.randn(8, 3, 8, 8), torch.arange(8) % 3
    state = lambda: [p.detach().clone() for p in (*net.parameters(), *search.alphas.parameters())]  # noqa: E731
    before = state()
    search.step((x, y), (x, y))
    assert all(map(torch.equal, before, state()))
    assert search.scale.value < 2.0**30
    other = searching(net, METHODS[method](), warmup=0.0, precision="float16", steps=99)
    other.load_state_dict(search.state_dict())
    assert other.scale == search.scale
    while search.scale.good < 4:
        search.step((x, y), (x, y))
    assert not any(map(torch.equal, before[-6:], state()[-6:]))  # the alphas


def test_a_loss_that_overflows_is_an_error_in_every_precision():
    net = nasbench201.supernet(channels=4, classes=3, image_size=8)
    search = searching(
        net, METHODS["gdas"](), precision="float16", loss=lambda logits, y: F.cross_entropy(logits, y) / 0
    )
    with pytest.raises(InputError, match="valid_loss is not a number"):
        search.step((X.float(), Y), (X.float(), Y))
