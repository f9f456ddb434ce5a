"""Run one command and say what it took: started as a program of its own (`python -I -S watch.py FD COMMAND...`).

It is a small process because the kernel counts, as the peak of a program, also that of the process which started it. One
line of JSON goes to the descriptor FD: `wall` and `cpu` in seconds (user and system, of the command and all that it waited
for), `peak` in KiB (resident, of the largest process among them), `own` in KiB (of the command itself, looked at every
20 ms, so 0 or too small for one that is over sooner), `code` as a shell has it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time


def main() -> None:
    fd, argv = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(fd, False)
    over = threading.Event()
    own = [0]
    start = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, os.environ)
    looker = threading.Thread(target=_look, args=(pid, over, own), daemon=True)
    looker.start()
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    over.set()
    looker.join()
    code = os.waitstatus_to_exitcode(status)
    told = {
        "wall": wall,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss,
        "own": own[0],
        "code": code if code >= 0 else 128 - code,
    }
    os.write(fd, json.dumps(told).encode() + b"\n")


def _look(pid: int, over: threading.Event, own: list[int]) -> None:
    while not over.wait(0.02):
        try:
            with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
                found = re.search(r"^VmHWM:\s+(\d+) kB", file.read(), re.MULTILINE)
        except OSError:
            return
        if found:
            own[0] = max(own[0], int(found[1]))


if __name__ == "__main__":
    main()
