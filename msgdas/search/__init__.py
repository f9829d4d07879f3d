"""The search engine and its parts."""

from msgdas.search.comparing import compare
from msgdas.search.gradients import AlphaStep, first_order, probed
from msgdas.search.guidance import SuperNetGuidance
from msgdas.search.schedules import cosine, linear
from msgdas.search.search import Search

__all__ = ["AlphaStep", "Search", "SuperNetGuidance", "compare", "cosine", "first_order", "linear", "probed"]
