"""Segments: the tar entries of one artifact, compressed once and kept in the store with an index.

A segment's object consists of gzip members that hold tar entries of files and links, sorted by the bytes of their paths,
without directories and without an end marker. Its index is another object: a JSON array, one row on each line, in the
same order: [path, type, mode, uid, gid, size, what], where `what` is a file's sha256 or a link's text. The record in the
store's section `segments` names both objects by sha256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import BinaryIO

from cregraph.digest import ASSEMBLY, is_sha256
from cregraph.errors import CregraphError
from cregraph.formats.tar_header import whiteout
from cregraph.image.model import tar_writer as tar
from cregraph.image.model.gzip_members import compress, inflate
from cregraph.image.model.tar_entry import Entry, ancestors
from cregraph.store import Store

__all__ = ["Row", "SegmentRecord", "directories", "index", "listing", "members_of", "read", "write"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentRecord:
    """A segment in the store.

    `object` is the sha256 of its `size` compressed bytes, `tar_size` the bytes that they hold (no end marker), `index` the
    sha256 of the index, `entries` the number of its rows, `members` the compressed size of each gzip member.
    """

    key: str
    assembly: int
    object: str
    size: int
    tar_size: int
    index: str
    entries: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of an index. `what` is the sha256 of a file, the text of a symbolic link, or a hard link's first path."""

    path: str
    type: tar.Kind
    mode: int
    uid: int
    gid: int
    size: int
    what: str

    def header(self) -> bytes:
        """Return the tar header of this entry, a function of the row alone."""
        link = "" if self.type == "file" else self.what
        return tar.header(path=self.path, type=self.type, mode=self.mode, uid=self.uid, gid=self.gid, size=self.size, link=link)


def write(entries: Iterable[Entry], store: Store, key: str, assembly: int) -> SegmentRecord:
    """Write the segment of `key` from `entries`, in any order, and its record. Each content is read once.

    The first path of a hard-linked file in sort order holds the content; a hard link to a symbolic link becomes a copy of that
    link. Memory holds the entries without their content, and a few MiB.

    Raises CregraphError, and keeps nothing, if `assembly` is not this version's, if a path is absolute, climbs, is listed twice,
    is both file and folder or has a `.wh.` name, if a hard link leads nowhere, or if content has another size than stated.
    """
    if assembly != ASSEMBLY:
        raise CregraphError(
            f"segment {key[:12]} has assembly {assembly}; this version of cregraph writes assembly {ASSEMBLY}",
            hint="run `cregraph lock` to move the lock to this assembly, or use the version of cregraph that wrote it",
        )
    with store.explained():  # readers of archives inflate them into scratch files first
        ordered = _ordered(entries)
    rows: list[Row] = []
    members: list[int] = []
    tar_size = 0

    def stream() -> Iterator[bytes]:
        nonlocal tar_size
        for entry in ordered:
            for chunk in _entry(entry, rows):
                tar_size += len(chunk)
                yield chunk

    with store.writer() as out:
        for member in compress(stream()):
            out.write(member)
            members.append(len(member))
    record = SegmentRecord(
        key=key,
        assembly=assembly,
        object=out.sha256,
        size=out.size,
        tar_size=tar_size,
        index=store.add(listing(rows)),
        entries=len(rows),
        members=tuple(members),
    )
    store.put_record("segments", key, asdict(record))
    return record


def read(store: Store, key: str) -> SegmentRecord | None:
    """Return the segment of `key`, or None if it must be made: there is no sound record, or an object is gone."""
    found = store.record("segments", key)
    if not isinstance(found, dict):
        return None
    try:
        record = SegmentRecord(**{**found, "members": tuple(found["members"])})
    except (TypeError, KeyError):
        return None
    numbers = [record.size, record.tar_size, record.entries, *record.members]
    sound = (
        record.key == key
        and record.assembly == ASSEMBLY
        and is_sha256(record.object)
        and is_sha256(record.index)
        and all(type(n) is int and n >= 0 for n in numbers)
        and sum(record.members) == record.size
    )
    return record if sound and store.has_whole(record.object, record.size) and store.has_whole(record.index) else None


def index(store: Store, record: SegmentRecord) -> tuple[Row, ...]:
    """Return the rows of a segment, sorted by the bytes of their paths. The index is verified first."""
    data = store.verified(record.index, f"the index of segment {record.key[:12]}").read_bytes()
    return tuple(Row(*row) for row in json.loads(data))


def listing(rows: Iterable[Row]) -> bytes:
    """Return the index of a segment with `rows`. Raises ValueError if a text is not UTF-8."""
    lines = (json.dumps([r.path, r.type, r.mode, r.uid, r.gid, r.size, r.what], ensure_ascii=False) for r in rows)
    return ("[" + ",".join(f"\n{line}" for line in lines) + "\n]\n").encode()


def directories(rows: Iterable[Row | Entry]) -> frozenset[str]:
    """Return the parent directories that the paths need, relative to the image's root and without it."""
    found: set[str] = set()
    for row in rows:
        for parent in ancestors(row.path):
            if parent in found:
                break
            found.add(parent)
    return frozenset(found)


