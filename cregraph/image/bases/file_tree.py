"""A file system after layers were applied in order, without the contents of files.

Source: OCI image specification 1.1, layer.md. `.wh.NAME` hides NAME of the layers below. `.wh..wh..opq` hides all that the
layers below have in its folder. Neither hides members of its own layer; the order in the tar does not matter. A path through
a link or file replaces that by a directory, as both image stores of Docker do.
"""

from __future__ import annotations

from collections.abc import Iterator

from cregraph.formats.untrusted_tar import Member
from cregraph.formats.whiteouts import OPAQUE, whiteout
from cregraph.lock.base_facts import DirFact

__all__ = ["Directory", "File", "Link", "Tree"]


class File:
    """A node that is neither directory nor link. `kept` is the wanted part of its content, or None."""

    __slots__ = ("kept", "layer")

    def __init__(self, layer: int, kept: bytes | None = None) -> None:
        self.layer = layer
        self.kept = kept


class Link:
    """A symbolic link."""

    __slots__ = ("layer", "text")

    def __init__(self, layer: int, text: str) -> None:
        self.layer = layer
        self.text = text


class Directory:
    """A directory. If no layer lists it, it belongs to root, with mode 755 and time 0, as in engines."""

    __slots__ = ("children", "fact", "layer")

    def __init__(self, layer: int, fact: DirFact | None = None) -> None:
        self.layer = layer
        self.fact = fact or _UNLISTED
        self.children: dict[str, Directory | Link | File] = {}

    @property
    def is_listed(self) -> bool:
        """Return whether a layer lists the directory."""
        return self.fact is not _UNLISTED


_UNLISTED = DirFact(mode=0o755, uid=0, gid=0, mtime=0)


class Tree:
    """A tree of nodes, empty at first. Call `start_layer` before the members of each layer."""

    def __init__(self) -> None:
        self.root = Directory(0)
        self._layer = 0
        self._plain = File(0)

    def start_layer(self) -> None:
        """Start the next layer. All members that follow belong to it."""
        self._layer += 1
        self._plain = File(self._layer)  # one object for all files of a layer without kept content

    def apply(self, member: Member, kept: bytes | None = None) -> None:
        """Apply one member. `kept` is the kept part of its content."""
        folder, _, name = member.path.rpartition("/")
        if not name:
            if member.type == "directory":
                self.root.fact = _fact(member)
            return
        parent = self._folder(folder)
        if (gone := whiteout(name)) is not None:
            if gone == OPAQUE:
                self._hide_below(parent)
            elif gone:
                self._hide(parent, gone)
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
        todo = [part for part in reversed(path.split("/")) if part]
        done: list[str] = []
        hops = 0
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                done = done[:-1]  # as in the kernel: the root's parent is the root
                continue
            node = self.at("/".join([*done, part]))
            if node is None:
                return None
            if isinstance(node, Link):
                hops += 1
                if hops > 40:
                    return None
                if node.text.startswith("/"):
                    done = []
                todo.extend(part for part in reversed(node.text.split("/")) if part)
                continue
            done.append(part)
        return "/" + "/".join(done)

    def kept(self, path: str) -> bytes | None:
        """Return the kept content of the file that `path` leads to."""
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

    def _file(self, kept: bytes | None) -> File:
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

    def _hide(self, parent: Directory, name: str) -> None:
        node = parent.children.get(name)
        if node is None:
            return
        if node.layer < self._layer:
            del parent.children[name]
        elif isinstance(node, Directory):
            self._hide_below(node)

    def _hide_below(self, folder: Directory) -> None:
        todo = [folder]
        while todo:
            here = todo.pop()
            for name, node in list(here.children.items()):
                if node.layer < self._layer:
                    del here.children[name]
                elif isinstance(node, Directory):
                    todo.append(node)


def _fact(member: Member) -> DirFact:
    return DirFact(mode=member.mode, uid=member.uid, gid=member.gid, mtime=member.mtime)
