"""Run a command and print its peak resident memory in bytes: ``python peak_memory.py COMMAND…``.

A script of its own that imports nothing of msgdas: Linux counts the memory of the process that starts a program towards
the program's peak, so the starter must be small. Signals are left to the command, which gets them too; its exit code is
passed on, 128 + n for signal n. Standard input is the starter's pulse: when it ends, because the process that holds its
other end was killed, the command is told to stop.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress


def main(*command: str) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    threading.Thread(target=stop_at_end_of_input, args=(process.pid,), daemon=True).start()
    _, status, usage = os.wait4(process.pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    with suppress(OSError):  # nobody listens any more
        os.write(1, str(usage.ru_maxrss * unit).encode())
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def stop_at_end_of_input(process: int) -> None:
    while os.read(0, 1):
        pass
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # the thread may wait for ever
