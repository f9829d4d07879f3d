"""Check images before the first search: contents, problems, and what to run."""

from msgdas.data.check.describe import describe, to_dict
from msgdas.data.check.folder import check_folder
from msgdas.data.check.proposal import Proposal, propose
from msgdas.data.check.report import Copies, Kinds, Report

__all__ = ["Copies", "Kinds", "Proposal", "Report", "check_folder", "describe", "propose", "to_dict"]
