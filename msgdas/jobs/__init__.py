"""What the command line does, as functions: from settings to a run folder."""

from msgdas.jobs.commands import network_form, report, search, supernet_options, train

__all__ = ["network_form", "report", "search", "supernet_options", "train"]
