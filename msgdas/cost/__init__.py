"""What a network costs."""

from msgdas.cost.candidates import candidate_macs
from msgdas.cost.count import Cost, count

__all__ = ["Cost", "candidate_macs", "count"]
