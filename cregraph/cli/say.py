"""How commands talk: results on stdout, talk on stderr, plain lines where there is no terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cregraph.errors import CregraphError
from cregraph.session.project import Project

__all__ = ["as_json", "counted", "megabytes", "projects", "result", "seconds", "talk", "working"]


def result(text: str) -> None:
    """One line of the answer."""
    print(text)


def as_json(value: Any) -> None:
    """The answer for a program. A name that is not UTF-8 is written with JSON's own escapes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    print(text if text.isascii() or _is_text(text) else json.dumps(value, indent=2, sort_keys=True))


def _is_text(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def talk(text: str) -> None:
    """One line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def working(text: str) -> Iterator[None]:
    """Say what takes a while: a spinner on a terminal, a line elsewhere."""
    if not sys.stderr.isatty():
        talk(text)
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def projects(named: list[str], *, every: bool) -> list[Project]:
    """The projects that a command is for: the named profiles, all that have a lock here, or cregraph.yaml."""
    if not every:
        return [Project.of(name) for name in dict.fromkeys(named)] or [Project.of(None)]
    if named:
        raise CregraphError("either profiles or `--all`, not both")
    found: list[Project] = []
    for lock in sorted(Path("locks").glob("*.lock.json")):
        name = lock.name.removesuffix(".lock.json")
        profile = next((file for file in (f"{name}.yaml", f"{name}.yml") if Path(file).is_file()), None)
        if profile is None:
            talk(f"`{lock}` is left out: there is no profile `{name}.yaml` or `{name}.yml`")
        else:
            found.append(Project.of(profile))
    if not found:
        raise CregraphError(
            "`--all`: there is no lock of a profile in `locks/`", hint="name a profile: cregraph lock my_team.yaml"
        )
    return found


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" + "s" * (number != 1)


def megabytes(size: int) -> str:
    """Bytes as people read them."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def seconds(value: float) -> str:
    """Seconds as people read them."""
    return f"{value:.1f} s" if value < 90 else f"{int(value // 60)} min {int(value % 60)} s"
