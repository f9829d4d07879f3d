"""msgdas: differentiable neural architecture search, and the reference implementation of MSG-DAS (arXiv:2107.04324)."""

from msgdas import methods, samplers, spaces
from msgdas.alphas import Alphas
from msgdas.choice import Choice, MixedInput, MixedOp
from msgdas.data import load_data
from msgdas.derive import derive
from msgdas.discretize import discretize
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.fast.heap import keep_freed_memory
from msgdas.fast.native import use_native
from msgdas.retrain import Recipe, load, retrain
from msgdas.search.execution import Execution
from msgdas.search.loop import fit
from msgdas.search.method import Method
from msgdas.search.search import Search
from msgdas.subgraph import Gate, SubGraph, cut, select

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
    "fit",
    "keep_freed_memory",
    "load",
    "load_data",
    "methods",
    "retrain",
    "samplers",
    "select",
    "spaces",
    "use_native",
]
