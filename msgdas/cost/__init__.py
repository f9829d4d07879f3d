"""What a network costs."""

from msgdas.cost.count import Cost, count

__all__ = ["Cost", "count"]
