"""The files of an image: layers streamed and hashed, nothing unpacked, whiteouts applied.

`of_image` reads an image in a registry or an OCI layout; `cregraph.image.bases.engine_files` reads an engine's.

The layers of a known base are skipped if the image has the same layers (by digest or diff id). Then `Contents` describes only
the layers above them, and the paths of the base that they delete or replace. The bytes of `wanted` files are kept, at most
32 MiB each and 1 GiB in total. Of all other files only the sha256 is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cregraph.formats.untrusted_tar import Member, Reader
from cregraph.formats.whiteouts import OPAQUE, whiteout
from cregraph.image.bases.base_image import BaseImage
from cregraph.image.bases.file_tree import Directory, File, Link, Tree
from cregraph.image.bases.layer_tar import LayerTar, check_diff_id
from cregraph.image.model.manifest import diff_ids_of

__all__ = ["Contents", "Held", "Known", "LayerReader", "Listing", "contents_of", "of_image"]

_KEPT = 32 << 20
_KEPT_ALL = 1 << 30


@dataclass(frozen=True, slots=True)
class Held:
    """A file: permission bits, owner, bytes, sha256; `data` if it was wanted. `type` is `other` for devices and similar."""

    type: str
    mode: int
    uid: int
    gid: int
    size: int
    sha256: str
    data: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """The layers that are not read: digest and diff id of each (`sha256:…`), lowest first."""

    layers: tuple[tuple[str, str], ...] = ()


#: A layer's members in order, each with its file (`Held`), if it is one.
Listing = list[tuple[Member, Held | None]]


@dataclass(kw_only=True, slots=True)
class Contents:
    """An image's config and files. `base` is true if its lowest layers are the known ones; they are then not in `tree`.

    `layers` are the digests of all layers, empty if an archive does not state them; `diff_ids` those of their plain bytes.
    `hidden` are the paths that layers delete (`/` at the end: all below), and whether a layer that was read had put them there.
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
        """Return the file at `path`, without following links."""
        node = self.tree.at(path)
        return self.of(node) if isinstance(node, File) else None

    def of(self, node: File) -> Held:
        """Return the `Held` of a file of the tree."""
        assert node.kept is not None
        return self.held[int(node.kept)]

    def apply(self, listing: Listing) -> None:
        """Apply a layer on top of those below."""
        self.tree.start_layer()
        for member, held in listing:
            folder, _, name = member.path.rpartition("/")
            if gone := whiteout(name):
                path = f"{folder}/{gone}".lstrip("/")
                hidden = (f"/{folder}/", False) if gone == OPAQUE else (f"/{path}", self.tree.at(path) is not None)
                self.hidden.append(hidden)
            if held is None and member.type == "hardlink" and not isinstance(self.tree.at(member.link), File | Link):
                # The link's target is unknown, because it is in a layer of the base that was not read.
                held = Held("other", member.mode, member.uid, member.gid, 0, "")
            kept = None
            if held is not None:
                kept = str(len(self.held)).encode()
                self.held.append(held)
            self.tree.apply(member, kept)

    def walk(self) -> Iterator[tuple[str, Held | Link | Directory]]:
        """Yield every path and its node, sorted."""
        for path, node in sorted(self.tree.walk(), key=lambda pair: pair[0]):
            yield path, self.of(node) if isinstance(node, File) else node


def of_image(image: BaseImage, *, known: Known, wanted: Callable[[str], bool]) -> Contents:
    """Return the contents of an image in a registry or layout. The bytes of `wanted` paths are kept."""
    layers = image.manifest.layers
    reader = LayerReader(wanted)

    def listing(number: int) -> tuple[Listing, str]:
        return reader.listing(image.open_layer(layers[number]), image.layer_title(number))

    digests = [layer.digest for layer in layers]
    return contents_of(image.name, image.manifest.digest, image.config(), digests, known=known, listing=listing)


def contents_of(
    name: str,
    digest: str | None,
    config: dict[str, Any],
    layers: Sequence[str],
    *,
    known: Known,
    listing: Callable[[int], tuple[Listing, str]],
) -> Contents:
    """Return the contents of an image. `listing` reads a layer by its number: its members, and the sha256 of its plain bytes.

    Raises CregraphError for another platform than linux/amd64, or a layer that does not have its diff id.
    """
    diff_ids = diff_ids_of(config, len(layers), what=name)
    below = _stands_on(layers, diff_ids, known)
    contents = Contents(name=name, digest=digest, config=config, layers=tuple(layers), diff_ids=diff_ids, base=below > 0)
    for number in range(below, len(layers)):
        members, found = listing(number)
        check_diff_id(found, diff_ids[number], what=f"{name}: layer {number + 1} of {len(layers)}")
        contents.apply(members)
    return contents


def _stands_on(layers: Sequence[str], diff_ids: Sequence[str], known: Known) -> int:
    """Return the number of the base's layers if the lowest layers are the base's, else 0."""
    count = len(known.layers)
    if not count or len(diff_ids) < count:
        return 0
    same = all(
        pair[1] == diff_id and layer in (pair[0], pair[1], "")
        for pair, layer, diff_id in zip(known.layers, layers, diff_ids, strict=False)
    )
    return count if same else 0


class LayerReader:
    """A reader that lists the members of layers, with the contents of `wanted` absolute paths."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._left = _KEPT_ALL

    def listing(self, blocks: Iterable[bytes], what: str) -> tuple[Listing, str]:
        """Return a layer's members, and the sha256 of its plain bytes."""
        layer = LayerTar(blocks, what=what)
        listing: Listing = []
        for member in layer.tar:
            held = None
            if member.type == "file":
                sha256, data = self._read(layer.tar, min(_KEPT, self._left) if self._wanted("/" + member.path) else 0)
                held = Held("file", member.mode, member.uid, member.gid, member.size, sha256, data)
                self._left -= len(data or b"")
            elif member.type == "other":
                held = Held("other", member.mode, member.uid, member.gid, member.size, "")
            listing.append((member, held))
        return listing, layer.sha256()

    def _read(self, tar: Reader, keep: int) -> tuple[str, bytes | None]:
        """Return the sha256 of a file, and its bytes if there are at most `keep`."""
        hasher = hashlib.sha256()
        kept: bytearray | None = bytearray() if keep else None
        for block in tar.blocks():
            hasher.update(block)
            if kept is not None:
                kept += block
                if len(kept) > keep:
                    kept = None
        return hasher.hexdigest(), None if kept is None else bytes(kept)
