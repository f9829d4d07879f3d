"""The speed wing: makes networks faster without changing what they compute. Start reading at `msgdas.fast.twins`.

`msgdas.jobs`, `msgdas.compare` and `msgdas.bench` use it; nothing below them may import it.
"""

from msgdas.fast.layout import layout
from msgdas.fast.memory import keep_freed_memory
from msgdas.fast.native import use_native
from msgdas.fast.twins import slow_down, speed_up

__all__ = ["keep_freed_memory", "layout", "slow_down", "speed_up", "use_native"]
