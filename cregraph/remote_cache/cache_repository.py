"""A remote cache: entries by key in a repository of an OCI registry.

A reader checks every byte against the digests that the entry states, streams it into the store, and only then writes a record.
A writer never overwrites a tag. Registries have no conditional write, so two first writers can collide: each reads its tag back
and reports another content (docs/adr/0014).

Source: OCI Distribution Specification 1.1.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_of, inflated
from cregraph.http import Retries
from cregraph.image.media.registry import NotInRegistry, Registry
from cregraph.image.media.registry_http import Exchange
from cregraph.image.model import gzip_members
from cregraph.image.model.manifest import OCI_MANIFEST, Descriptor, digest_of
from cregraph.image.model.segment import SegmentRecord
from cregraph.plan.parts import Segment, Task
from cregraph.remote_cache import segment_check as segments
from cregraph.remote_cache.cache_entry import (
    EMPTY,
    SEGMENT_TAG,
    TASK_TAG,
    BadEntry,
    SegmentEntry,
    TaskEntry,
    read_segment_entry,
    read_task_entry,
    task_blob,
)
from cregraph.store import Store
from cregraph.store.task_records import record_result, recorded_result

__all__ = ["Conflict", "RemoteCache", "Unreachable"]

T = TypeVar("T")
#: Seconds before each retry. A build can go on without a cache, so it waits less than for a registry that gets the image.
_PAUSES = (0.3, 1.0)


class Unreachable(CregraphError):
    """Error: the cache does not answer, or its answer is not that of a registry."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """Two contents for one key: `ours`, and `theirs`, which was written first. The cache keeps both, ours at the tag `tag`."""

    what: str
    key: str
    ours: str
    theirs: str
    tag: str

    def __str__(self) -> str:
        return f"{self.what} ({self.key[:12]}…): sha256:{self.ours} here, sha256:{self.theirs} in the cache"


class RemoteCache:
    """The cache in one repository of a registry. Threads and other writers may use it at the same time.

    Entries of a `trusted` cache are used even if no outputs record them.
    """

    def __init__(self, host: str, repository: str, *, plain_http: bool | None = None, trusted: bool = False) -> None:
        self.name = f"{host}/{repository}"
        self.trusted = trusted
        self._registry = Registry(Exchange(host, plain_http=plain_http, retries=Retries(_PAUSES)))
        self._repository = repository
        self._guard = threading.Lock()
        self._has_empty = False

    def ping(self) -> None:
        """Raise Unreachable unless the registry answers and accepts the login."""
        self._asked(self._registry.ping)

    def ping_to_write(self) -> None:
        """Raise Unreachable unless the registry answers and lets this login write. Writes nothing."""
        self.ping()
        self._asked(lambda: self._registry.has_blob(self._repository, digest_of(EMPTY), for_push=True))

    def task(self, key: str, name: str) -> TaskEntry | None:
        """Return the entry of a task, or None. Its blob is not verified. Raises BadEntry, Unreachable."""
        data = self._manifest(TASK_TAG + key)
        return None if data is None else read_task_entry(data, key=key, what=self._what(f"task {name}"))

    def segment(self, key: str, name: str, assembly: int) -> SegmentEntry | None:
        """Return the entry of a segment, or None. Its blobs are not verified. Raises BadEntry, Unreachable."""
        data = self._manifest(SEGMENT_TAG + key)
        what = self._what(f"segment {name}")
        return None if data is None else read_segment_entry(data, key=key, assembly=assembly, what=what)

    def fetch_task(self, task: Task, store: Store, expected: str | None, size: int | None = None) -> int | None:
        """Download the result of `task` into `store`. Return the bytes downloaded, or None if the cache does not have it.

        `expected` and `size` are the sha256 and bytes that the outputs record. Without `expected`, an untrusted cache is not
        asked, and a result that `store` recorded before must be equal. An entry that states another result is not downloaded.

        Raises:
            BadEntry: The result is not the expected one, or not what its entry states.
            Unreachable: The cache does not answer.
        """
        if expected is None and not self.trusted:
            return None
        entry = self.task(task.key, task.name)
        if entry is None:
            return None
        what = self._what(f"task {task.name}")
        if expected is not None and entry.sha256 != expected:
            raise BadEntry(f"{what}: gives sha256:{entry.sha256}, but the recorded outputs have sha256:{expected}")
        if size is not None and entry.size != size:
            raise BadEntry(f"{what}: gives {entry.size} bytes, but the recorded outputs have {size}")
        before = recorded_result(store, task.key) if expected is None else None
        if before is not None and before[0] != entry.sha256:
            raise BadEntry(f"{what}: gives sha256:{entry.sha256}, but it gave sha256:{before[0]} here before")
        self.fetch_result(entry, store, what=what)
        record_result(store, task.key, entry.sha256, entry.size)
        return entry.blob.size

    def fetch_result(self, entry: TaskEntry, store: Store, *, what: str) -> None:
        """Download the tar of `entry` into `store` as an object, without a record. Raises BadEntry, Unreachable."""
        with store.writer() as out:
            try:
                for piece in inflated(self._blob(entry.blob, what), what=what):
                    out.write(piece)
                    if out.size > entry.size:
                        break
            except (BadEntry, Unreachable):
                raise
            except CregraphError as error:
                raise BadEntry(error.message) from None
            if out.size != entry.size or out.digest() != entry.sha256:
                raise BadEntry(f"{what}: its bytes have sha256:{out.digest()}, but its entry says sha256:{entry.sha256}")

    def fetch_segment(self, segment: Segment, store: Store, assembly: int) -> int | None:
        """Download a segment into `store`. Return the bytes downloaded, or None if the cache is untrusted or does not have it.

        Raises:
            BadEntry: This cregraph would not have made that segment for that place: see `segment_check`.
            Unreachable: The cache does not answer.
        """
        if not self.trusted:
            return None
        entry = self.segment(segment.key, segment.name, assembly)
        if entry is None:
            return None
        what = self._what(f"segment {segment.name}")
        for blob in reversed(entry.blobs):
            if not store.has(blob.hex):
                with store.writer() as out:
                    for piece in self._blob(blob, what):
                        out.write(piece)
        segments.check(store, entry.record, segment, what=what)
        store.put_record("segments", segment.key, asdict(entry.record))
        return sum(blob.size for blob in entry.blobs)

    def upload_task(self, task: Task, store: Store, sha256: str, size: int) -> int | Conflict:
        """Write the result of `task` unless the cache has one. Return the bytes uploaded, or the conflict. Raises Unreachable."""
        what = f"task {task.name}"
        there = functools.partial(_contents, lambda: self.task(task.key, task.name))
        before = there()
        if before == (sha256,):
            return 0
        with store.scratch_folder() as folder:
            packed = folder / "blob"
            path = store.verified(sha256, f"the result of {what}")
            hasher = hashlib.sha256()
            with packed.open("xb") as out:
                for member in gzip_members.compress(blocks_of(path)):
                    out.write(member)
                    hasher.update(member)
            blob = task_blob(hasher.hexdigest(), packed.stat().st_size)
            entry = TaskEntry(key=task.key, sha256=sha256, size=size, blob=blob)
            return self._write(entry, {blob: packed}, what, before, there)

    def upload_segment(self, segment: Segment, store: Store, record: SegmentRecord) -> int | Conflict:
        """Write a segment unless the cache has it. Return the bytes uploaded, or the conflict. Raises Unreachable."""
        what = f"segment {segment.name}"
        there = functools.partial(_contents, lambda: self.segment(segment.key, segment.name, record.assembly))
        before = there()
        if before == (record.object, record.index):
            return 0
        index = store.verified(record.index, f"the index of {what}")
        entry = SegmentEntry(record=record, index_size=index.stat().st_size)
        blobs = dict(zip(entry.blobs, (store.verified(record.object, what), index), strict=True))
        return self._write(entry, blobs, what, before, there)

    def _write(
        self,
        entry: TaskEntry | SegmentEntry,
        blobs: dict[Descriptor, Path],
        what: str,
        before: tuple[str, ...] | None,
        there: Callable[[], tuple[str, ...] | None],
    ) -> int | Conflict:
        """Write `entry` to its own tag if that is absent (`before` is None), else to another: see `_contents`."""
        manifest = entry.manifest()
        moved = len(manifest) + sum(self._upload(blob, path) for blob, path in blobs.items())
        if before is None:
            self._put(entry.tag, manifest)
            # Another writer may have written the tag meanwhile: the writer whose entry is not there reports it.
            if self._manifest(entry.tag) == manifest or (before := there()) == entry.contents:
                return moved
        ours, theirs = entry.contents[0], before[0] if before else "(an entry that cannot be read)"
        conflict = Conflict(what=what, key=entry.key, ours=ours, theirs=theirs, tag=f"{entry.tag}.{ours[:16]}")
        self._put(conflict.tag, manifest)
        return conflict

    def _put(self, tag: str, manifest: bytes) -> None:
        self._asked(lambda: self._registry.put_manifest(self._repository, tag, manifest, OCI_MANIFEST))

    def _upload(self, blob: Descriptor, path: Path) -> int:
        def send() -> int:
            with self._guard:
                if not self._has_empty:
                    empty = Descriptor(media_type="", digest=digest_of(EMPTY), size=len(EMPTY))
                    if not self._registry.has_blob(self._repository, empty.digest, for_push=True):
                        self._registry.upload(self._repository, empty, lambda start: iter((EMPTY[start:],)))
                    self._has_empty = True
            if self._registry.has_blob(self._repository, blob.digest, for_push=True):
                return 0
            self._registry.upload(self._repository, blob, lambda start: blocks_of(path, start))
            return blob.size

        return self._asked(send)

    def _manifest(self, tag: str) -> bytes | None:
        try:
            return self._asked(lambda: self._registry.manifest(self._repository, tag))
        except NotInRegistry:
            return None

    def _blob(self, blob: Descriptor, what: str) -> Iterator[bytes]:
        """Yield the bytes of a blob, which are verified when the iterator is exhausted."""
        size = 0
        try:
            for block in self._registry.blob(self._repository, blob):
                size += len(block)
                yield block
        except NotInRegistry:
            raise BadEntry(f"{what}: its entry names {blob.digest}, which is not in the cache") from None
        except CregraphError as error:
            if size >= blob.size:  # all bytes arrived, and they do not have the digest
                raise BadEntry(f"{what}: {error.message}") from None
            raise Unreachable(error.message, error.hint) from None

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except NotInRegistry:
            raise
        except CregraphError as error:
            raise Unreachable(error.message, error.hint) from None

    def _what(self, thing: str) -> str:
        return f"{thing} in the cache {self.name}"


def _contents(ask: Callable[[], TaskEntry | SegmentEntry | None]) -> tuple[str, ...] | None:
    """Return the contents of an entry; None if it is absent, an empty tuple if it is not valid."""
    try:
        entry = ask()
    except BadEntry:
        return ()
    return None if entry is None else entry.contents
