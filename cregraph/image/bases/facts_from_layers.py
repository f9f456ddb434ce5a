"""Base facts from the layers of an image, streamed once; nothing is unpacked.

Each layer is read once, in order. Its blob is checked against its digest, its plain bytes against the config's diff id.
Memory grows with the number of paths (about 150 bytes each), not with the size of files.

**Listed files.** `BaseFacts.directories` and `links` are complete. `files` holds all other paths (devices and sockets too)
that are not

- in /bin, /sbin, /lib*, /proc, /sys, /dev;
- in /usr/bin, /usr/sbin, /usr/lib*, /usr/share, /usr/include, /usr/libexec, /usr/src, /usr/games (/usr/local is listed);
- more than two levels below a folder named site-packages or dist-packages.

The listed places are those that images write to, where a file of the base can conflict with a new one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cregraph.digest import canonical
from cregraph.errors import CregraphError
from cregraph.formats.untrusted_tar import Member, Reader
from cregraph.image.bases.base_image import BaseImage
from cregraph.image.bases.file_tree import Directory, Link, Tree
from cregraph.image.bases.layer_tar import LayerTar
from cregraph.image.bases.python_facts import find_python
from cregraph.lock.base_facts import BaseFacts, LayerFact

__all__ = ["facts_of", "is_listed"]

_GLIBC = re.compile(rb"GNU C Library [^\n\0]{0,200}?release version ([0-9]+\.[0-9]+)")
_LIBC = ("/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib")
_UNLISTED = re.compile(r"/(?:bin|sbin|lib[^/]*|proc|sys|dev|usr/(?:bin|sbin|lib[^/]*|share|include|libexec|src|games))(?:/|$)")
_DEEP = re.compile(r"/(?:site|dist)-packages/[^/]+/[^/]+/")
_USER = re.compile(r"[a-z_][a-z0-9_.-]{0,63}\$?", re.IGNORECASE)


def facts_of(image: BaseImage, *, progress: Callable[[int], None] | None = None) -> BaseFacts:
    """Return the base facts of `image`. `progress` is called with the number of compressed bytes that were read.

    Raises CregraphError, naming the layer, for a wrong blob or diff id, an unsafe or damaged tar, or a decompression bomb.
    """
    config = image.config()
    try:
        canonical(config)
    except TypeError:
        raise CregraphError(f"{image.name}: its config holds a fractional number, which is not allowed") from None
    tree = Tree()
    layers = []
    for i, (layer, diff_id) in enumerate(zip(image.manifest.layers, config["rootfs"]["diff_ids"], strict=True)):
        if "tar" not in layer.media_type:
            raise CregraphError(f"{image.layer_title(i)}: the media type `{layer.media_type}` is not that of a file system")
        tar = LayerTar(image.open_layer(layer), diff_id, what=image.layer_title(i), progress=progress)
        tree.start_layer()
        for member in tar:
            tree.apply(member, _kept(tar, member) if member.type == "file" else None)
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
        python=find_python(tree, config=config, where=image.name),
        directories=directories,
        links=links,
        files=frozenset(files),
    )


def is_listed(path: str) -> bool:
    """Return whether `BaseFacts.files` lists the absolute `path` (the rule is at the top of this module)."""
    return not _UNLISTED.match(path) and not _DEEP.search(path)


def _kept(tar: Reader, member: Member) -> bytes | None:
    """Return the part of a file that base facts need: its first bytes, or the first match of a pattern."""
    wanted = _wanted(member.path)
    if wanted is None or isinstance(wanted, int):
        return None if wanted is None else tar.read(wanted)
    before = b""
    for block in tar.blocks():
        if found := wanted.search(before + block):
            return found[1]
        before = (before + block)[-1024:]
    return None


def _wanted(path: str) -> int | re.Pattern[bytes] | None:
    """Return the number of first bytes to keep of the file at `path`, or the pattern to search for."""
    folder, _, name = path.rpartition("/")
    if name == "METADATA" or name == "PKG-INFO" or name.endswith((".egg-info", ".pth", "patchlevel.h")):
        if folder.endswith((".dist-info", ".egg-info", "EGG-INFO", "-packages")) or name == "patchlevel.h":
            return 1 << 16
    elif path == "etc/passwd":
        return 1 << 20
    elif name.startswith("libc"):
        if name == "libc.so.6" or re.fullmatch(r"libc-2\.[0-9]+\.so", name):
            return _GLIBC
    elif "python3." in name and (found := re.fullmatch(r"(?:lib)?python3\.([0-9]{1,3})(?:\.so(?:\.[0-9.]*)?)?", name)):
        return re.compile(rb"(?<![0-9.])(3\.%s\.[0-9]{1,3}(?:(?:a|b|rc)[0-9]{1,3})?)\+?\0" % found[1].encode())
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
    """Parse passwd(5). Skip invalid lines. The first of two lines for a name wins, as in libc."""
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
