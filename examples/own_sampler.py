"""Your own sampler: a callable from architecture parameters to sub-graphs.

The answer is known: in the toy space, one candidate of every choice generates the data.

Run: python examples/own_sampler.py
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from msgdas import Alphas, Gate, Method, Search, SubGraph
from msgdas.search.gradients import probed
from msgdas.spaces import toy


@dataclass(frozen=True)
class EpsilonGreedy:
    """One path: at each choice the most probable candidate or, with probability ``epsilon``, a random one.

    All randomness comes from ``generator``, and no state is kept between calls. ``tau`` is not used.
    """

    epsilon: float = 0.3

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        soft_CO = alphas.stack().softmax(-1)
        explore_C, where_C = torch.rand(2, len(alphas), generator=generator)
        random_C = (where_C * torch.tensor(alphas.sizes)).long()
        picks_C = torch.where(explore_C < self.epsilon, random_C, soft_CO.argmax(-1).cpu())
        hard_CO = F.one_hot(picks_C, soft_CO.shape[-1]).to(soft_CO)
        gates_CO = hard_CO + (soft_CO - soft_CO.detach())  # exactly one-hot in forward, the softmax in backward
        gates = {}
        for name, pick, gate in zip(alphas.names, picks_C.tolist(), gates_CO, strict=True):
            gates[name] = Gate((pick,), gate[: len(alphas.labels[name])])  # without the padding
        return [SubGraph(gates)]


def main() -> None:
    torch.manual_seed(0)
    net, answer, weight = toy.problem(seed=0)
    method = Method(EpsilonGreedy(), hypergradient=probed, warmup=0.4, alpha_lr=0.03)
    search = Search(net, method, steps=500)
    train, valid = toy.batches(answer, weight, seed=1), toy.batches(answer, weight, seed=2)
    for _ in range(search.steps):
        search.step(next(train), next(valid))
    print(f"found:  {search.derive()}")
    print(f"answer: {answer}")


if __name__ == "__main__":
    main()
