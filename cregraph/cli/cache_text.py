"""The output of `cregraph cache`: the contents of a store and the locks that need them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from cregraph.cli.terminal_output import counted, megabytes, talk
from cregraph.store.gc.inventory import Usage
from cregraph.store.gc.roots import Roots

__all__ = ["listing", "removed_text", "root_names", "tell_roots", "usage_object"]

_DAY = 86400.0
#: What the entries of a section of the store are called.
_NOUNS = {
    "sha256": "object",
    "segments": "segment",
    "layers": "layer",
    "tasks": "task result",
    "images": "image record",
    "projects": "lock forgotten",
    "logs": "log",
    "partial": "partial download",
    "roots": "build root",
    "environments": "environment",
    "segment-trees": "unpacked segment",
    "result-trees": "unpacked result",
}


def listing(kinds: Iterable[Usage], found: Roots) -> Iterator[str]:
    """Yield a table of the sections of the store, and how much of each known locks need."""
    yield f"{'':18}{'number':>8}{'size':>11}{'needed':>10}{'size':>11}  unused for"
    for kind in kinds:
        reached = ("?", "?") if found.unreadable else (str(kind.reached), megabytes(kind.reached_size))
        unused = "" if kind.oldest is None else f"{max(0, int((time.time() - kind.oldest) // _DAY))} days"
        yield f"{kind.name:18}{kind.count:>8}{megabytes(kind.size):>11}{reached[0]:>10}{reached[1]:>11}  {unused}"


def usage_object(kind: Usage, found: Roots) -> dict[str, object]:
    """Return a row of the table for `--json`. With unreadable locks, the numbers of needed entries are null."""
    known = not found.unreadable
    return {
        "name": kind.name,
        "count": kind.count,
        "bytes": kind.size,
        "reached": kind.reached if known else None,
        "reached_bytes": kind.reached_size if known else None,
        "oldest_use": kind.oldest,
    }


def removed_text(removed: Mapping[str, int]) -> str:
    """Return the numbers of removed entries by section, as in `2 objects, 1 log`."""
    parts = [
        counted(number, _NOUNS[section]) if section in _NOUNS else f"{number} of {section}"
        for section, number in removed.items()
        if number
    ]
    return ", ".join(parts) or "nothing to delete"


def root_names(found: Roots) -> list[str]:
    """Return the names of the locks that keep things, for `--json`."""
    return [root.name.replace("`", "") for root in found.roots]


def tell_roots(found: Roots) -> None:
    """Report lock files that are gone or unreadable."""
    kept = {one.lock for one in found.keep}
    for gone in found.gone:
        talk(f"`{gone}` does not exist any more: " + ("its last build is kept" if gone in kept else "it keeps nothing"))
    for why in found.unreadable:
        talk(f"cannot read what a lock needs: {why}")
