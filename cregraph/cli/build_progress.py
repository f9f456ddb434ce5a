"""The progress of a build on stderr: live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from cregraph.build.build_run import Event
from cregraph.cli.terminal_output import counted, megabytes, seconds, talk
from cregraph.plan.missing_work import MissingWork

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

_SLOW = 1.0  # seconds; without a terminal, a file, segment or layer that took longer has a line of its own
_RUNNING = 10  # running tasks that are shown at once


class Display:
    """A receiver for the events of a build, from any thread. As a context it ends the live part.

    `work` is what the build has to do, `layers` how many the image has. On a terminal: counts and what runs, on lines that are
    cut to its width, and a lasting line for each task that ended. Elsewhere: a line when a task begins and ends, one when all
    files are fetched, and one for whatever else was slow.
    """

    def __init__(self, title: str, work: MissingWork, *, layers: int) -> None:
        self._title = title
        self._guard = threading.Lock()
        self._start = time.monotonic()
        self._running: dict[str, float] = {}
        self._all = {"artifact": len(work.artifacts), "segment": len(work.segments), "task": len(work.tasks), "layer": layers}
        self._count = dict.fromkeys(self._all, 0)
        self._size = sum(artifact.size for artifact in work.artifacts)
        self._arrived = 0
        self._live: Live | None = None

    def __enter__(self) -> Display:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=5, transient=True, get_renderable=self._picture)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        with self._guard:
            lines = self._take(event)
        # Outside the guard: the live part prints under a lock of its own, and asks for the picture under it.
        for line in lines:
            if self._live is not None:
                self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                talk(line)

    def received(self, size: int) -> None:
        """Count `size` more bytes that came from the network or a folder."""
        with self._guard:
            self._arrived += size

    def _take(self, event: Event) -> list[str]:
        """Count the event. Return the lines to print for it."""
        plain = self._live is None
        line = f"{event.subject} {event.name}: {event.what}, {seconds(event.seconds)}"
        if event.what == "begin":
            self._running[event.name] = time.monotonic()
            return [f"task {event.name}: started"] if plain else []
        if event.subject == "task":
            self._running.pop(event.name, None)
        if event.subject in self._count and event.what != "failed":
            self._count[event.subject] += 1
        if event.subject == "task":
            return [line] if plain or event.what != "reused" else []
        lines = [line] if plain and event.subject != "image" and event.seconds >= _SLOW else []
        if plain and event.what == "fetched" and self._count["artifact"] == self._all["artifact"]:
            took = seconds(time.monotonic() - self._start)
            lines.append(f"fetched {counted(self._all['artifact'], 'file')}, {megabytes(self._size)} in {took}")
        return lines

    def _picture(self) -> Text:
        from rich.text import Text

        now = time.monotonic()
        with self._guard:
            head = f"{self._title}  {seconds(now - self._start)}" + (f"  {megabytes(self._arrived)}" if self._arrived else "")
            rows = [head, "  ".join(filter(None, map(self._of, self._all)))]
            running = sorted(self._running.items(), key=lambda item: item[1])
        rows += [f"  {name}  {seconds(now - since)}" for name, since in running[:_RUNNING]]
        if len(running) > _RUNNING:
            rows.append(f"  and {len(running) - _RUNNING} more")
        return Text("\n".join(rows), no_wrap=True, overflow="ellipsis")

    def _of(self, subject: str) -> str:
        """Return text such as `segments 3 of 24`; empty if there is nothing to do."""
        done, whole = self._count[subject], self._all[subject]
        name = "files" if subject == "artifact" else f"{subject}s"
        return f"{name} {done} of {max(done, whole)}" if whole else ""
