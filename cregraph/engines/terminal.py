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
    """Descriptors for a command's stdin, stdout and stderr: ours, or one new terminal that is relayed to ours, where that is one.

    Where only stdin is a terminal (`… > file`, `… | head`), what is typed comes through a pipe. To be used in the main thread. At
    the end our terminal is as it was, and all that was written to it is shown.
    """
    if not os.isatty(0):
        yield 0, 1, 2
        return
    if not os.isatty(1):
        with _typed() as typed:
            yield typed, 1, 2
        return
    import termios

    master, slave = os.openpty()
    stop, stopped = os.pipe()

    def resize() -> None:
        with contextlib.suppress(OSError):
            termios.tcsetwinsize(slave, termios.tcgetwinsize(0))

    resize()
    relay = threading.Thread(target=_relay, args=(master, stop), daemon=True)
    with raw(resize):
        relay.start()
        try:
            yield slave, slave, slave
        finally:
            os.write(stopped, b".")
            relay.join(5)
            for each in (master, slave, stop, stopped):
                os.close(each)


@contextlib.contextmanager
def _typed() -> Iterator[int]:
    """A pipe that gives what is typed at our stdin, line by line as the terminal does."""
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


def _relay(master: int, stop: int) -> None:
    """Copy keys to the new terminal and what is written there to ours, until told to stop and nothing is left to show."""
    sources = [master, stop, 0]
    ending = False
    while True:
        ready = select.select(sources, [], [], 0 if ending else None)[0]
        if master in ready:
            with contextlib.suppress(OSError):
                write(1, os.read(master, _PIECE))
                continue
            return
        if ending:
            return
        if 0 in ready:
            keys = os.read(0, _PIECE)
            if keys:
                write(master, keys)
            else:
                sources.remove(0)
        if stop in ready:
            ending = True
            sources = [master]


def write(descriptor: int, data: bytes) -> None:
    """Write all of `data`."""
    while data:
        data = data[os.write(descriptor, data) :]
