"""A file or link that becomes part of an image layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Entry", "ancestors", "from_bytes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A tar entry: `path` relative to the image's root, no leading slash, no `.` or `..` component, `/` between.

    `mode` is the permission bits only. `link` is a symbolic link's text, or for a hard link the path (same form as
    `path`) of another entry of the same segment. `chunks` gives the content, `size` bytes in all, each time it is called.
    `sha256` is the content's, if the maker of the entry hashed these bytes; if empty, they are hashed when they are written.
    Directories have no entries: a layer's preamble lists them.
    """

    path: str
    type: Literal["file", "symlink", "hardlink"] = "file"
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    link: str = ""
    chunks: Callable[[], Iterable[bytes]] | None = None
    sha256: str = ""


def from_bytes(path: str, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Entry:
    return Entry(path=path, mode=mode, uid=uid, gid=gid, size=len(data), chunks=lambda: (data,))


def ancestors(path: str) -> Iterator[str]:
    """Yield the directories above `path`, nearest first, without the root (`a/b/c` gives `a/b`, `a`)."""
    while (cut := path.rfind("/")) > 0:
        path = path[:cut]
        yield path
