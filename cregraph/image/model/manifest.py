"""Readers of manifests and indexes: descriptors, an image's config and layers, and the linux/amd64 image of an index.

They read the OCI image manifest and index (image-spec 1.1) and Docker's schema 2 and manifest list, and refuse schema 1. Only
sha256 digests are accepted, because a lock holds nothing else. Sizes are bounded before bytes are read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cregraph.errors import CregraphError

__all__ = [
    "ACCEPT",
    "CONFIG_LIMIT",
    "MANIFEST_LIMIT",
    "OCI_CONFIG",
    "OCI_MANIFEST",
    "Descriptor",
    "Manifest",
    "choose",
    "diff_ids_of",
    "digest_of",
    "follow",
    "is_index",
    "read_descriptor",
    "read_json",
    "read_manifest",
]

#: The most bytes of a manifest or index, and of a config, that are read.
MANIFEST_LIMIT = 4 << 20
CONFIG_LIMIT = 8 << 20

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

#: What a registry is asked to answer with.
ACCEPT = ", ".join((OCI_MANIFEST, _DOCKER_MANIFEST, _OCI_INDEX, _DOCKER_LIST))

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PLATFORM = ("linux", "amd64")


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptor:
    """A blob as a manifest names it: media type, `sha256:<hex>`, size in bytes."""

    media_type: str
    digest: str
    size: int

    @property
    def hex(self) -> str:
        return self.digest.removeprefix("sha256:")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The manifest of one image: its bytes as received, their digest, and what they name."""

    raw: bytes
    digest: str
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def read_json(data: bytes, *, what: str, limit: int = MANIFEST_LIMIT) -> dict[str, Any]:
    """Return a JSON object. Raises CregraphError, beginning with `what`, for anything else."""
    if len(data) > limit:
        raise CregraphError(f"{what}: is larger than {limit >> 20} MiB")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise CregraphError(f"{what}: is not readable as JSON") from None
    if not isinstance(value, dict):
        raise CregraphError(f"{what}: is not a JSON object")
    return value


def is_index(value: dict[str, Any]) -> bool:
    """Return whether a parsed manifest is an index (a list of images)."""
    return value.get("mediaType") in (_OCI_INDEX, _DOCKER_LIST) or ("manifests" in value and "layers" not in value)


def read_manifest(data: bytes, *, what: str) -> Manifest:
    """Return an image's manifest. Raises CregraphError, beginning with `what`, with the field that is wrong."""
    value = read_json(data, what=what)
    if value.get("schemaVersion") != 2 or "config" not in value:
        raise CregraphError(
            f"{what}: is not an image manifest of schema version 2",
            "push the image again with Docker 1.10 or later",
        )
    layers = value.get("layers")
    if not isinstance(layers, list):
        raise CregraphError(f"{what}: layers: expected a list")
    if len(layers) > 4096:
        raise CregraphError(f"{what}: layers: {len(layers)} are more than engines accept")
    media_type = value.get("mediaType", OCI_MANIFEST)
    if media_type not in (OCI_MANIFEST, _DOCKER_MANIFEST):
        raise CregraphError(f"{what}: mediaType: `{str(media_type)[:80]}` is not an image manifest")
    return Manifest(
        raw=data,
        digest=digest_of(data),
        media_type=media_type,
        config=read_descriptor(value["config"], what=what, field="config", limit=CONFIG_LIMIT),
        layers=tuple(read_descriptor(layer, what=what, field=f"layers[{i}]", limit=1 << 40) for i, layer in enumerate(layers)),
    )


def choose(index: dict[str, Any], *, what: str) -> Descriptor:
    """Return the linux/amd64 image of an index, or its only image: that one's config says for which platform it is.

    Raises CregraphError, which lists the platforms of the index, if there is no such image.
    """
    listed = index.get("manifests")
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise CregraphError(f"{what}: manifests: expected a list of objects")
    platforms: dict[str, int] = {}
    images: dict[str, int] = {}  # by digest: layouts list an image once for each of its names
    for i, one in enumerate(listed):
        platform = one.get("platform")
        pair = (str(platform.get("os", "")), str(platform.get("architecture", ""))) if isinstance(platform, dict) else None
        if pair != ("unknown", "unknown"):  # how BuildKit lists attestations
            images.setdefault(str(one.get("digest")), i)
            if pair is not None:
                platforms.setdefault("/".join(pair), i)
    at = platforms.get("/".join(_PLATFORM))
    if at is None and len(images) == 1:
        (at,) = images.values()
    if at is None:
        there = ", ".join(sorted(platforms)) or "no image with a platform"
        raise CregraphError(
            f"{what}: has no image for linux/amd64; existing platforms: {there}",
            "choose an image for linux/amd64, because Snowflake runs only that platform",
        )
    return read_descriptor(listed[at], what=what, field=f"manifests[{at}]", limit=MANIFEST_LIMIT)


def follow(data: bytes, fetch: Callable[[Descriptor], bytes], *, what: str) -> Manifest:
    """Return the manifest in `data`, or the one that an index in `data` leads to. `fetch` gives a descriptor's verified bytes."""
    for _ in range(4):
        value = read_json(data, what=what)
        if not is_index(value):
            return read_manifest(data, what=what)
        data = fetch(choose(value, what=what))
    raise CregraphError(f"{what}: is a circle of indexes")


def diff_ids_of(config: dict[str, Any], count: int, *, what: str) -> tuple[str, ...]:
    """Return the diff ids of an image's config, `count` of them. Raises CregraphError unless it is for linux/amd64."""
    found = (config.get("os", "linux"), config.get("architecture"))
    if found != _PLATFORM:
        raise CregraphError(
            f"{what}: is an image for {found[0]}/{found[1]}, not linux/amd64",
            "choose an image for linux/amd64, because Snowflake runs only that platform",
        )
    rootfs = config.get("rootfs")
    ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(ids, list) or not all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in ids):
        raise CregraphError(f"{what}: config: rootfs.diff_ids: expected a list of sha256:<64 hex digits>")
    if len(ids) != count:
        raise CregraphError(f"{what}: config: rootfs.diff_ids: {len(ids)} for the {count} layers of the manifest")
    return tuple(ids)


def read_descriptor(value: object, *, what: str, field: str, limit: int) -> Descriptor:
    if not isinstance(value, dict):
        raise CregraphError(f"{what}: {field}: expected an object")
    digest, size, media_type = value.get("digest"), value.get("size"), value.get("mediaType")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise CregraphError(f"{what}: {field}.digest: expected sha256:<64 hex digits>, not `{str(digest)[:90]}`")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise CregraphError(f"{what}: {field}.size: expected a number of bytes")
    if size > limit:
        raise CregraphError(f"{what}: {field}.size: {size} bytes are too large (maximum {limit})")
    if not isinstance(media_type, str) or not media_type.isprintable() or len(media_type) > 200:
        raise CregraphError(f"{what}: {field}.mediaType: expected a media type")
    return Descriptor(media_type=media_type, digest=digest, size=size)
