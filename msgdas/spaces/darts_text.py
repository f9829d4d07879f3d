"""DARTS genotypes as text: the Python form of the official code, and published genotypes by name."""

from __future__ import annotations

import ast
import warnings
from typing import Any, NamedTuple

from msgdas.errors import InputError, shown
from msgdas.genotype import Cell, Genotype
from msgdas.ops.named import OPERATIONS

__all__ = ["PUBLISHED", "Published", "from_string", "to_string"]

FORM = "Genotype(normal=[('op', input), …], normal_concat=[…], reduce=[…], reduce_concat=[…])"

LONGEST = 20_000  # characters; a cell of 100 nodes fits. Python's parser takes memory and time by the length
LONGEST_RANGE = 200


def to_string(genotype: Genotype) -> str:
    """The text that the official DARTS code prints and reads.

    Raises:
        InputError: the genotype is not of the DARTS space, some node does not have exactly two inputs, or a cell
            concatenates one of its inputs.
    """
    parts = []
    for kind in ("normal", "reduce"):
        cell = genotype.cell(kind)
        for state, node in enumerate(cell.nodes, 2):
            if len(node) != 2 or any(label not in OPERATIONS for label, _ in node):
                raise InputError(
                    f"state {state} of the {kind} cell is {shown(list(node))}: "
                    f"darts needs two of {', '.join(OPERATIONS)}"
                )
        if min(cell.concat) < 2:
            raise InputError(
                f"the {kind} cell concatenates {shown(list(cell.concat))}: "
                f"darts needs states from 2 to {1 + len(cell.nodes)}"
            )
        parts += [f"{kind}={[edge for node in cell.nodes for edge in node]}", f"{kind}_concat={list(cell.concat)}"]
    return f"Genotype({', '.join(parts)})"


def from_string(text: str, space: str = "darts") -> Genotype:
    """Read the official form (also with one tuple per node, or ``range(2, 6)``) or the name of a published genotype.

    Args:
        space: name of the genotype's space, one with DARTS cells.

    Raises:
        InputError: the text is neither.
    """
    name = text.strip()
    if name in PUBLISHED:
        return from_string(PUBLISHED[name].text, space)
    if not name.startswith("Genotype("):
        names = f"{', '.join(PUBLISHED)} or " if space == "darts" else ""
        raise InputError(f"{space} genotype {shown(text)} is not known: use {names}{FORM}")
    if len(name) > LONGEST:
        raise InputError(f"{shown(text)} is not a genotype of space {space}: use at most {LONGEST:,} characters")
    try:
        fields = {kind: _literal(node) for kind, node in _keywords(name)}
        cells = {
            kind: Cell(_nodes(fields[kind]), tuple(map(_state, fields[f"{kind}_concat"])))
            for kind in ("normal", "reduce")
        }
    except (SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError) as error:
        reason = f" ({error})" if isinstance(error, InputError) else ""
        raise InputError(f"{shown(text)} is not a genotype of space {space}{reason}: expected {FORM}") from None
    genotype = Genotype(space, cells=cells)
    to_string(genotype)
    return genotype


