"""A layer's preamble: each directory that its paths need, once, with the base's values if the base has it.

Every image store gives a listed directory the listed mode, owner and time; some stores reset one that is not listed. So a layer
lists every ancestor of every path.
"""

from __future__ import annotations

from collections.abc import Iterable

from cregraph.errors import CregraphError
from cregraph.image.model import tar_writer as tar
from cregraph.image.model.segment import Row
from cregraph.lock.base_facts import BaseFacts, DirFact
from cregraph.plan.layer_split import Owners

__all__ = ["check", "preamble"]


def preamble(needed: Iterable[str], facts: BaseFacts, owners: Owners) -> dict[str, DirFact]:
    """Return the directories `needed` (relative, with all their ancestors), parents first.

    A directory of the base keeps the base's values. A new one has mode 0755, the image's fixed time, and the owner that `owners`
    gives for the longest path at or above it, else 0:0. The root itself is never listed.
    """
    found = {}
    for path in sorted(set(needed), key=str.encode):  # a parent is a prefix, so it sorts first
        uid, gid = _owner("/" + path, owners)
        found[path] = facts.directories.get("/" + path) or DirFact(mode=0o755, uid=uid, gid=gid, mtime=tar.MTIME)
    return found


def check(needed: Iterable[str], rows: Iterable[Row], facts: BaseFacts, segment: str) -> None:
    """Raise CregraphError if a segment replaces something of the base or runs through one of its links.

    `needed` are the directories that its `rows` need. The message names the path and `segment`.
    """
    for path in sorted(needed, key=len):
        here = "/" + path
        link = facts.links.get(here)
        if link is not None:
            raise CregraphError(
                f"`{segment}` writes below `{here}`, which is a symbolic link of the base image to `{link}`",
                hint="write the real destination, because image stores would replace the link "
                f"by a directory: {_resolved(facts, here)}",
            )
        if here in facts.files:
            raise CregraphError(f"`{segment}` writes below `{here}`, which is a file of the base image")
    held = (("a symbolic link", facts.links), ("a directory", facts.directories), ("a file", facts.files))
    for row in rows:
        here = "/" + row.path
        if what := next((what for what, paths in held if here in paths), None):
            raise CregraphError(
                f"`{segment}` would replace `{here}`, {what} of the base image",
                hint="choose another destination, or remove the package if the base has it",
            )


def _owner(path: str, owners: Owners) -> tuple[int, int]:
    while path:
        if path in owners:
            return owners[path]
        path = path.rpartition("/")[0]
    return owners.get("/", (0, 0))


def _resolved(facts: BaseFacts, path: str) -> str:
    try:
        return f"`{facts.resolve(path + '/.')}`"
    except ValueError as error:
        return f"nowhere: {error}"
