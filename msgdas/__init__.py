"""msgdas: differentiable neural architecture search, and the reference implementation of MSG-DAS (arXiv:2107.04324)."""

from msgdas import fast, methods, samplers, spaces
from msgdas.alphas import Alphas
from msgdas.choice import Choice, MixedInput, MixedOp
from msgdas.data import load_data
from msgdas.derive import derive
from msgdas.discretize import discretize
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.retrain import Recipe, load, retrain
from msgdas.search.execution import Execution
from msgdas.search.loop import fit
from msgdas.search.method import Method
from msgdas.search.search import Search
from msgdas.subgraph import Gate, SubGraph, cut
from msgdas.supernet import select

__all__ = [
    "Alphas",
    "Choice",
    "Execution",
    "Gate",
    "Genotype",
    "InputError",
    "Method",
    "MixedInput",
    "MixedOp",
    "Recipe",
    "Search",
    "SubGraph",
    "cut",
    "derive",
    "discretize",
    "fast",
    "fit",
    "load",
    "load_data",
    "methods",
    "retrain",
    "samplers",
    "select",
    "spaces",
]