def _keywords(text: str) -> list[tuple[str, ast.expr]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python about the text, such as an unknown escape
        call = ast.parse(text, mode="eval").body
    if not isinstance(call, ast.Call) or call.args:
        raise SyntaxError
    return [(str(keyword.arg), keyword.value) for keyword in call.keywords]


def _literal(node: ast.expr) -> list[Any]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        return list(range(*(ast.literal_eval(argument) for argument in node.args))[:LONGEST_RANGE])
    return list(ast.literal_eval(node))


def _nodes(edges: list[Any]) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Two edges per node, whether the text groups them or not."""
    if edges and not isinstance(edges[0][0], str):
        edges = [edge for node in edges for edge in node]
    pairs = [(str(label), _state(source)) for label, source in edges]
    if len(pairs) % 2:
        raise InputError(f"{len(pairs)} edges, but every node takes two")
    return tuple(zip(pairs[::2], pairs[1::2]))


def _state(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not the number of a state")
    return value


class Published(NamedTuple):
    """A genotype from the literature: its text and its source."""

    text: str
    source: str


PUBLISHED = {
    "NASNet": Published(
        "Genotype(normal=[('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 0), ('sep_conv_3x3', 0), "
        "('avg_pool_3x3', 1), ('skip_connect', 0), ('avg_pool_3x3', 0), ('avg_pool_3x3', 0), ('sep_conv_3x3', 1), "
        "('skip_connect', 1)], normal_concat=[2, 3, 4, 5, 6], "
        "reduce=[('sep_conv_5x5', 1), ('sep_conv_7x7', 0), ('max_pool_3x3', 1), ('sep_conv_7x7', 0), "
        "('avg_pool_3x3', 1), ('sep_conv_5x5', 0), ('skip_connect', 3), ('avg_pool_3x3', 2), ('sep_conv_3x3', 2), "
        "('max_pool_3x3', 1)], reduce_concat=[4, 5, 6])",
        "NASNet-A, Zoph et al. 2018, arXiv:1707.07012; as in github.com/quark0/darts",
    ),
    "AmoebaNet": Published(
        "Genotype(normal=[('avg_pool_3x3', 0), ('max_pool_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 2), "
        "('sep_conv_3x3', 0), ('avg_pool_3x3', 3), ('sep_conv_3x3', 1), ('skip_connect', 1), ('skip_connect', 0), "
        "('avg_pool_3x3', 1)], normal_concat=[4, 5, 6], "
        "reduce=[('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('max_pool_3x3', 0), ('sep_conv_7x7', 2), "
        "('sep_conv_7x7', 0), ('avg_pool_3x3', 1), ('max_pool_3x3', 0), ('max_pool_3x3', 1), ('conv_7x1_1x7', 0), "
        "('sep_conv_3x3', 5)], reduce_concat=[3, 4, 6])",
        "AmoebaNet-A, Real et al. 2019, arXiv:1802.01548; as in github.com/quark0/darts",
    ),
    "DARTS_V1": Published(
        "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1), "
        "('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], "
        "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 0), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], "
        "reduce_concat=[2, 3, 4, 5])",
        "DARTS first order, Liu et al. 2019, arXiv:1806.09055; github.com/quark0/darts",
    ),
    "DARTS_V2": Published(
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
        "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
        "reduce_concat=[2, 3, 4, 5])",
        "DARTS second order, Liu et al. 2019, arXiv:1806.09055; github.com/quark0/darts",
    ),
    "SNAS": Published(
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('dil_conv_3x3', 1), "
        "('skip_connect', 1), ('skip_connect', 0), ('skip_connect', 0), ('sep_conv_3x3', 1)], "
        "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('max_pool_3x3', 1), "
        "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('dil_conv_5x5', 2)], "
        "reduce_concat=[2, 3, 4, 5])",
        "SNAS with mild constraint, Xie et al. 2019, arXiv:1812.09926; as in github.com/xiaomi-automl/FairDARTS",
    ),
    "GDAS": Published(
        "Genotype(normal=[('skip_connect', 0), ('skip_connect', 1), ('skip_connect', 0), ('sep_conv_5x5', 2), "
        "('sep_conv_3x3', 3), ('skip_connect', 0), ('sep_conv_5x5', 4), ('sep_conv_3x3', 3)], "
        "normal_concat=[2, 3, 4, 5], reduce=[('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('sep_conv_5x5', 2), "
        "('sep_conv_5x5', 1), ('dil_conv_5x5', 2), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_5x5', 1)], "
        "reduce_concat=[2, 3, 4, 5])",
        "GDAS_V1, Dong & Yang 2019, arXiv:1910.04465; github.com/D-X-Y/AutoDL-Projects",
    ),
    "PC_DARTS": Published(
        "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1), "
        "('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)], "
        "normal_concat=[2, 3, 4, 5], reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), "
        "('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], "
        "reduce_concat=[2, 3, 4, 5])",
        "PC-DARTS on CIFAR-10, Xu et al. 2020, arXiv:1907.05737; github.com/yuhuixu1993/PC-DARTS",
    ),
    "PC_DARTS_image": Published(
        "Genotype(normal=[('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('skip_connect', 1), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('dil_conv_5x5', 4)], "
        "normal_concat=[2, 3, 4, 5], reduce=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 2), "
        "('max_pool_3x3', 1), ('sep_conv_3x3', 2), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 3)], "
        "reduce_concat=[2, 3, 4, 5])",
        "PC-DARTS on ImageNet, Xu et al. 2020, arXiv:1907.05737; github.com/yuhuixu1993/PC-DARTS",
    ),
    "P_DARTS": Published(
        "Genotype(normal=[('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 0), ('dil_conv_5x5', 4)], "
        "normal_concat=[2, 3, 4, 5], reduce=[('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), "
        "('dil_conv_5x5', 2), ('max_pool_3x3', 0), ('dil_conv_3x3', 1), ('dil_conv_3x3', 1), ('dil_conv_5x5', 3)], "
        "reduce_concat=[2, 3, 4, 5])",
        "P-DARTS, Chen et al. 2019, arXiv:1904.12760; github.com/chenxin061/pdarts",
    ),
}
