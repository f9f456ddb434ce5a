"""Output of commands: results on stdout, everything else on stderr, plain lines where there is no terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["as_json", "counted", "megabytes", "result", "seconds", "talk", "working"]


#: Of the form of what `--json` prints.
VERSION = 1
#: Whether this process has printed its answer as JSON.
answered = False


def result(text: str) -> None:
    """Print one line of the result on stdout."""
    print(text)


def as_json(answer: Mapping[str, Any]) -> None:
    """Print the answer, or the error, as JSON. A name that is not UTF-8 is written with JSON's own escapes."""
    global answered
    answered = True
    value = {"version": VERSION, **answer}
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    print(text if text.isascii() or _is_text(text) else json.dumps(value, indent=2, sort_keys=True))


def _is_text(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def talk(text: str) -> None:
    """Print one line on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show `text` while the block runs: a spinner on a terminal, a line elsewhere."""
    if not sys.stderr.isatty():
        talk(text)
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def counted(number: int, noun: str) -> str:
    """Return text such as `1 file` or `2 files`."""
    return f"{number} {noun}" + "s" * (number != 1)


def megabytes(size: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def seconds(value: float) -> str:
    """Return seconds, from 90 on with minutes."""
    return f"{value:.1f} s" if value < 90 else f"{int(value // 60)} min {int(value % 60)} s"
