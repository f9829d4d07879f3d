"""Check a folder of images before the first search: contents, problems, and what to run."""

from msgdas.data.check.describe import describe
from msgdas.data.check.folder import Copies, Kinds, Report, check_folder
from msgdas.data.check.proposal import Proposal, propose

__all__ = ["Copies", "Kinds", "Proposal", "Report", "check_folder", "describe", "propose"]
