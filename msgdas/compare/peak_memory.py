"""Run a command and note the most memory it had: ``python measured.py FILE COMMAND…``.

Linux counts the memory of the process that starts a program as the program's own. So this one, which stays small and
imports nothing of ours, starts the search. Signals are for the search, which gets them too; this one waits for its end.
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
