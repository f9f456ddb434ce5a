"""The files of an R package at their place. The installer of an exported Dockerfile takes this module along."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cregraph.errors import CregraphError
from cregraph.formats.inflate import part
from cregraph.formats.tarball import unpack
from cregraph.formats.untrusted_tar import PACKAGE, Reader
from cregraph.image.model.tar_entry import Entry
from cregraph.kinds.base import Input
from cregraph.plan.parts import Segment

__all__ = ["entries"]


def entries(segment: Segment, source: Input) -> Iterator[Entry]:
    """Return the files of a package at its place. Those of a built package are read from a `source.scratch()` file: use them
    before it is closed."""
    at = str(segment.place["at"]).strip("/")
    path = source.path()
    if segment.place.get("form") == "binary":
        yield from _built(segment.name, path, at, source.scratch())
        return
    with path.open("rb") as file:
        for member in Reader(file, what=f"{segment.name}: the result of its task", policy=PACKAGE):
            mode = 0o755 if member.mode & 0o111 else 0o644
            if member.type == "file":
                chunks = functools.partial(_piece_of, path, member.offset, member.size)
                yield Entry(path=f"{at}/{member.path}", mode=mode, size=member.size, chunks=chunks)
            elif member.type == "symlink":
                yield Entry(path=f"{at}/{member.path}", type="symlink", mode=0o777, link=member.link)
            elif member.type == "hardlink":
                yield Entry(path=f"{at}/{member.path}", type="hardlink", mode=mode, link=f"{at}/{member.link}")


def _built(name: str, path: Path, at: str, scratch: IO[bytes]) -> Iterator[Entry]:
    what = f"{name} (a built R package)"
    for member in unpack(path, scratch, what=what):
        top, _, inner = member.path.partition("/")
        if top != name or not inner:
            raise CregraphError(f"{what}: `{member.path[:200]}` is not in the folder `{name}`")
        mode = 0o755 if member.mode & 0o111 else 0o644
        if member.type == "file":
            chunks = functools.partial(part, scratch, member.offset, member.size)
            yield Entry(path=f"{at}/{inner}", mode=mode, size=member.size, chunks=chunks)
        elif member.type == "symlink":
            yield Entry(path=f"{at}/{inner}", type="symlink", mode=0o777, link=member.link)
        else:
            link = member.link.partition("/")[2]
            yield Entry(path=f"{at}/{inner}", type="hardlink", mode=mode, link=f"{at}/{link}")


def _piece_of(path: Path, start: int, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from part(file, start, size)
