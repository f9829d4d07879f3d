"""The speed wing: the same networks, faster. Nothing below `msgdas.jobs` knows it."""

from msgdas.fast.layout import layout
from msgdas.fast.memory import keep_freed_memory
from msgdas.fast.native import use_native
from msgdas.fast.twins import slow_down, speed_up

__all__ = ["keep_freed_memory", "layout", "slow_down", "speed_up", "use_native"]
