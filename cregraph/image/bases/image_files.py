"""What is in an image, file by file: layers streamed and hashed, nothing unpacked, whiteouts applied.

    of_image(image)    an image in a registry or an OCI layout: its layers in order
    of_engine(name)    an image of a Docker engine: the archive of `docker save`, read forward once

The layers of a known base are left out where the image has the very same ones (by digest or diff id): then only what lies above
them is told, and what of the base is deleted or replaced. Limits are those of `tar_stream`; of files that `wanted` asks for at
most 32 MiB each and 1 GiB together are kept, of all others the sha256.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from cregraph.digest import is_sha256
from cregraph.errors import CregraphError
from cregraph.formats.tar_stream import Member, Taker, bounded, members
from cregraph.image.bases.base_image import BaseImage
from cregraph.image.bases.file_tree import Directory, File, Link, Tree
from cregraph.image.media.docker_save import archive_of
from cregraph.image.model.blocks import blocks_as_file, inflated
from cregraph.image.model.manifest import CONFIG_LIMIT, Manifest, check_platform, follow, read_json

__all__ = ["Contents", "Held", "Known", "of_engine", "of_image"]

_BLOCK = 1 << 20
_KEPT = 32 << 20
_KEPT_ALL = 1 << 30
_WHITEOUT = ".wh."


@dataclass(frozen=True, slots=True)
class Held:
    """A file: permission bits, owner, bytes, sha256; `data` where it was wanted. `type` is `other` for devices and the like."""

    type: str
    mode: int
    uid: int
    gid: int
    size: int
    sha256: str
    data: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """The layers that need not be read: of each its digest and diff id (`sha256:…`), lowest first."""

    layers: tuple[tuple[str, str], ...] = ()


@dataclass(kw_only=True, slots=True)
class Contents:
    """An image's config, and its files. `base` tells whether it stands on the known layers, which then are not in `tree`.

    `layers` are the digests of all its layers, empty where an archive does not tell them, `diff_ids` those of their plain bytes.
    `hidden` are the paths that layers delete (with `/` at the end: all below), and whether a layer that was read put them there.
    """

    name: str
    digest: str | None
    config: Mapping[str, Any]
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]
    base: bool
    tree: Tree = field(default_factory=Tree)
    held: list[Held] = field(default_factory=list)
    hidden: list[tuple[str, bool]] = field(default_factory=list)

    def file(self, path: str) -> Held | None:
        """The file at `path` itself, no link followed."""
        node = self.tree.at(path)
        return self.of(node) if isinstance(node, File) else None

    def of(self, node: File) -> Held:
        """What is held of a file of the tree."""
        assert node.kept is not None
        return self.held[int(node.kept)]

    def walk(self) -> Iterator[tuple[str, Held | Link | Directory]]:
        """Every path with what lies there, sorted."""
        for path, node in sorted(self.tree.walk(), key=lambda pair: pair[0]):
            yield path, self.of(node) if isinstance(node, File) else node


#: A layer's members in order, each with what is held of it.
_Listing = list[tuple[Member, Held | None]]


def of_image(image: BaseImage, *, known: Known, wanted: Callable[[str], bool]) -> Contents:
    """The contents of an image that can be asked for its blobs. `wanted` says of which paths the bytes are kept."""
    config = image.config()
    diff_ids = tuple(config["rootfs"]["diff_ids"])
    layers = tuple(layer.digest for layer in image.manifest.layers)
    below = _stands_on(layers, diff_ids, known)
    contents = Contents(
        name=image.name,
        digest=image.manifest.digest,
        config=config,
        layers=layers,
        diff_ids=diff_ids,
        base=below > 0,
    )
    reader = _Reader(wanted)
    for number, (layer, diff_id) in enumerate(zip(image.manifest.layers, diff_ids, strict=True)):
        if number >= below:
            what = f"{image.name}: layer {number + 1} of {len(layers)} ({layer.digest[:19]}…)"
            listing, found = reader.listing(image.open_layer(layer), what)
            _is_that(found, diff_id, what)
            _apply(contents, listing)
    return contents


def of_engine(name: str, *, known: Known, wanted: Callable[[str], bool]) -> Contents:
    """The contents of the image that a Docker engine calls `name`. Raises CregraphError with the engine's own words."""
    what = f"docker:{name}"
    reader = _Reader(wanted)
    skipped = {one.removeprefix("sha256:") for pair in known.layers for one in pair}
    listings: dict[str, tuple[_Listing, str] | CregraphError] = {}
    small: dict[str, bytes] = {}
    links: dict[str, str] = {}
    with archive_of(name) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK) as archive:
                for member in archive:
                    path = posixpath.normpath(member.name)
                    if member.issym() or member.islnk():
                        beside = posixpath.dirname(path) if member.issym() else ""
                        links[path] = posixpath.normpath(posixpath.join(beside, member.linkname))
                    elif member.isfile() and (content := archive.extractfile(member)) is not None:
                        if len(listings) + len(small) > 20_000:
                            raise CregraphError(f"{what}: the archive has more members than an image can have")
                        if path.rpartition("/")[2] not in skipped:
                            _read_member(path, member.size, content, listings, small, reader, what)
        except tarfile.TarError as error:
            raise CregraphError(f"{what}: the engine's archive cannot be read ({error})") from None
    for link, target in links.items():
        if target in listings:
            listings[link] = listings[target]
    digest, config, paths = _described(small, what)
    check_platform(config, what=what)
    rootfs = config.get("rootfs")
    ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(ids, list) or len(ids) != len(paths) or not all(_is_digest(one) for one in ids):
        raise CregraphError(f"{what}: config: rootfs.diff_ids: one sha256 for each of the {len(paths)} layers is wanted")
    named = tuple(f"sha256:{path.rpartition('/')[2]}" if path.startswith("blobs/sha256/") else "" for path in paths)
    below = _stands_on(named, tuple(ids), known)
    contents = Contents(name=what, digest=digest, config=config, layers=named, diff_ids=tuple(ids), base=below > 0)
    for path, diff_id in list(zip(paths, ids, strict=True))[below:]:
        found = listings.get(path)
        if found is None:
            if path.rpartition("/")[2] in skipped:
                raise CregraphError(f"{what}: holds layers of the base in another order than the base has")
            raise CregraphError(f"{what}: the engine's archive lacks {path[:200]}")
        if isinstance(found, CregraphError):
            raise found
        _is_that(found[1], diff_id, f"{what}: {path[:200]}")
        _apply(contents, found[0])
    return contents


