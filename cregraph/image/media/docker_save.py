"""Take an image out of a Docker engine: read the archive of `docker save` once, forward, into the store.

Engines since version 25 write an OCI layout into the archive: containerd's store with the image's own manifest and compressed
layers, the older store with a manifest of its own and uncompressed layers. Engines before 25 write only `manifest.json` and
`<id>/layer.tar`; this module then writes an OCI manifest over them, always the same one for the same image.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import IO, Generic, TypeVar

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

__all__ = ["EngineArchive", "check_name", "read_archive", "save"]

T = TypeVar("T")
_MEMBERS = 20_000
_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"


class EngineArchive(Generic[T]):
    """The one image in an archive of `docker save`. Its descriptions (JSON) are kept, its other files as `take` returns them.

    `take` gets the path and the blocks of a file. A file that it refuses is an error only if the caller needs it.
    """

    def __init__(self, stream: IO[bytes], take: Callable[[str, Iterator[bytes]], T], *, what: str) -> None:
        self._what = what
        self._small: dict[str, bytes] = {}
        self._taken: dict[str, T] = {}
        links: dict[str, str] = {}
        tar = Reader(stream, what=f"{what}: the engine's archive", policy=IMAGE, hint="is there room on the engine's disk?")
        count = 0
        for member in tar:
            if member.type == "file":
                count += 1
                if count > _MEMBERS:
                    raise CregraphError(f"{what}: the archive has more members than an image can have")
                self._read(member.path, member.size, tar.blocks(), take)
            elif member.type == "symlink":
                links[member.path] = posixpath.normpath(posixpath.join(posixpath.dirname(member.path), member.link))
            elif member.type == "hardlink":
                links[member.path] = member.link
        self._taken |= {link: self._taken[target] for link, target in links.items() if target in self._taken}

    def _read(self, path: str, size: int, blocks: Iterator[bytes], take: Callable[[str, Iterator[bytes]], T]) -> None:
        first = next(blocks, b"")
        if first[:1] in (b"{", b"[") and size <= CONFIG_LIMIT:
            self._small[path] = first + b"".join(blocks)
            check_name(path, sha256(self._small[path]), what=self._what)
        else:
            self._taken[path] = take(path, chain([first], blocks))

    def image(self) -> tuple[Manifest | None, bytes, list[str]]:
        """Return the image's manifest (None if the archive has none), its config, and the paths of its layers."""
        if "index.json" in self._small:
            manifest = follow(self._small["index.json"], lambda one: self._blob(one.digest), what=self._what)
            return manifest, self._blob(manifest.config.digest), [f"blobs/sha256/{layer.hex}" for layer in manifest.layers]
        try:
            (image,) = json.loads(self._small["manifest.json"])
            paths = [posixpath.normpath(str(layer)) for layer in image["Layers"]]
            return None, self._small[posixpath.normpath(str(image["Config"]))], paths
        except (ValueError, KeyError, TypeError, RecursionError):
            raise CregraphError(f"{self._what}: the engine's archive does not describe one image") from None

    def layer(self, path: str) -> T:
        """Return what was taken of the layer at `path`. Raises CregraphError if the archive does not have it."""
        if path not in self._taken:
            raise CregraphError(f"{self._what}: the engine's archive lacks {path[:200]}")
        return self._taken[path]

    def _blob(self, digest: str) -> bytes:
        data = self._small.get(f"blobs/sha256/{digest.removeprefix('sha256:')}")
        if data is None:
            raise CregraphError(f"{self._what}: the engine's archive lacks {digest}", "pull the image again for linux/amd64")
        return data


def check_name(path: str, sha256: str, *, what: str) -> None:
    """Raise CregraphError if a file of an engine's archive is named by another digest than its bytes have."""
    folder, _, name = path.rpartition("/")
    if folder == "blobs/sha256" and name != sha256:
        raise CregraphError(f"{what}: the engine's archive has sha256:{sha256} under the name {path[:200]}")


def save(name: str, store: Store) -> Manifest:
    """Take the image `name` out of the Docker engine into `store`; return its manifest.

    Raises:
        CregraphError: The engine does not answer, does not have the image, or gives an archive that cannot be read.
    """
    with image_archive(name) as stream:
        return read_archive(stream, store, what=f"docker:{name}")


def read_archive(stream: IO[bytes], store: Store, *, what: str) -> Manifest:
    """Return the manifest of the image in a `docker save` archive, and put its blobs into `store`."""
    archive = EngineArchive(stream, partial(_keep, store, what), what=what)
    manifest, config, paths = archive.image()
    if manifest is None:
        described = Descriptor(media_type=OCI_CONFIG, digest=digest_of(config), size=len(config))
        made = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": as_json(described),
            "layers": [as_json(archive.layer(path)) for path in paths],
        }
        manifest = read_manifest(json.dumps(made, separators=(",", ":")).encode(), what=what)
    store.add(manifest.raw)
    store.add(config)
    return manifest


def _keep(store: Store, what: str, path: str, blocks: Iterator[bytes]) -> Descriptor:
    with store.writer() as out:
        for block in blocks:
            out.write(block)
        check_name(path, out.digest(), what=what)
    return Descriptor(media_type=_LAYER_TAR, digest=f"sha256:{out.sha256}", size=out.size)
