"""What a run looked like: cells as pictures and as text, curves, and one offline HTML page."""

from msgdas.report.graph import CellGraph, to_svg, to_text
from msgdas.report.html import write_report

__all__ = ["CellGraph", "to_svg", "to_text", "write_report"]