def members_of(store: Store, record: SegmentRecord) -> Iterator[tuple[bytes, bytes]]:
    """Yield each gzip member of a segment with the bytes that it holds.

    Raises CregraphError, at the end at the latest, if the bytes differ from the record: a caller may keep nothing made from
    them before this is exhausted.
    """
    what = f"segment {record.key[:12]}"
    hasher = hashlib.sha256()
    held: list[bytes] = []

    def compressed(file: BinaryIO) -> Iterator[bytes]:
        for size in record.members:
            member = file.read(size)
            hasher.update(member)
            held.append(member)
            yield member

    total = 0
    path = store.path_of(record.object)
    if not path.is_file():
        store.verified(record.object, what)  # says that it is absent, and what to do
    try:
        with path.open("rb") as file:
            for content in inflate(compressed(file)):
                total += len(content)
                yield held.pop(0), content
            rest = file.read(1)
    except ValueError as error:
        raise _damaged(store, record, what) from error
    if rest or total != record.tar_size or hasher.hexdigest() != record.object:
        raise _damaged(store, record, what)


def _damaged(store: Store, record: SegmentRecord, what: str) -> CregraphError:
    """Delete the record of a damaged segment, so that the next run makes it again, and return the error."""
    store.drop_record("segments", record.key)
    return CregraphError(
        f"{what} in the store is damaged: its bytes are not those of sha256:{record.object}",
        hint="run the command again to make it again, and check the disk",
    )


def _entry(entry: Entry, rows: list[Row]) -> Iterator[bytes]:
    """Yield the tar bytes of one entry, then add its row to `rows`."""
    what = entry.link
    size = entry.size if entry.type == "file" else 0
    mode = 0o777 if entry.type == "symlink" else entry.mode
    try:
        yield tar.header(path=entry.path, type=entry.type, mode=mode, uid=entry.uid, gid=entry.gid, size=size, link=entry.link)
    except ValueError as error:
        raise CregraphError(f"`{entry.path!a}` cannot be put into a layer: {error}") from error
    if entry.type == "file":
        hasher = None if entry.sha256 else hashlib.sha256()
        seen = 0
        for chunk in entry.chunks() if entry.chunks else ():
            seen += len(chunk)
            if seen > size:
                break
            if hasher is not None:
                hasher.update(chunk)
            yield chunk
        if seen != size:
            more = "more" if seen > size else f"only {seen}"
            raise CregraphError(
                f"`{entry.path}` has a stated size of {size} bytes, but has {more}",
                hint="check the archive: it is broken or changed during the read",
            )
        yield tar.padding(size)
        what = hasher.hexdigest() if hasher is not None else entry.sha256
    rows.append(Row(entry.path, entry.type, mode, entry.uid, entry.gid, size, what))


def _ordered(entries: Iterable[Entry]) -> list[Entry]:
    """Return the checked entries, sorted by the bytes of their paths. The first path of a hard-linked file holds its content."""
    by_path: dict[str, Entry] = {}
    for entry in entries:
        _check(entry)
        if entry.path in by_path:
            raise CregraphError(f"`{entry.path}` is listed twice in one segment")
        by_path[entry.path] = entry
    for parent in sorted(directories(by_path.values()) & by_path.keys()):
        path = next(path for path in by_path if path.startswith(f"{parent}/"))
        raise CregraphError(f"`{parent}` is a file, but `{path}` of the same segment needs a folder")
    names: dict[str, list[str]] = {}
    for entry in by_path.values():
        if entry.type == "hardlink":
            names.setdefault(_end(entry, by_path), []).append(entry.path)
    for end, links in names.items():
        _turn(by_path[end], links, by_path)
    return [by_path[path] for path in sorted(by_path, key=str.encode)]


def _turn(content: Entry, links: list[str], by_path: dict[str, Entry]) -> None:
    """Put the content at the first of several paths of one file, and make the others links to it."""
    paths = sorted([content.path, *links], key=str.encode)
    first = paths[0]
    for path in paths:
        if content.type == "symlink" or path == first:
            by_path[path] = replace(content, path=path)
        else:
            by_path[path] = Entry(path=path, type="hardlink", mode=content.mode, uid=content.uid, gid=content.gid, link=first)


def _end(entry: Entry, by_path: dict[str, Entry]) -> str:
    """Return the path at the end of a chain of hard links."""
    seen = [entry.path]
    while entry.type == "hardlink":
        target = by_path.get(entry.link)
        if target is None:
            raise CregraphError(
                f"`{entry.path}` is a hard link to `{entry.link}`, which is not in the same segment",
                hint="list the file under both paths: image stores refuse a hard link into another layer",
            )
        if target.path in seen:
            raise CregraphError(f"the hard links of `{seen[0]}` form a circle: {' -> '.join([*seen, target.path])}")
        seen.append(target.path)
        entry = target
    return entry.path


def _check(entry: Entry) -> None:
    path = entry.path
    try:
        (path + entry.link).encode()
    except UnicodeEncodeError:
        raise CregraphError(f"the name {path!a} (or its link) is not UTF-8; image stores read such names differently") from None
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise CregraphError(
            f"`{path}` is not a path below the image's root: it must be relative, without empty, `.` or `..` parts"
        )
    if "\0" in path or "\0" in entry.link:
        raise CregraphError(f"{path!r} has a NUL byte in its name or link")
    if any(whiteout(part) is not None for part in parts):
        # OCI image-spec, layer.md, "Whiteouts": such a name deletes from the layers below.
        raise CregraphError(
            f"`{path}` has a name that deletes files of the layers below (`.wh.`), but an image must not delete files of the base"
        )
    if entry.type != "file" and not entry.link:
        raise CregraphError(f"`{path}` is a {entry.type} whose link is empty")
