"""A file system after layers were applied in order, without the contents of files.

Source: OCI image specification 1.1, layer.md. `.wh.NAME` hides NAME of the layers below. `.wh..wh..opq` hides all that the
layers below have in its folder. Neither hides members of its own layer; the order in the tar does not matter. A path through
a link or file replaces that by a directory, as both image stores of Docker do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cregraph.formats.tar_header import OPAQUE, whiteout
from cregraph.formats.untrusted_tar import Member
from cregraph.lock.base_facts import DirFact, follow

__all__ = ["Directory", "File", "Link", "Tree"]


@dataclass(eq=False, slots=True)
class File:
    """A node that is neither directory nor link. `kept` is what the caller of `Tree.apply` keeps of it, or None."""

    layer: int
    kept: Any = None


@dataclass(eq=False, slots=True)
class Link:
    """A symbolic link."""

    layer: int
    text: str


_UNLISTED = DirFact(mode=0o755, uid=0, gid=0, mtime=0)


@dataclass(eq=False, slots=True)
class Directory:
    """A directory. If no layer lists it, it belongs to root, with mode 755 and time 0, as in engines."""

    layer: int
    fact: DirFact = _UNLISTED
    children: dict[str, Directory | Link | File] = field(default_factory=dict)

    @property
    def is_listed(self) -> bool:
        return self.fact is not _UNLISTED


class Tree:
    """A tree of nodes, empty at first. Call `start_layer` before the members of each layer."""

    def __init__(self) -> None:
        self.root = Directory(0)
        self._layer = 0
        self._plain = File(0)

    def start_layer(self) -> None:
        """Start the next layer. All members that follow belong to it."""
        self._layer += 1
        self._plain = File(self._layer)  # one object for all files of a layer of which nothing is kept

    def apply(self, member: Member, kept: Any = None) -> None:
        """Apply one member. `kept` is kept at its node, if it is a file."""
        folder, _, name = member.path.rpartition("/")
        if not name:
            if member.type == "directory":
                self.root.fact = _fact(member)
            return
        parent = self._folder(folder)
        if (gone := whiteout(name)) is not None:
            self._hide(parent, list(parent.children) if gone == OPAQUE else [gone])
            return
        if member.type == "directory":
            there = parent.children.get(name)
            if isinstance(there, Directory):
                there.fact, there.layer = _fact(member), self._layer
            else:
                parent.children[name] = Directory(self._layer, _fact(member))
        elif member.type == "symlink":
            parent.children[name] = Link(self._layer, member.link)
        elif member.type == "hardlink":
            target = self.at(member.link)
            if isinstance(target, Link):
                parent.children[name] = Link(self._layer, target.text)
            else:
                parent.children[name] = self._file(target.kept if isinstance(target, File) else None)
        else:
            parent.children[name] = self._file(kept)

    def at(self, path: str) -> Directory | Link | File | None:
        """Return the node at `path`, without following links."""
        node: Directory | Link | File | None = self.root
        for part in path.split("/"):
            if part:
                node = node.children.get(part) if isinstance(node, Directory) else None
        return node

    def resolve(self, path: str) -> str | None:
        """Return `path` with all links followed, the last component too; None if nothing is there."""
        try:
            return follow(path, self._link_at, climbs=True)
        except (ValueError, FileNotFoundError):
            return None

    def kept(self, path: str) -> bytes | None:
        """Return what is kept of the file that `path` leads to."""
        found = self.resolve(path)
        node = self.at(found) if found else None
        return node.kept if isinstance(node, File) else None

    def names(self, path: str) -> list[str]:
        """Return the sorted names in the directory that `path` leads to; empty if it is not a directory."""
        found = self.resolve(path)
        node = self.at(found) if found else None
        return sorted(node.children) if isinstance(node, Directory) else []

    def walk(self) -> Iterator[tuple[str, Directory | Link | File]]:
        """Yield every absolute path except the root with its node, in no particular order."""
        todo: list[tuple[str, Directory]] = [("", self.root)]
        while todo:
            path, folder = todo.pop()
            for name, node in folder.children.items():
                yield f"{path}/{name}", node
                if isinstance(node, Directory):
                    todo.append((f"{path}/{name}", node))

    def _link_at(self, path: str) -> str | None:
        node = self.at(path)
        if node is None:
            raise FileNotFoundError(path)
        return node.text if isinstance(node, Link) else None

    def _file(self, kept: Any) -> File:
        return self._plain if kept is None else File(self._layer, kept)

    def _folder(self, path: str) -> Directory:
        node = self.root
        for part in path.split("/"):
            if not part:
                continue
            child = node.children.get(part)
            if not isinstance(child, Directory):
                child = node.children[part] = Directory(self._layer)
            child.layer = self._layer
            node = child
        return node

    def _hide(self, folder: Directory, names: Iterable[str]) -> None:
        """Hide what the layers below have of `names` in a folder, also below directories that this layer lists again."""
        todo = [(folder, name) for name in names]
        while todo:
            parent, name = todo.pop()
            node = parent.children.get(name)
            if node is not None and node.layer < self._layer:
                del parent.children[name]
            elif isinstance(node, Directory):
                todo += [(node, inner) for inner in node.children]


def _fact(member: Member) -> DirFact:
    return DirFact(mode=member.mode, uid=member.uid, gid=member.gid, mtime=member.mtime)
