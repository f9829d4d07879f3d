"""Numbers as text. Those that take any ``object`` return ``NONE``, a dash, for what is not a number."""

from __future__ import annotations

import json
import math

import humanize

__all__ = ["NONE", "compact", "duration", "number", "percent", "plain", "short_seconds"]

NONE = "–"
MOST = 1e30  # nothing measured is larger; sums and squares of damaged numbers stay finite


def number(value: object) -> float:
    """``value`` as a float; NaN for anything that is not a number, including ``None``, booleans and what is beyond
    `MOST`."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and -MOST <= value <= MOST
    return float(value) if known else math.nan  # type: ignore[arg-type] # it is a number


def percent(fraction: object, digits: int = 2) -> str:
    """``0.9722`` as ``"97.22 %"``."""
    value = number(fraction)
    return NONE if math.isnan(value) else f"{100 * value:.{digits}f} %"


def compact(value: object) -> str:
    """``1234567`` as ``"1.23 M"``."""
    amount = number(value)
    return humanize.metric(amount) if math.isfinite(amount) else NONE


def duration(seconds: object) -> str:
    """Seconds as ``"4.2 seconds"``, ``"3 minutes and 5 seconds"`` or ``"2 hours and 7 minutes"``."""
    value = number(seconds)
    if not math.isfinite(value):
        return NONE
    unit, digits = "minutes" if value >= 3600 else "seconds", 1 if value < 10 else 0
    return humanize.precisedelta(value, minimum_unit=unit, format=f"%.{digits}f")


def short_seconds(value: float) -> str:
    """Seconds for a column of numbers: ``"3.2"`` or ``"1,234"``."""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def plain(value: object) -> str:
    """Any JSON value for a table: floats to six digits, large integers with thousands separators, the rest as JSON."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10000 else str(value)
    if isinstance(value, float):
        return NONE if math.isnan(value) else f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
