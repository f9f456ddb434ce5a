"""A finding of a comparison: the file that differs, the likely cause, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cregraph.text import printable

__all__ = ["CURES", "Cause", "Finding", "shown"]

Cause = Literal["time", "path", "random", "order", "build id", "compiled", "archive", "bytecode", "listing", "mode", "unknown"]

#: What a team that only uses the package can do about each cause.
CURES: dict[Cause, str] = {
    "time": "the build reads the clock. Take it as a binary or from conda, or ask its authors to use SOURCE_DATE_EPOCH, or "
    "to ask for the time when it is needed and not while installing",
    "path": "a temporary path got into the result. Take it as a binary or from conda; its authors can compile with "
    "-ffile-prefix-map, or ask for the path when it is needed and not while installing",
    "random": "a value is drawn while installing. Take it as a binary or from conda; its authors can fix the seed (set.seed), or "
    "draw when the package is used",
    "order": "the same parts in another order: something lists a folder or a set, or runs in parallel. Take it as a binary or "
    "from conda; its authors can sort",
    "build id": "the linker's build id differs, and it is a hash of what was linked: look for the cause in what else differs, or "
    "link with -Wl,--build-id=none",
    "compiled": "the compiler gave other code: often something generated before it differs (a header with a time), or the "
    "processor was asked for (-march=native). Take it as a binary or from conda, or another version",
    "archive": "an archive in the result states times, owners or an order of its own. It can be made without: gzip -n, zip -X, "
    "ar D",
    "bytecode": "compiled Python states the time of its source. It can be made to state a hash: "
    "python -m compileall --invalidation-mode unchecked-hash",
    "listing": "a file is there in one of the two only: look at the log for a step that is skipped or fails now and then",
    "mode": "the same content with another mode or link: look at the log for what sets it",
    "unknown": "take it as a binary or from conda, or another version; its authors can be told with both results "
    "(see docs/cache.md)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One difference. `path` is the file in its package, `inside` the place in it: an R object, a section, a member, a line."""

    path: str
    cause: Cause
    inside: str = ""
    one: str = ""
    two: str = ""

    @property
    def cure(self) -> str:
        """What to do about the cause."""
        return CURES[self.cause]

    def within(self, path: str) -> Finding:
        """Return the same difference as one in the archive `path`, whose member this file is."""
        inner = self.path + (f": {self.inside}" if self.inside else "")
        return replace(self, path=path, inside=inner)


def shown(value: object, limit: int = 80) -> str:
    """Return `value` as printable text of at most `limit` characters."""
    return printable(value if isinstance(value, str) else repr(value), limit)