def _stands_on(layers: Sequence[str], diff_ids: Sequence[str], known: Known) -> int:
    """How many layers the base has, when the lowest layers are the base's; else 0."""
    count = len(known.layers)
    if not count or len(diff_ids) < count:
        return 0
    same = all(
        pair[1] == diff_id and layer in (pair[0], pair[1], "")
        for pair, layer, diff_id in zip(known.layers, layers, diff_ids, strict=False)
    )
    return count if same else 0


def _read_member(
    path: str,
    size: int,
    content: IO[bytes],
    listings: dict[str, tuple[_Listing, str] | CregraphError],
    small: dict[str, bytes],
    reader: _Reader,
    what: str,
) -> None:
    """A member of the engine's archive: a description (JSON) or a layer. What is neither is an error once it is needed."""
    head = content.read(1)
    if head in (b"{", b"[") and size <= CONFIG_LIMIT:
        data = head + content.read()
        _is_named(hashlib.sha256(data).hexdigest(), path, what)
        small[path] = data
        return
    hasher = hashlib.sha256()

    def blocks() -> Iterator[bytes]:
        block = head
        while block:
            hasher.update(block)
            yield block
            block = content.read(_BLOCK)

    source = blocks()
    try:
        listings[path] = reader.listing(source, f"{what}: {path[:200]}")
    except CregraphError as error:
        listings[path] = error
    for _ in source:
        pass
    _is_named(hasher.hexdigest(), path, what)


def _is_named(found: str, path: str, what: str) -> None:
    folder, _, name = path.rpartition("/")
    if folder == "blobs/sha256" and name != found:
        raise CregraphError(f"{what}: the engine's archive has sha256:{found} under the name {path[:200]}")


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and value.startswith("sha256:") and is_sha256(value[7:])


def _is_that(found: str, diff_id: str, what: str) -> None:
    if found != diff_id.removeprefix("sha256:"):
        raise CregraphError(
            f"{what}: its plain bytes have sha256:{found}, but the config says {diff_id}",
            "the image is damaged or was put together wrongly; build or pull it again",
        )


