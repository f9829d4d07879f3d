"""S1 to S4: subsets of the DARTS space in which DARTS fails (Zela et al. 2020, arXiv:1909.09656)."""

from __future__ import annotations

from collections.abc import Mapping

from msgdas.errors import InputError, shown
from msgdas.genotype import Genotype
from msgdas.spaces.darts import KINDS, NODES
from msgdas.spaces.darts_text import from_string as from_darts_text
from msgdas.spaces.darts_text import to_string as to_darts_text

__all__ = ["CANDIDATES", "from_string", "to_string"]

EDGES = tuple(
    f"{kind}/{source}-{target}" for kind in KINDS for target in range(2, 2 + NODES) for source in range(target)
)
MAX, AVG, SKIP = "max_pool_3x3", "avg_pool_3x3", "skip_connect"
SEP, DIL, DIL5 = "sep_conv_3x3", "dil_conv_3x3", "dil_conv_5x5"
_S1 = (  # the two best of each edge according to DARTS, as in github.com/automl/RobustDARTS
    *((SKIP, DIL), (SKIP, DIL5)),  # normal cell, into node 2
    *((SKIP, DIL5), (SKIP, SEP), (SKIP, DIL)),
    *((MAX, SKIP), (SKIP, SEP), (SKIP, SEP), (SKIP, DIL)),
    *((SKIP, SEP), (MAX, SKIP), (SKIP, DIL), (DIL, DIL5), (DIL, DIL5)),
    *((MAX, AVG), (MAX, DIL)),  # reduction cell
    *((MAX, AVG), (MAX, AVG), (SKIP, DIL5)),
    *((MAX, AVG), (MAX, SEP), (SKIP, DIL), (SKIP, DIL5)),
    *((MAX, AVG), (MAX, AVG), (SKIP, DIL5), (SKIP, DIL5), (SKIP, DIL5)),
)
CANDIDATES: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # space → edge → operations
    "s1": dict(zip(EDGES, _S1, strict=True)),
    "s2": dict.fromkeys(EDGES, (SKIP, SEP)),
    "s3": dict.fromkeys(EDGES, ("none", SKIP, SEP)),
    "s4": dict.fromkeys(EDGES, ("noise", SEP)),
}


def to_string(genotype: Genotype) -> str:
    """The text form of DARTS.

    Raises:
        InputError: the genotype is not of these spaces or has an operation not allowed on that edge.
    """
    text = to_darts_text(genotype)
    if genotype.space not in CANDIDATES:
        raise InputError(f"genotype of space {shown(genotype.space)}: use one of {', '.join(CANDIDATES)}")
    edges = CANDIDATES[genotype.space]
    for kind, cell in genotype.cells:
        for state, node in enumerate(cell.nodes, 2):
            for label, source in node:
                allowed = edges.get(f"{kind}/{source}-{state}", ())
                if label not in allowed:
                    where = f"{label} from {source} to {state} in the {kind} cell"
                    raise InputError(f"{where}: {genotype.space} allows {' or '.join(allowed) or 'no edge'} there")
    return text


def from_string(space: str, text: str) -> Genotype:
    """Read the text form of DARTS as a genotype of ``space``.

    Raises:
        InputError: the text does not have that form, or the genotype is not in that space.
    """
    genotype = from_darts_text(text, space)
    to_string(genotype)
    return genotype
