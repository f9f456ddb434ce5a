"""The files of a built R package at their place; on its own, for `cregraph.export.installer` takes it along."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cregraph.errors import CregraphError
from cregraph.formats.tarball import unpack
from cregraph.image.model.tar_entry import Entry

__all__ = ["built", "piece"]

_BLOCK = 1 << 20


def built(name: str, path: Path, at: str, scratch: IO[bytes]) -> Iterator[Entry]:
    """What the tarball at `path` holds in its folder `name`, below `at` (relative to the image's root). The contents are read
    from `scratch`. Raises CregraphError naming package and member."""
    what = f"{name} (a built R package)"
    for member in unpack(path, scratch, what=what):
        top, _, inner = member.path.partition("/")
        if top != name or not inner:
            raise CregraphError(f"{what}: `{member.path[:200]}` is not in the folder `{name}`")
        mode = 0o755 if member.mode & 0o111 else 0o644
        if member.type == "file":
            chunks = functools.partial(piece, scratch, member.offset, member.size)
            yield Entry(path=f"{at}/{inner}", mode=mode, size=member.size, chunks=chunks)
        elif member.type == "symlink":
            yield Entry(path=f"{at}/{inner}", type="symlink", mode=0o777, link=member.link)
        else:
            link = member.link.partition("/")[2]
            yield Entry(path=f"{at}/{inner}", type="hardlink", mode=mode, link=f"{at}/{link}")


def piece(file: IO[bytes], start: int, size: int) -> Iterator[bytes]:
    """The bytes of `file` from `start`, `size` of them."""
    file.seek(start)
    while size > 0 and (block := file.read(min(_BLOCK, size))):
        size -= len(block)
        yield block
