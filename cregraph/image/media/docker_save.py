"""The copy of an image from a Docker engine: the archive of `docker save` is read once, forward, into the store.

Engines since version 25 write an OCI layout into the archive: containerd's store with the image's own manifest and compressed
layers, the older store with a manifest of its own and uncompressed layers. Engines before 25 write only `manifest.json` and
`<id>/layer.tar`; this module then writes an OCI manifest over them, always the same one for the same image.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Collection, Iterator
from itertools import chain
from typing import IO

from cregraph.digest import sha256
from cregraph.errors import CregraphError
from cregraph.formats.untrusted_tar import IMAGE, Reader
from cregraph.image.media.docker_engine import image_archive
from cregraph.image.model.config import as_json
from cregraph.image.model.manifest import (
    CONFIG_LIMIT,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    digest_of,
    follow,
    read_manifest,
)
from cregraph.store import Store

__all__ = ["read_archive", "save"]

_MEMBERS = 20_000
_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"


def save(name: str, store: Store, skip: Collection[str] = ()) -> Manifest:
    """Take the image `name` out of the Docker engine into `store`, without layers whose sha256 is in `skip`; return its manifest.

    Raises:
        CregraphError: The engine does not answer, does not have the image, or gives an archive that cannot be read.
    """
    with image_archive(name) as stream:
        return read_archive(stream, store, what=f"docker:{name}", skip=skip)


def read_archive(stream: IO[bytes], store: Store, *, what: str, skip: Collection[str] = ()) -> Manifest:
    """Return the manifest of the image in a `docker save` archive, and put its blobs into `store`, except those in `skip`."""
    small: dict[str, bytes] = {}  # descriptions (JSON) by path
    large: dict[str, Descriptor] = {}
    links: dict[str, str] = {}
    tar = Reader(stream, what=f"{what}: the engine's archive", policy=IMAGE, hint="check the free space on the engine's disk")
    for member in tar:
        if member.type == "symlink":
            links[member.path] = posixpath.normpath(posixpath.join(posixpath.dirname(member.path), member.link))
        elif member.type == "hardlink":
            links[member.path] = member.link
        elif member.type == "file":
            if len(small) + len(large) >= _MEMBERS:
                raise CregraphError(f"{what}: the archive has too many members for an image")
            blocks = tar.blocks()
            first = next(blocks, b"")
            if first[:1] in (b"{", b"[") and member.size <= CONFIG_LIMIT:
                small[member.path] = first + b"".join(blocks)
                found = sha256(small[member.path])
            else:
                large[member.path] = _kept(member.path, chain([first], blocks), store, skip)
                found = large[member.path].hex
            folder, _, name = member.path.rpartition("/")
            if folder == "blobs/sha256" and name != found:
                raise CregraphError(f"{what}: the engine's archive has sha256:{found} under the name {member.path[:200]}")
    large |= {link: large[target] for link, target in links.items() if target in large}
    manifest, config = _described(small, large, what)
    store.add(manifest.raw)
    store.add(config)
    return manifest


def _kept(path: str, blocks: Iterator[bytes], store: Store, skip: Collection[str]) -> Descriptor:
    if path.rpartition("/")[2] in skip:
        hasher, size = hashlib.sha256(), 0
        for block in blocks:
            hasher.update(block)
            size += len(block)
        return Descriptor(media_type=_LAYER_TAR, digest=f"sha256:{hasher.hexdigest()}", size=size)
    with store.writer() as out:
        for block in blocks:
            out.write(block)
    return Descriptor(media_type=_LAYER_TAR, digest=f"sha256:{out.sha256}", size=out.size)


def _described(small: dict[str, bytes], large: dict[str, Descriptor], what: str) -> tuple[Manifest, bytes]:
    """Return the image's manifest and config. The manifest is made if the archive has none."""

    def blob(digest: str) -> bytes:
        data = small.get(f"blobs/sha256/{digest.removeprefix('sha256:')}")
        if data is None:
            raise CregraphError(f"{what}: the engine's archive lacks {digest}", "pull the image again for linux/amd64")
        return data

    if "index.json" in small:
        manifest = follow(small["index.json"], lambda one: blob(one.digest), what=what)
        return manifest, blob(manifest.config.digest)
    try:
        (image,) = json.loads(small["manifest.json"])
        paths = [posixpath.normpath(str(layer)) for layer in image["Layers"]]
        config = small[posixpath.normpath(str(image["Config"]))]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CregraphError(f"{what}: the engine's archive does not describe one image") from None
    if lacking := [path for path in paths if path not in large]:
        raise CregraphError(f"{what}: the engine's archive lacks {lacking[0][:200]}")
    made = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": as_json(Descriptor(media_type=OCI_CONFIG, digest=digest_of(config), size=len(config))),
        "layers": [as_json(large[path]) for path in paths],
    }
    return read_manifest(json.dumps(made, separators=(",", ":")).encode(), what=what), config
