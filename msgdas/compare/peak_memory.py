"""Run a command and write its peak resident memory, in bytes, to a file: ``python peak_memory.py FILE COMMAND…``.

A script of its own that imports nothing of msgdas: Linux counts the memory of the process that starts a program towards
the program's peak, so the starter must be small. Signals are left to the command, which gets them too; its exit code is
passed on, 128 + n for signal n.
"""

import os
import signal
import subprocess
import sys


def main(file: str, *command: str) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    with open(file, "w") as out:
        out.write(str(usage.ru_maxrss * unit))
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
