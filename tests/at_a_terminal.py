"""A person at a terminal, for tests: a program in a terminal of its own, and keys that are pressed when something is shown."""

from __future__ import annotations

import os
import pty
import select
import struct
import time
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ


def at_a_terminal(
    argv: Sequence[str], keys: Sequence[tuple[str, str]], *, folder: Path, env: Mapping[str, str], seconds: float = 300
) -> tuple[int, str]:
    """Run `argv`; each of `keys` is what to wait for, after what was waited for before, and what to press then.

    Returns the exit status (-1: it did not end in time) and all that was shown.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(argv[0], list(argv), dict(env))
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    shown, at, left, until = "", 0, list(keys), time.monotonic() + seconds
    while time.monotonic() < until:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                data = os.read(terminal, 1 << 16)
            except OSError:  # Linux: all ends of it are closed
                data = b""
            if not data:
                break
            shown += data.decode(errors="replace")
        while left and (found := shown.find(left[0][0], at)) >= 0:
            at = found + len(left[0][0])
            os.write(terminal, left.pop(0)[1].encode())
    else:
        os.kill(pid, 9)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert not left, f"never shown: {left[0][0]!r}, in {shown!r}"
    return os.waitstatus_to_exitcode(status), shown
