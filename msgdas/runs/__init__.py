"""Runs: the folder on disk, and loops that can be stopped, killed and resumed."""

from msgdas.runs.files import refuse_irregular, told, write_atomic, write_json
from msgdas.runs.folder import Run
from msgdas.runs.json_text import parse_json, read_json
from msgdas.runs.signals import Stop, Stopped, end_on_signals, stop_on_signals
from msgdas.runs.versions import versions

__all__ = [
    "Run",
    "Stop",
    "Stopped",
    "end_on_signals",
    "parse_json",
    "read_json",
    "refuse_irregular",
    "stop_on_signals",
    "told",
    "versions",
    "write_atomic",
    "write_json",
]
