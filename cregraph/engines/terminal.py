"""This process's terminal, lent to a sandbox: through a terminal of its own, so that nothing in there reaches the user's.

A program that has the user's terminal could push keys into it (TIOCSTI, ioctl_tty(2)), which the user's shell would run.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator

__all__ = ["Stdio", "raw", "relayed", "terminal", "write"]

Stdio = tuple[int, int, int]
"""The descriptors of stdin, stdout and stderr."""

_PIECE = 1 << 16


@contextlib.contextmanager
def terminal() -> Iterator[Stdio]:
    """Descriptors for a command's stdin, stdout and stderr: one new terminal that is relayed to ours, or pipes if stdin or stdout
    is not a terminal. A command could change the file behind a descriptor of ours (/proc/self/fd/1).

    To be used in the main thread. At the end our terminal is as it was, and all that was written is shown.
    """
    if not (os.isatty(0) and os.isatty(1)):
        with _typed() as typed, _shown(1) as out, _shown(2) as err:
            yield typed, out, err
        return
    import termios

    master, slave = os.openpty()

    def resize() -> None:
        with contextlib.suppress(OSError):
            termios.tcsetwinsize(master, termios.tcgetwinsize(0))

    resize()
    screen = threading.Thread(target=_show, args=(master, 1), daemon=True)
    with raw(resize), relayed(functools.partial(write, master), lambda: None):
        screen.start()
        try:
            yield slave, slave, slave
        finally:
            os.close(slave)
            screen.join(5)
    os.close(master)


@contextlib.contextmanager
def _typed() -> Iterator[int]:
    """A pipe that gives what comes at our stdin."""
    typed, keys = os.pipe()
    with relayed(functools.partial(write, keys), functools.partial(os.close, keys)):
        try:
            yield typed
        finally:
            os.close(typed)


@contextlib.contextmanager
def relayed(send: Callable[[bytes], object], end: Callable[[], object]) -> Iterator[None]:
    """While the block lasts, give `send` what comes at our stdin. `end` is called when that or the receiver ends."""
    stop, stopped = os.pipe()

    def copy() -> None:
        with contextlib.suppress(OSError):  # the receiver is gone
            while stop not in (ready := select.select([0, stop], [], [])[0]) and (data := os.read(ready[0], _PIECE)):
                send(data)
        with contextlib.suppress(OSError):
            end()

    reader = threading.Thread(target=copy, daemon=True)
    reader.start()
    try:
        yield
    finally:
        os.write(stopped, b".")
        reader.join(5)
        for each in (stop, stopped):
            os.close(each)


@contextlib.contextmanager
def raw(resize: Callable[[], object]) -> Iterator[None]:
    """While the block lasts, our terminal is in raw mode, and `resize` is called when its size changes."""
    import termios
    import tty

    was = termios.tcgetattr(0)
    before = signal.signal(signal.SIGWINCH, lambda *_: resize())
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, was)
        signal.signal(signal.SIGWINCH, before)


@contextlib.contextmanager
def _shown(descriptor: int) -> Iterator[int]:
    """A pipe whose content is written to our `descriptor`. At the end of the block all of it has been."""
    source, end = os.pipe()

    def show() -> None:
        _show(source, descriptor)
        os.close(source)  # if nobody reads ours any more, the command is told so by SIGPIPE

    reader = threading.Thread(target=show, daemon=True)
    reader.start()
    try:
        yield end
    finally:
        os.close(end)
        reader.join()


def _show(source: int, descriptor: int) -> None:
    """Copy `source` to our `descriptor`, until all other ends of it are closed and nothing is left to show."""
    with contextlib.suppress(OSError):
        while data := os.read(source, _PIECE):
            write(descriptor, data)


def write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
