"""Base facts out of the layers of an image: made once, by streaming, with nothing unpacked.

Each layer is read once, in order; its blob is checked against its digest, its plain bytes against the config's diff id.
Memory grows with the number of paths (some 150 bytes each), not with the size of files.

**Which files are listed.** `BaseFacts.directories` and `links` are complete. `files` holds everything else (devices and
sockets among it) that is not

- in /bin, /sbin, /lib*, /proc, /sys, /dev;
- in /usr/bin, /usr/sbin, /usr/lib*, /usr/share, /usr/include, /usr/libexec, /usr/src, /usr/games (/usr/local is listed);
- more than two levels below a folder named site-packages or dist-packages.

These are the places that images write to, where a file of the base can be in the way of one of ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator

from cregraph.digest import canonical
from cregraph.errors import CregraphError
from cregraph.formats.tar_stream import Member, Taker, bounded, members
from cregraph.image.bases.base_image import BaseImage
from cregraph.image.bases.file_tree import Directory, Link, Tree
from cregraph.image.bases.python_facts import find_python
from cregraph.image.model.blocks import blocks_as_file, inflated
from cregraph.image.model.manifest import Descriptor
from cregraph.lock.base_facts import BaseFacts, LayerFact

__all__ = ["facts_of", "is_listed"]

_GLIBC = re.compile(rb"GNU C Library [^\n\0]{0,200}?release version ([0-9]+\.[0-9]+)")
_LIBC = ("/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib")
_UNLISTED = re.compile(r"/(?:bin|sbin|lib[^/]*|proc|sys|dev|usr/(?:bin|sbin|lib[^/]*|share|include|libexec|src|games))(?:/|$)")
_DEEP = re.compile(r"/(?:site|dist)-packages/[^/]+/[^/]+/")
_USER = re.compile(r"[a-z_][a-z0-9_.-]{0,63}\$?", re.IGNORECASE)


def facts_of(image: BaseImage, *, progress: Callable[[int], None] | None = None) -> BaseFacts:
    """All that must be known of `image`. `progress` is called with the number of compressed bytes that were read.

    Raises CregraphError naming the layer for a blob or diff id that differs, a hostile or damaged tar, and bombs.
    """
    config = image.config()
    try:
        canonical(config)
    except TypeError:
        raise CregraphError(f"{image.name}: its config holds a fractional number, which no image's config has") from None
    tree = Tree()
    layers = []
    for i, (layer, diff_id) in enumerate(zip(image.manifest.layers, config["rootfs"]["diff_ids"], strict=True)):
        what = f"{image.name}: layer {i + 1} of {len(image.manifest.layers)} ({layer.digest[:19]}…)"
        _read_layer(image, layer, diff_id, tree, what, progress)
        layers.append(LayerFact(digest=layer.digest, diff_id=diff_id, size=layer.size, media_type=layer.media_type))
    directories = {"/": tree.root.fact}
    links: dict[str, str] = {}
    files: set[str] = set()
    for path, node in tree.walk():
        if isinstance(node, Directory):
            directories[path] = node.fact
        elif isinstance(node, Link):
            links[path] = node.text
        elif is_listed(path):
            files.add(path)
    return BaseFacts(
        digest=image.manifest.digest,
        config=config,
        layers=tuple(layers),
        glibc=_glibc(tree),
        users=_users(tree.kept("/etc/passwd") or b""),
        python=find_python(tree, where=image.name),
        directories=directories,
        links=links,
        files=frozenset(files),
    )


def is_listed(path: str) -> bool:
    """Whether `BaseFacts.files` tells of the absolute `path` (the rule is at the top of this module)."""
    return not _UNLISTED.match(path) and not _DEEP.search(path)


def _read_layer(
    image: BaseImage, layer: Descriptor, diff_id: str, tree: Tree, what: str, progress: Callable[[int], None] | None
) -> None:
    if "tar" not in layer.media_type:
        raise CregraphError(f"{what}: its media type `{layer.media_type}` is that of no file system")
    read = 0
    hasher = hashlib.sha256()

    def counted() -> Iterator[bytes]:
        nonlocal read
        for block in image.open_layer(layer):
            read += len(block)
            if progress:
                progress(len(block))
            yield block

    def hashed() -> Iterator[bytes]:
        for block in bounded(inflated(counted(), what=what), compressed=lambda: read, what=what):
            hasher.update(block)
            yield block

    wanted: list[_Taken | None] = [None]

    def taker(member: Member) -> Taker | None:
        wanted[0] = _taker_of(member.path)
        return wanted[0]

    tree.start_layer()
    for member in members(blocks_as_file(hashed()), what=what, taker=taker):
        taken, wanted[0] = wanted[0], None
        tree.apply(member, taken.result if taken else None)
    if hasher.hexdigest() != diff_id.removeprefix("sha256:"):
        raise CregraphError(
            f"{what}: its plain bytes have sha256:{hasher.hexdigest()}, but the config says {diff_id}",
            "the image is damaged or was put together wrongly; build or pull it again",
        )


class _Taken:
    """What is kept of a file: its first bytes, or the first match of a pattern in it."""

    def __init__(self, *, head: int = 0, pattern: re.Pattern[bytes] | None = None) -> None:
        self._head = head
        self._pattern = pattern
        self._buffer = b""
        self.result: bytes | None = None

    def __call__(self, block: bytes | None) -> None:
        if self._pattern is None:
            if block is None:
                self.result = self._buffer
            elif len(self._buffer) < self._head:
                self._buffer += block[: self._head - len(self._buffer)]
        elif block is not None and not self.result:
            if found := self._pattern.search(self._buffer + block):
                self.result = found[1]
            self._buffer = (self._buffer + block)[-1024:]


def _taker_of(path: str) -> _Taken | None:
    folder, _, name = path.rpartition("/")
    if name == "METADATA" or name == "PKG-INFO" or name.endswith((".egg-info", ".pth", "patchlevel.h")):
        if folder.endswith((".dist-info", ".egg-info", "EGG-INFO", "-packages")) or name == "patchlevel.h":
            return _Taken(head=1 << 16)
    elif path == "etc/passwd":
        return _Taken(head=1 << 20)
    elif name.startswith("libc"):
        if name == "libc.so.6" or re.fullmatch(r"libc-2\.[0-9]+\.so", name):
            return _Taken(pattern=_GLIBC)
    elif "python3." in name and (found := re.fullmatch(r"(?:lib)?python3\.([0-9]{1,3})(?:\.so(?:\.[0-9.]*)?)?", name)):
        return _Taken(pattern=re.compile(rb"(?<![0-9.])(3\.%s\.[0-9]{1,3}(?:(?:a|b|rc)[0-9]{1,3})?)\+?\0" % found[1].encode()))
    return None


def _glibc(tree: Tree) -> str | None:
    for folder in _LIBC:
        found = tree.resolve(f"{folder}/libc.so.6")
        if found is None:
            continue
        if version := tree.kept(found):
            return version.decode()
        if named := re.fullmatch(r".*/libc-(2\.[0-9]+)\.so", found):
            return named[1]
    return None


def _users(passwd: bytes) -> dict[str, tuple[int, int, str]]:
    """passwd(5), lines that are none skipped; of two lines for a name the first holds, as in libc."""
    users: dict[str, tuple[int, int, str]] = {}
    for line in passwd.decode("utf-8", "replace").splitlines()[:100_000]:
        fields = line.split(":")
        if len(fields) != 7 or not _USER.fullmatch(fields[0]):
            continue
        uid, gid, home = fields[2], fields[3], fields[5]
        if not (uid.isascii() and uid.isdigit() and gid.isascii() and gid.isdigit() and len(uid) < 11 and len(gid) < 11):
            continue
        users.setdefault(fields[0], (int(uid), int(gid), home if home.startswith("/") else "/"))
    return users
