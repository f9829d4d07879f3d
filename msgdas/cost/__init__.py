"""Parameters and multiply-adds of networks and candidates."""

from msgdas.cost.candidates import candidate_macs
from msgdas.cost.count import Cost, count

__all__ = ["Cost", "candidate_macs", "count"]
