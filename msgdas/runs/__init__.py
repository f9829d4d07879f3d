"""Runs: the folder on disk, and loops that can be stopped, killed and resumed."""

from msgdas.runs.folder import Run, Stop, stop_on_signals, versions, write_atomic, write_json

__all__ = ["Run", "Stop", "stop_on_signals", "versions", "write_atomic", "write_json"]
