"""A finding of a comparison: the file that differs, the likely cause, and what to do about it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cregraph.text import printable

__all__ = ["Cause", "Finding", "cures", "shown"]

Cause = Literal["time", "path", "random", "order", "build id", "compiled", "archive", "bytecode", "listing", "mode", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A difference. `path` is the file in its package, `inside` the place in it: an R object, a section, a member, a line."""

    path: str
    cause: Cause
    inside: str = ""
    one: str = ""
    two: str = ""

    @property
    def cure(self) -> str:
        """Return what to do about the cause."""
        return cures()[self.cause]

    def within(self, path: str) -> Finding:
        """Return the same difference as one in the archive `path`, whose member this file is."""
        inner = self.path + (f": {self.inside}" if self.inside else "")
        return replace(self, path=path, inside=inner)


def shown(value: object, limit: int = 80) -> str:
    """Return `value` as printable text of at most `limit` characters."""
    return printable(value if isinstance(value, str) else repr(value), limit)


@functools.cache
def cures() -> dict[str, str]:
    """Return what a team that only uses the package can do about each cause."""
    import yaml

    return dict(yaml.safe_load(Path(__file__).with_name("cures.yaml").read_text(encoding="utf-8")))