def _described(small: Mapping[str, bytes], what: str) -> tuple[str | None, dict[str, Any], list[str]]:
    """The digest, config and layers (paths in the archive) of the one image in an engine's archive."""

    def blob(digest: str, limit: int = CONFIG_LIMIT) -> bytes:
        data = small.get(f"blobs/sha256/{digest.removeprefix('sha256:')}")
        if data is None or len(data) > limit:
            raise CregraphError(f"{what}: the engine's archive lacks {digest}", "pull the image again for linux/amd64")
        return data

    if "index.json" in small:
        manifest: Manifest = follow(small["index.json"], lambda one: blob(one.digest), what=what)
        config = read_json(blob(manifest.config.digest), what=f"{what}: config", limit=CONFIG_LIMIT)
        return manifest.digest, config, [f"blobs/sha256/{layer.hex}" for layer in manifest.layers]
    try:
        (image,) = json.loads(small["manifest.json"])
        paths = [posixpath.normpath(str(layer)) for layer in image["Layers"]]
        return None, read_json(small[posixpath.normpath(str(image["Config"]))], what=f"{what}: config", limit=CONFIG_LIMIT), paths
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CregraphError(f"{what}: the engine's archive does not describe one image") from None


class _Reader:
    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._left = _KEPT_ALL

    def listing(self, blocks: Iterable[bytes], what: str) -> tuple[_Listing, str]:
        """A layer's members, and the sha256 of its plain bytes."""
        read = 0
        hasher = hashlib.sha256()

        def counted() -> Iterator[bytes]:
            nonlocal read
            for block in blocks:
                read += len(block)
                yield block

        def hashed() -> Iterator[bytes]:
            for block in bounded(inflated(counted(), what=what), compressed=lambda: read, what=what):
                hasher.update(block)
                yield block

        took: list[_Taken | None] = [None]

        def taker(member: Member) -> Taker:
            keep = min(_KEPT, self._left) if self._wanted("/" + member.path) else 0
            took[0] = taken = _Taken(keep)
            return taken

        listing: _Listing = []
        for member in members(blocks_as_file(hashed()), what=what, taker=taker):
            taken, took[0] = took[0], None
            held = None
            if member.type in ("file", "other"):
                held = Held(
                    "file" if member.type == "file" else "other",
                    member.mode,
                    member.uid,
                    member.gid,
                    member.size,
                    taken.digest() if taken else "",
                    taken.data() if taken else None,
                )
                self._left -= len(held.data or b"")
            listing.append((member, held))
        return listing, hasher.hexdigest()


class _Taken:
    """The sha256 of a file, and its bytes where no more than `keep` are wanted."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._hash = hashlib.sha256()
        self._parts: list[bytes] | None = [] if keep else None

    def __call__(self, block: bytes | None) -> None:
        if block is None:
            return
        self._hash.update(block)
        if self._parts is not None:
            self._keep -= len(block)
            if self._keep < 0:
                self._parts = None
            else:
                self._parts.append(bytes(block))

    def digest(self) -> str:
        return self._hash.hexdigest()

    def data(self) -> bytes | None:
        return None if self._parts is None else b"".join(self._parts)


def _apply(contents: Contents, listing: _Listing) -> None:
    contents.tree.start_layer()
    for member, held in listing:
        folder, _, name = member.path.rpartition("/")
        if name == ".wh..wh..opq":
            contents.hidden.append((f"/{folder}/", False))
        elif name.startswith(_WHITEOUT) and not name.startswith(".wh..wh."):
            path = f"{folder}/{name[len(_WHITEOUT) :]}"
            contents.hidden.append(("/" + path.lstrip("/"), contents.tree.at(path) is not None))
        kept = None
        if held is not None:
            kept = str(len(contents.held)).encode()
            contents.held.append(held)
        elif member.type == "hardlink" and not isinstance(contents.tree.at(member.link), File | Link):
            # Into a layer that was not read (the base's): what it leads to is not known.
            kept = str(len(contents.held)).encode()
            contents.held.append(Held("other", member.mode, member.uid, member.gid, 0, ""))
        contents.tree.apply(member, kept)
