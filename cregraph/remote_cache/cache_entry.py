"""Entries of a remote cache: one OCI artifact manifest for each key, at a tag that is the key.

    t-<task key>       one layer: the result's tar, as gzip members (cregraph.image.model.gzip_members)
    s-<segment key>    two layers: the segment's object and its index, as in a store (cregraph.image.model.segment)

A manifest is a pure function of key and content, so writers of equal contents write equal manifests. Its annotations state
sizes and digests, which are claims until the bytes were checked.

Source: OCI Image Specification 1.1, "Guidelines for Artifact Usage".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cregraph.digest import canonical, is_sha256
from cregraph.errors import CregraphError
from cregraph.image.model.manifest import OCI_MANIFEST, Descriptor, digest_of, read_descriptor, read_json
from cregraph.image.model.segment import SegmentRecord

__all__ = [
    "EMPTY",
    "SEGMENT_TAG",
    "TASK_TAG",
    "BadEntry",
    "SegmentEntry",
    "TaskEntry",
    "read_segment_entry",
    "read_task_entry",
    "task_blob",
]

#: The config of an artifact that needs none (OCI Image Specification 1.1, "Guidance for an Empty Descriptor").
EMPTY = b"{}"
_EMPTY = Descriptor(media_type="application/vnd.oci.empty.v1+json", digest=digest_of(EMPTY), size=len(EMPTY))
#: A tag is one of these and a key.
TASK_TAG, SEGMENT_TAG = "t-", "s-"
_TASK = "application/vnd.cregraph.task.v1"
_SEGMENT = "application/vnd.cregraph.segment.v1"
_KEY = "org.cregraph.key"
_SHA256 = "org.cregraph.sha256"
_SIZE = "org.cregraph.size"
_TAR_SIZE = "org.cregraph.tar-size"
_ENTRIES = "org.cregraph.entries"
_MEMBERS = "org.cregraph.members"
_ASSEMBLY = "org.cregraph.assembly"
#: The largest size in bytes that an entry may claim.
_LIMIT = 1 << 40
#: The largest number of bytes that one byte of gzip can expand to (RFC 1951: 258 bytes for two bits).
_RATIO = 1032


class BadEntry(CregraphError):
    """Error: an entry is damaged or does not fit its key. The caller makes the result itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskEntry:
    """The entry of a task's result: a normalised tar of `size` bytes with `sha256`, compressed in `blob`.

    `contents` are the sha256 of what an entry gives.
    """

    key: str
    sha256: str
    size: int
    blob: Descriptor

    @property
    def tag(self) -> str:
        return TASK_TAG + self.key

    @property
    def contents(self) -> tuple[str, ...]:
        return (self.sha256,)

    def manifest(self) -> bytes:
        return _manifest(_TASK, self.key, {_SHA256: self.sha256, _SIZE: str(self.size)}, self.blob)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentEntry:
    """The entry of a segment: its record, and the size of its index in bytes. It gives the segment's object and its index."""

    record: SegmentRecord
    index_size: int

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def tag(self) -> str:
        return SEGMENT_TAG + self.key

    @property
    def contents(self) -> tuple[str, ...]:
        return self.record.object, self.record.index

    @property
    def blobs(self) -> tuple[Descriptor, Descriptor]:
        object, index = (f"sha256:{sha256}" for sha256 in self.contents)
        return (
            Descriptor(media_type=f"{_SEGMENT}.tar+gzip", digest=object, size=self.record.size),
            Descriptor(media_type=f"{_SEGMENT}.index+json", digest=index, size=self.index_size),
        )

    def manifest(self) -> bytes:
        claims = {
            _ASSEMBLY: str(self.record.assembly),
            _TAR_SIZE: str(self.record.tar_size),
            _ENTRIES: str(self.record.entries),
            _MEMBERS: ",".join(map(str, self.record.members)),
        }
        return _manifest(_SEGMENT, self.key, claims, *self.blobs)


def task_blob(digest: str, size: int) -> Descriptor:
    """Return the descriptor of a compressed result."""
    return Descriptor(media_type=f"{_TASK}.tar+gzip", digest=f"sha256:{digest}", size=size)


def read_task_entry(data: bytes, *, key: str, what: str) -> TaskEntry:
    """Return the entry in a task's manifest. Raises BadEntry, which begins with `what`, for another form or key."""
    layers, claims = _read(data, kind=_TASK, key=key, count=1, what=what)
    sha256 = claims.get(_SHA256)
    if not isinstance(sha256, str) or not is_sha256(sha256):
        raise BadEntry(f"{what}: annotations.{_SHA256}: not a sha256")
    size = _number(claims, _SIZE, what)
    if size > _RATIO * layers[0].size:
        raise BadEntry(f"{what}: annotations.{_SIZE}: {layers[0].size} compressed bytes cannot contain {size}")
    return TaskEntry(key=key, sha256=sha256, size=size, blob=layers[0])


def read_segment_entry(data: bytes, *, key: str, assembly: int, what: str) -> SegmentEntry:
    """Return the entry in a segment's manifest. Raises BadEntry, which begins with `what`, for another form, key or assembly."""
    layers, claims = _read(data, kind=_SEGMENT, key=key, count=2, what=what)
    if _number(claims, _ASSEMBLY, what) != assembly:
        raise BadEntry(f"{what}: is of assembly {claims[_ASSEMBLY]}, not {assembly}")
    text = claims.get(_MEMBERS)
    try:
        members = tuple(int(part) for part in str(text).split(",")) if text else ()
    except ValueError:
        members = (-1,)
    if any(size <= 0 for size in members) or sum(members) != layers[0].size:
        raise BadEntry(f"{what}: annotations.{_MEMBERS}: not the sizes of the members of {layers[0].size} bytes")
    record = SegmentRecord(
        key=key,
        assembly=assembly,
        object=layers[0].hex,
        size=layers[0].size,
        tar_size=_number(claims, _TAR_SIZE, what),
        index=layers[1].hex,
        entries=_number(claims, _ENTRIES, what),
        members=members,
    )
    return SegmentEntry(record=record, index_size=layers[1].size)


def _read(data: bytes, *, kind: str, key: str, count: int, what: str) -> tuple[list[Descriptor], Mapping[str, Any]]:
    try:
        value = read_json(data, what=what)
        listed = value.get("layers")
        listed = listed if isinstance(listed, list) else []
        layers = [read_descriptor(one, what=what, field=f"layers[{i}]", limit=_LIMIT) for i, one in enumerate(listed)]
    except CregraphError as error:
        raise BadEntry(error.message) from None
    claims = value.get("annotations")
    if value.get("artifactType") != kind or not isinstance(claims, dict) or len(layers) != count:
        raise BadEntry(f"{what}: is not a {kind} with {count} {'blob' if count == 1 else 'blobs'}")
    if claims.get(_KEY) != key:
        raise BadEntry(f"{what}: is the entry of another key")
    return layers, claims


def _number(claims: Mapping[str, Any], name: str, what: str) -> int:
    text = claims.get(name)
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 15:
        raise BadEntry(f"{what}: annotations.{name}: expected a whole number")
    return int(text)


def _manifest(kind: str, key: str, claims: Mapping[str, str], *blobs: Descriptor) -> bytes:
    config, *layers = ({"mediaType": one.media_type, "digest": one.digest, "size": one.size} for one in (_EMPTY, *blobs))
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": kind,
            "config": config,
            "layers": layers,
            "annotations": {_KEY: key, **claims},
        }
    )
