"""The files of an R package at their place. The installer of an exported Dockerfile takes this module along."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from cregraph.errors import CregraphError
from cregraph.formats.inflate import part, part_of
from cregraph.formats.tarball import unpack
from cregraph.formats.untrusted_tar import PACKAGE, Reader
from cregraph.image.model.tar_entry import Entry
from cregraph.kinds.base import Input
from cregraph.plan.parts import Segment

__all__ = ["entries"]


def entries(segment: Segment, source: Input) -> Iterator[Entry]:
    """Return the files of a package at its place. Those of a built package are read from a `source.scratch()` file: use them
    before it is closed."""
    at, path = str(segment.place["at"]).strip("/"), source.path()
    if segment.place.get("form") == "binary":  # its files are in a folder with its name
        what, top, scratch = f"{segment.name} (a built R package)", f"{segment.name}/", source.scratch()
        members = unpack(path, scratch, what=what)
        content = functools.partial(part, scratch)
    else:
        what, top = f"{segment.name}: the result of its task", ""
        with path.open("rb") as file:
            members = [member for member in Reader(file, what=what, policy=PACKAGE) if member.type != "directory"]
        content = functools.partial(part_of, path)
    for member in members:
        inner = member.path.removeprefix(top)
        if not inner or not member.path.startswith(top):
            raise CregraphError(f"{what}: `{member.path[:200]}` is not in the folder `{segment.name}`")
        mode = 0o755 if member.mode & 0o111 else 0o644
        if member.type == "file":
            chunks = functools.partial(content, member.offset, member.size)
            yield Entry(path=f"{at}/{inner}", mode=mode, size=member.size, chunks=chunks)
        elif member.type == "symlink":
            yield Entry(path=f"{at}/{inner}", type="symlink", mode=0o777, link=member.link)
        else:
            yield Entry(path=f"{at}/{inner}", type="hardlink", mode=mode, link=f"{at}/{member.link.removeprefix(top)}")
