"""Your own constraint: a function ``alphas -> Tensor`` that is added to the alphas' loss.

This one limits the expected multiply-adds and is 0 below the limit. The expectation covers all candidates; the derived
network, made of the most probable ones, may cost less or more.

Run: python examples/own_constraint.py
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import msgdas
from msgdas.cost import candidate_macs
from msgdas.ops import relu_conv_bn

Penalty = Callable[[msgdas.Alphas], Tensor]


def at_most(limit: float, macs: Mapping[str, Tensor], weight: float = 1.0) -> Penalty:
    """``weight · max(0, E[macs] / limit − 1)``, with ``E[macs] = Σ_choices Σ_i softmax(a)_i · macs_i``.

    Args:
        limit: multiply-adds of all choices in total.
        macs: choice name → ``(O,)`` multiply-adds of its candidates.
    """

    def penalty(alphas: msgdas.Alphas) -> Tensor:
        p = alphas.probabilities()
        expected = torch.stack([p[name] @ cost.to(p[name]) for name, cost in macs.items()]).sum()
        return weight * F.relu(expected / limit - 1)

    return penalty


def network(channels: int = 8) -> nn.Module:
    """``(B, 1, 8, 8) → (B, 10)`` with three convolutions of undecided kernel size."""
    kernels = {f"conv_{k}x{k}": k for k in (1, 3, 5)}
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 1, bias=False), nn.BatchNorm2d(channels)]
    for i in range(3):
        candidates = {label: relu_conv_bn(channels, channels, k) for label, k in kernels.items()}
        layers.append(msgdas.MixedOp(f"layer{i}", candidates))
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def search(limit: float | None) -> None:
    """Search with or without a limit; print the genotype and its multiply-adds in thousands."""
    torch.manual_seed(0)
    net = network()
    macs = candidate_macs(net, in_channels=1, image_size=8)
    penalties: Sequence[Penalty] = [] if limit is None else [at_most(limit, macs)]
    method = replace(msgdas.methods.msgdas(k=2), alpha_lr=0.1, penalties=penalties)
    job = msgdas.Search(net, method)
    genotype = msgdas.fit(job, msgdas.load_data("digits"), epochs=6)
    kept = genotype.decisions()
    total = sum(float(macs[name][job.alphas.labels[name].index(kept[name][0])]) for name in macs)
    print(f"{'free' if limit is None else f'limit {limit / 1000:.0f} k'}: {total / 1000:.0f} k of {genotype}")


def main() -> None:
    search(None)
    search(100_000)


if __name__ == "__main__":
    main()
