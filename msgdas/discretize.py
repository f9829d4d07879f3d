"""Turn a super-net and a genotype into a plain network."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from msgdas.choice import Choice, MixedInput, Term, combine
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.ops.drop import DropBlockIdentity
from msgdas.ops.partial import PartialChannels
from msgdas.supernet import all_choices

__all__ = ["KeptInputs", "discretize"]


class KeptInputs(nn.Module):
    """Sum of the kept edges; replaces a `MixedInput` in a derived network."""

    combine = staticmethod(combine)

    def __init__(self, edges: Sequence[nn.Module], index: Sequence[int]) -> None:
        super().__init__()
        self.edges, self.index = nn.ModuleList(edges), tuple(index)

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        return self.combine([Term(edge, xs[i]) for edge, i in zip(self.edges, self.index, strict=True)])


def discretize(net: nn.Module, genotype: Genotype) -> nn.Module:
    """Return a copy of ``net``, weights included, with every choice replaced by the candidate that ``genotype`` keeps.

    The copy contains no `Choice` and no DropBlock. Its output equals, bit for bit, that of ``net`` on the same
    sub-graph.

    Raises:
        InputError: the genotype leaves a choice undecided or names a choice or candidate that ``net`` lacks, or ``net``
            uses `PartialChannels`.

    Examples:
        >>> from msgdas.spaces import toy
        >>> net = toy.ToyNet(choices=1)
        >>> discretize(net, Genotype("toy", {"part/0": "sine"})).mixed[0].label
        'sine'
    """
    if isinstance(net, Choice):
        return discretize(nn.Sequential(net), genotype)[0]  # type: ignore[index]
    if any(isinstance(module, PartialChannels) for module in net.modules()):
        raise InputError(
            "a super-net with PartialChannels cannot be discretized: its operations are narrower than those of the "
            "derived network; build that with space.network(genotype)"
        )
    kept = genotype.decisions()
    for name in kept.keys() - all_choices(net).keys():
        raise InputError(f"the genotype decides {name!r}, which is not a choice of this network")
    net = copy.deepcopy(net)
    _replace(net, kept)
    return net


def _replace(module: nn.Module, kept: dict[str, tuple[str, ...]]) -> None:
    for name, child in [
        (n, m) for n, m in module._modules.items() if m is not None
    ]:  # named_children skips a module it has seen
        while isinstance(child, Choice):  # a candidate may be a choice itself
            child = _keep(child, kept)
            setattr(module, name, child)
        if isinstance(child, DropBlockIdentity):
            setattr(module, name, nn.Identity())
        else:
            _replace(child, kept)


def _keep(choice: Choice, kept: dict[str, tuple[str, ...]]) -> nn.Module:
    if choice.name in kept:
        labels = kept[choice.name]
    elif not choice.searched:
        labels = choice.labels
    else:
        raise InputError(f"the genotype does not decide choice {choice.name!r} of this network")
    for label in labels:
        if label not in choice.labels:
            raise InputError(f"choice {choice.name!r} has no candidate {label!r}: use {', '.join(choice.labels)}")
    index = sorted(choice.labels.index(label) for label in labels)
    if isinstance(choice, MixedInput):
        return KeptInputs([choice.candidates[i] for i in index], index)
    if len(index) != 1:
        raise InputError(f"choice {choice.name!r} must keep one operation; the genotype keeps {len(index)}")
    return choice.candidates[index[0]]
