"""The search engine and its parts."""

from msgdas.search.comparing import compare
from msgdas.search.execution import Execution
from msgdas.search.gradients import AlphaStep, first_order, probed
from msgdas.search.guidance import SuperNetGuidance
from msgdas.search.method import Method
from msgdas.search.schedules import cosine, linear
from msgdas.search.search import Search
from msgdas.search.supernet_training import SuperNetTraining

__all__ = [
    "AlphaStep",
    "Execution",
    "Method",
    "Search",
    "SuperNetGuidance",
    "SuperNetTraining",
    "compare",
    "cosine",
    "first_order",
    "linear",
    "probed",
]
