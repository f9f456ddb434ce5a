"""The files of an image: layers streamed and hashed, nothing unpacked, whiteouts applied.

The layers of a known base are skipped if the image has the same layers (by digest or diff id). Then `Contents` describes only
the layers above them, and the paths of the base that they delete or replace. The bytes of `wanted` files are kept, at most
32 MiB each and 1 GiB in total. Of all other files only the sha256 is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cregraph.formats.tar_header import OPAQUE, whiteout
from cregraph.formats.untrusted_tar import Member, Reader
from cregraph.image.bases.base_image import BaseImage
from cregraph.image.bases.file_tree import Directory, File, Link, Tree
from cregraph.image.bases.layer_tar import LayerTar
from cregraph.image.model.manifest import diff_ids_of

__all__ = ["Contents", "Held", "Layers", "of_image"]

#: Digest and diff id of layers (`sha256:…`), lowest first.
Layers = Sequence[tuple[str, str]]

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


@dataclass(kw_only=True, slots=True)
class Contents:
    """An image's config and files. `base` is true if its lowest layers are the known ones; they are then not in `tree`.

    `hidden` are the paths that layers delete (`/` at the end: all below), and whether a layer that was read had put them there.
    """

    config: Mapping[str, Any]
    base: bool
    tree: Tree = field(default_factory=Tree)
    hidden: list[tuple[str, bool]] = field(default_factory=list)

    def file(self, path: str) -> Held | None:
        """Return the file at `path`, without following links."""
        node = self.tree.at(path)
        return node.kept if isinstance(node, File) else None

    def apply(self, member: Member, held: Held | None) -> None:
        """Apply a member of the current layer on top of the layers below. `held` is its file, if it is one."""
        folder, _, name = member.path.rpartition("/")
        if gone := whiteout(name):
            path = f"{folder}/{gone}".lstrip("/")
            self.hidden.append((f"/{folder}/", False) if gone == OPAQUE else (f"/{path}", self.tree.at(path) is not None))
        if held is None and member.type == "hardlink" and not isinstance(self.tree.at(member.link), File | Link):
            # The link's target is unknown, because it is in a layer of the base that was not read.
            held = Held("other", member.mode, member.uid, member.gid, 0, "")
        self.tree.apply(member, held)

    def walk(self) -> Iterator[tuple[str, Held | Link | Directory]]:
        """Yield every path and its node, sorted."""
        for path, node in sorted(self.tree.walk(), key=lambda pair: pair[0]):
            yield path, node.kept if isinstance(node, File) else node


def of_image(image: BaseImage, *, known: Layers, wanted: Callable[[str], bool]) -> Contents:
    """Return the contents of an image. The bytes of `wanted` paths are kept. `known` are the layers of a base, lowest first.

    Raises CregraphError for another platform than linux/amd64, or a layer that does not have its diff id.
    """
    config, layers = image.config(), image.manifest.layers
    diff_ids = diff_ids_of(config, len(layers), what=image.name)
    below = _stands_on([layer.digest for layer in layers], diff_ids, known)
    contents = Contents(config=config, base=below > 0)
    left = _KEPT_ALL
    for number in range(below, len(layers)):
        tar = LayerTar(image.open_layer(layers[number]), diff_ids[number], what=image.layer_title(number))
        contents.tree.start_layer()
        for member in tar:
            held = None
            if member.type == "file":
                sha256, data = _read(tar, min(_KEPT, left) if wanted("/" + member.path) else 0)
                held = Held("file", member.mode, member.uid, member.gid, member.size, sha256, data)
                left -= len(data or b"")
            elif member.type == "other":
                held = Held("other", member.mode, member.uid, member.gid, member.size, "")
            contents.apply(member, held)
    return contents


def _stands_on(layers: Sequence[str], diff_ids: Sequence[str], known: Layers) -> int:
    """Return the number of the base's layers if the lowest layers are the base's, else 0."""
    if len(diff_ids) < len(known):
        return 0
    pairs = zip(known, layers, diff_ids, strict=False)
    same = all(plain == diff_id and layer in (digest, plain) for (digest, plain), layer, diff_id in pairs)
    return len(known) if same else 0


def _read(tar: Reader, keep: int) -> tuple[str, bytes | None]:
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
