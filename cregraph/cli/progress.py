"""What a build is doing, on stderr: live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from cregraph.build import Event
from cregraph.cli.say import megabytes, seconds, talk

if TYPE_CHECKING:
    from rich.live import Live

_SLOW = 1.0  # seconds; without a terminal, quicker steps are only counted


class Display:
    """Takes the events of a build from any thread. A context: the live part ends with it."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._guard = threading.Lock()
        self._running: dict[str, str] = {}
        self._count = {"artifact": 0, "segment": 0, "task": 0, "layer": 0}
        self._bytes = 0
        self._live: Live | None = None

    def __enter__(self) -> Display:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        with self._guard:
            self._take(event)
            if self._live is not None:
                self._live.update(self._picture())

    def _take(self, event: Event) -> None:
        if event.what == "begin":
            self._running[event.name] = event.stage
            if self._live is None:
                talk(f"task {event.name}: begun")
            return
        self._running.pop(event.name, None)
        if event.subject in self._count and event.what != "failed":
            self._count[event.subject] += 1
        if event.what == "fetched":
            self._bytes += event.size
        line = f"{event.subject} {event.name}: {event.what}, {seconds(event.seconds)}"
        if event.subject == "task" and event.what in ("made", "failed"):
            self._say(line)
        elif self._live is None and event.subject != "image" and event.seconds >= _SLOW:
            talk(line)

    def _say(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False)
        else:
            talk(line)

    def _picture(self) -> str:
        count = self._count
        head = (
            f"{self._title}  {count['artifact']} fetched ({megabytes(self._bytes)})  {count['segment']} segments"
            f"  {count['task']} tasks  {count['layer']} layers"
        ).replace("[", r"\[")
        return "\n".join([head, *(f"  {name} …".replace("[", r"\[") for name in sorted(self._running))])
