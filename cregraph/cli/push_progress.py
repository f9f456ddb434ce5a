"""The progress of a push on stderr: one live line on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from cregraph.cli.terminal_output import counted, megabytes, seconds, talk
from cregraph.image.media.push import Moved

if TYPE_CHECKING:
    from rich.status import Status

__all__ = ["Transfer"]

_EVERY = 10.0  # seconds between lines where there is no terminal


class Transfer:
    """A receiver for what moved, from any thread. As a context it ends the live line. `whole` is the size of all blobs."""

    def __init__(self, title: str, *, whole: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._whole = whole
        self._clock = clock
        self._guard = threading.Lock()
        self._start = self._said = clock()
        self._done: dict[str, int] = {}
        self._sent: dict[str, int] = {}
        self._there = 0
        self._live: Status | None = None

    def __enter__(self) -> Transfer:
        if sys.stderr.isatty():
            from rich.console import Console

            self._live = Console(stderr=True).status(self._title)
            self._live.start()
        else:
            talk(self._title)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, moved: Moved) -> None:
        with self._guard:
            if moved.how in ("mounted", "skipped"):
                self._there += 1
            else:
                self._sent[moved.digest] = moved.done
            self._done[moved.digest] = moved.done
            now = self._clock()
            if now - self._said < (0.2 if self._live else _EVERY):
                return
            self._said = now
            line = self._line(now)
        if self._live is not None:
            self._live.update(line)
        else:
            talk(line)

    def _line(self, now: float) -> str:
        """Return text such as `pushing x: 120.0 MB of 1.2 GB, 80.0 MB sent, 3 blobs existed already; 12.0 s`."""
        done, sent = sum(self._done.values()), sum(self._sent.values())
        without = f", {counted(self._there, 'blob')} existed already" if self._there else ""
        much = f"{megabytes(done)} of {megabytes(self._whole)}, {megabytes(sent)} sent{without}"
        return f"{self._title}: {much}; {seconds(now - self._start)}"
