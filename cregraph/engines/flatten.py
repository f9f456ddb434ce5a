"""An image's layers as one tar, without unpacking them: what `cregraph.engines.extract` would leave on disk, streamed.

A disk may merge names that differ by case (a Mac's does), so what goes to an engine elsewhere is never unpacked here. The tar
holds folders, then symbolic links, then files in the order of the layers, then hard links. Every owner is 0, no set-id bit is
left, devices, FIFOs and sockets are left out. Names are bytes, as they came (GNU form).
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

from cregraph.engines.contract import EPOCH, Write
from cregraph.errors import CregraphError
from cregraph.formats.tar_header import OPAQUE, whiteout
from cregraph.formats.untrusted_tar import IMAGE, Member, Reader

__all__ = ["flatten"]

#: Gives the layers' plain, verified tars, in order, each open until the next is asked for. Read twice.
Layers = Callable[[], Iterable[IO[bytes]]]


@dataclass(slots=True)
class _File:
    """Content: the entry `number` of the layer `layer`."""

    layer: int
    number: int
    size: int
    mode: int
    mtime: int


@dataclass(slots=True)
class _Link:
    text: bytes
    mtime: int


@dataclass(slots=True)
class _Folder:
    mode: int = 0o755
    mtime: int = EPOCH
    within: dict[bytes, _Folder | _File | _Link] = field(default_factory=dict)


def flatten(layers: Layers, write: Write, *, title: str) -> list[str]:
    """Write the tar. Returns the paths, relative to the root and sorted, of all that is no folder (names that are not UTF-8 with
    surrogates).

    The rules are those of image-spec, layer.md. Raises CregraphError, beginning with `title`, for a hard link to what is not
    there and for a tar that `cregraph.formats.untrusted_tar` refuses.
    """
    tree = _Tree(title)
    for number, stream in enumerate(layers()):
        tree.add(number, stream)
    folders: list[tuple[bytes, _Folder]] = []
    links: list[tuple[bytes, _Link]] = []
    files: dict[tuple[int, int], tuple[_File, list[bytes]]] = {}
    for path, node in _walk(tree.root):
        if isinstance(node, _Folder):
            folders.append((path, node))
        elif isinstance(node, _Link):
            links.append((path, node))
        else:
            files.setdefault((node.layer, node.number), (node, []))[1].append(path)
    for path, folder in folders:
        write(_header(path, tarfile.DIRTYPE, folder.mode, folder.mtime))
    for path, link in links:
        write(_header(path, tarfile.SYMTYPE, 0o777, link.mtime, link=link.text))
    left = set(files)
    for layer, stream in enumerate(layers()):
        tar = Reader(stream, what=title, policy=IMAGE)
        for number, member in enumerate(tar):
            if (layer, number) not in left:
                continue
            left.discard((layer, number))
            file, paths = files[layer, number]
            if member.type != "file" or member.size != file.size:
                raise CregraphError(f"{title} changed while it was read")
            write(_header(paths[0], tarfile.REGTYPE, file.mode, file.mtime, size=file.size))
            for piece in tar.blocks():
                write(piece)
            write(bytes(-file.size % tarfile.BLOCKSIZE))
    if left:
        raise CregraphError(f"{title} changed while it was read")
    for file, paths in files.values():
        for path in paths[1:]:
            write(_header(path, tarfile.LNKTYPE, file.mode, file.mtime, link=paths[0]))
    write(bytes(2 * tarfile.BLOCKSIZE))
    names = [path for path, _ in links] + [path for _, paths in files.values() for path in paths]
    return sorted(name.decode("utf-8", "surrogateescape") for name in names)


class _Tree:
    """What the layers come to. Nothing is ever put or looked for behind a symbolic link."""

    def __init__(self, title: str) -> None:
        self.root = _Folder()
        self._title = title

    def add(self, layer: int, stream: IO[bytes]) -> None:
        """Lay one layer over what is there."""
        added: set[bytes] = set()
        for number, member in enumerate(Reader(stream, what=self._title, policy=IMAGE)):
            parts = _parts(member.path)
            if self._whiteout(parts, added):
                continue
            self._put(parts, member, layer, number)
            path = b"/".join(parts)
            while path and path not in added:
                added.add(path)
                path = path.rpartition(b"/")[0]

    def _put(self, parts: tuple[bytes, ...], member: Member, layer: int, number: int) -> None:
        mtime = min(max(member.mtime, 0), 1 << 32)
        if member.type == "directory":
            folder = self._folder(parts)
            folder.mode, folder.mtime = member.mode & 0o1777 | 0o500, mtime
            return
        if member.type == "other":
            return
        if not parts:
            raise CregraphError(f"{self._title} holds a file where its root should be")
        folder = self._folder(parts[:-1])
        if member.type == "hardlink":
            target = _parts(member.link)
            if target == parts:
                return
            above = self._find(target[:-1]) if target else None
            found = above.within.get(target[-1]) if above is not None else None
            if found is None or isinstance(found, _Folder):
                raise CregraphError(
                    f"{self._title} holds the hard link `{member.name}` to `{member.link}`, which it does not hold"
                )
            folder.within[parts[-1]] = found
        elif member.type == "symlink":
            folder.within[parts[-1]] = _Link(member.link.encode("utf-8", "surrogateescape"), mtime)
        else:
            folder.within[parts[-1]] = _File(layer, number, member.size, member.mode & 0o777, mtime)

    def _find(self, parts: tuple[bytes, ...]) -> _Folder | None:
        here: _Folder | _File | _Link | None = self.root
        for part in parts:
            if not isinstance(here, _Folder):
                return None
            here = here.within.get(part)
        return here if isinstance(here, _Folder) else None

    def _folder(self, parts: tuple[bytes, ...]) -> _Folder:
        """The folder there; whatever else is in the place of it or of one above, a link too, gives way."""
        here = self.root
        for part in parts:
            found = here.within.get(part)
            if not isinstance(found, _Folder):
                found = here.within[part] = _Folder()
            here = found
        return here

    def _whiteout(self, parts: tuple[bytes, ...], added: set[bytes]) -> bool:
        gone = whiteout(parts[-1].decode("utf-8", "surrogateescape")) if parts else None
        folder = self._find(parts[:-1]) if gone else None
        if gone and folder is not None:
            name = gone.encode("utf-8", "surrogateescape")
            if gone == OPAQUE:
                _empty(folder, b"/".join(parts[:-1]), added)
            elif b"/".join((*parts[:-1], name)) not in added:
                folder.within.pop(name, None)
        return gone is not None


def _empty(folder: _Folder, path: bytes, added: set[bytes]) -> None:
    """Take out what is in `folder`, but for what this same layer added."""
    for name, node in list(folder.within.items()):
        child = path + b"/" + name if path else name
        if child not in added:
            del folder.within[name]
        elif isinstance(node, _Folder):
            _empty(node, child, added)


def _walk(folder: _Folder) -> Iterator[tuple[bytes, _Folder | _File | _Link]]:
    """All below `folder`, sorted; a folder before what is in it."""
    todo = [(name, node) for name, node in sorted(folder.within.items(), reverse=True)]
    while todo:
        path, node = todo.pop()
        yield path, node
        if isinstance(node, _Folder):
            todo += [(path + b"/" + name, child) for name, child in sorted(node.within.items(), reverse=True)]


def _parts(path: str) -> tuple[bytes, ...]:
    return tuple(path.encode("utf-8", "surrogateescape").split(b"/")) if path else ()


def _header(path: bytes, type: bytes, mode: int, mtime: int, *, size: int = 0, link: bytes = b"") -> bytes:
    info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
    info.type, info.mode, info.mtime, info.size = type, mode, mtime, size
    info.linkname = link.decode("utf-8", "surrogateescape")
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
