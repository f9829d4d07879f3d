"""Show a run: cells as pictures and as text, curves, one offline HTML page, and progress in a terminal."""

from msgdas.report.graph import to_svg, to_text
from msgdas.report.html import write_report

__all__ = ["to_svg", "to_text", "write_report"]
