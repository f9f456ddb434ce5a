"""Take an image out of a Docker engine: read the archive of `docker save` once, forward, into the store.

Engines since version 25 write an OCI layout into the archive: containerd's store with the image's own manifest and compressed
layers, the older store with a manifest of its own and uncompressed layers. Engines before 25 write only `manifest.json` and
`<id>/layer.tar`; this module then writes an OCI manifest over them, always the same one for the same image.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from typing import IO, Any

from cregraph.errors import CregraphError
from cregraph.formats.untrusted_tar import IMAGE, Reader
from cregraph.image.media.docker_engine import image_archive
from cregraph.image.model.manifest import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    choose,
    follow,
    read_descriptor,
    read_json,
    read_manifest,
)
from cregraph.store import Store

__all__ = ["archive_files", "read_archive", "save"]

_BLOCK = 1 << 20
_MEMBERS = 20_000
_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"


def save(name: str, store: Store) -> Manifest:
    """Take the image `name` out of the Docker engine into `store`; return its manifest.

    Raises:
        CregraphError: The engine does not answer, does not have the image, or gives an archive that cannot be read.
    """
    with image_archive(name) as stream:
        return read_archive(stream, store, what=f"docker:{name}")


def read_archive(stream: IO[bytes], store: Store, *, what: str) -> Manifest:
    """Return the manifest of the image in a `docker save` archive, and put its blobs into `store`. Other members are skipped."""
    objects: dict[str, tuple[str, int]] = {}
    small: dict[str, bytes] = {}
    links: dict[str, str] = {}
    for name, size, blocks in archive_files(stream, links, what=what):
        if name in ("index.json", "manifest.json"):
            if size > MANIFEST_LIMIT:
                raise CregraphError(f"{what}: {name} is larger than {MANIFEST_LIMIT >> 20} MiB")
            small[name] = b"".join(blocks)
        elif name.startswith("blobs/sha256/") or name.endswith(("/layer.tar", ".json")):
            objects[name] = _keep(blocks, name, store, what)
    for link, target in links.items():
        if target in objects:
            objects[link] = objects[target]
    if "index.json" in small:
        return _of_layout(small["index.json"], store, what)
    if "manifest.json" in small:
        return _of_classic(small["manifest.json"], objects, store, what)
    raise CregraphError(f"{what}: the engine's archive holds no image")


def archive_files(stream: IO[bytes], links: dict[str, str], *, what: str) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Yield path, size and blocks of each file in the archive of `docker save`. Its links are in `links` afterwards, by path."""
    hint = "is there room on the engine's disk?"
    tar = Reader(stream, what=f"{what}: the engine's archive", policy=IMAGE, hint=hint)
    count = 0
    for member in tar:
        if member.type == "file":
            count += 1
            if count > _MEMBERS:
                raise CregraphError(f"{what}: the archive has more members than an image can have")
            yield member.path, member.size, tar.blocks()
        elif member.type == "symlink":
            links[member.path] = posixpath.normpath(posixpath.join(posixpath.dirname(member.path), member.link))
        elif member.type == "hardlink":
            links[member.path] = member.link


def _keep(blocks: Iterator[bytes], name: str, store: Store, what: str) -> tuple[str, int]:
    wanted = name.removeprefix("blobs/sha256/") if name.startswith("blobs/sha256/") else None
    with store.writer() as out:
        for block in blocks:
            out.write(block)
        if wanted and out.digest() != wanted:
            raise CregraphError(f"{what}: the engine's archive has sha256:{out.digest()} under the name {name}")
    return out.sha256, out.size


def _small(store: Store, sha256: str, limit: int, what: str) -> bytes:
    if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not store.has(sha256):
        raise CregraphError(f"{what}: the engine's archive lacks sha256:{sha256[:64]}", "pull the image again for linux/amd64")
    path = store.verified(sha256, what)
    if path.stat().st_size > limit:
        raise CregraphError(f"{what}: a manifest or config is larger than {limit >> 20} MiB")
    return path.read_bytes()


def _of_layout(index: bytes, store: Store, what: str) -> Manifest:
    value = read_json(index, what=f"{what}: index.json")
    listed = value.get("manifests")
    unique = {str(one.get("digest")): one for one in listed if isinstance(one, dict)} if isinstance(listed, list) else {}
    if len(unique) == 1:
        first = read_descriptor(
            next(iter(unique.values())), what=f"{what}: index.json", field="manifests[0]", limit=MANIFEST_LIMIT
        )
    else:
        first = choose({"manifests": list(unique.values())}, what=f"{what}: index.json")

    def fetch(one: Descriptor) -> bytes:
        return _small(store, one.hex, MANIFEST_LIMIT, what)

    return follow(fetch(first), fetch, what=what)


def _of_classic(manifest: bytes, objects: dict[str, tuple[str, int]], store: Store, what: str) -> Manifest:
    try:
        (image,) = json.loads(manifest)
        config, layers = str(image["Config"]), [str(layer) for layer in image["Layers"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CregraphError(f"{what}: manifest.json of the engine's archive does not describe one image") from None
    for name in (config, *layers):
        if posixpath.normpath(name) not in objects:
            raise CregraphError(f"{what}: the engine's archive lacks {name[:200]}")

    def described(name: str, media_type: str) -> dict[str, Any]:
        sha256, size = objects[posixpath.normpath(name)]
        return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": size}

    _small(store, objects[posixpath.normpath(config)][0], CONFIG_LIMIT, what)
    made = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(config, OCI_CONFIG),
        "layers": [described(layer, _LAYER_TAR) for layer in layers],
    }
    data = json.dumps(made, separators=(",", ":")).encode()
    store.add(data)
    return read_manifest(data, what=what)
