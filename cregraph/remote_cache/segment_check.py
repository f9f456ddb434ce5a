"""Check of a downloaded segment without its artifact: could this cregraph have made it for that place in the plan?

All bytes of a segment but the contents of its files follow from its index, and the index holds the sha256 of these contents.
So the check covers the form of the index, the paths, and every byte of the tar. It cannot compare the contents
with the artifact: therefore segments come from trusted caches only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import get_args

from cregraph.digest import Json, is_sha256
from cregraph.errors import CregraphError
from cregraph.formats.tar_header import whiteout
from cregraph.image.model import tar_writer as tar
from cregraph.image.model.segment import Row, SegmentRecord, listing
from cregraph.image.model.segment_files import NotTheIndex, check_rows
from cregraph.image.model.tar_entry import ancestors
from cregraph.plan.parts import Segment
from cregraph.remote_cache.cache_entry import BadEntry
from cregraph.store import Store

__all__ = ["check"]

#: The fields of a segment's place that name folders for its files.
_PLACES = ("at", "prefix", "site_packages", "scripts", "data", "headers")
_LIMIT = 512 << 20


def check(store: Store, record: SegmentRecord, segment: Segment, *, what: str) -> None:
    """Raise BadEntry, which begins with `what`, unless the objects of `record` in `store` are a segment for `segment`."""
    path = store.verified(record.index, what)
    if path.stat().st_size > _LIMIT:
        raise BadEntry(f"{what}: its index is larger than {_LIMIT >> 20} MiB")
    rows = _rows(path.read_bytes(), what)
    if len(rows) != record.entries:
        raise BadEntry(f"{what}: its index has {len(rows)} rows (expected {record.entries})")
    _check_paths(rows, segment.place, what)
    try:
        check_rows(rows, store, record)
    except NotTheIndex as error:
        where = f"`/{error.row.path}` does not match its index" if error.row else "contains more than its index lists"
        raise BadEntry(f"{what}: {where}") from None
    except (CregraphError, ValueError) as error:
        raise BadEntry(f"{what}: {error}") from None


def _rows(data: bytes, what: str) -> list[Row]:
    try:
        rows = [Row(*row) for row in json.loads(data)]
        same = listing(rows) == data
    except (ValueError, TypeError, RecursionError):
        raise BadEntry(f"{what}: its index is not readable") from None
    if not same or not all(_is_row(row) for row in rows):
        raise BadEntry(f"{what}: its index is not in the form that cregraph writes")
    return rows


def _is_row(row: Row) -> bool:
    numbers: tuple[Json, ...] = (row.mode, row.uid, row.gid, row.size)
    return (
        isinstance(row.path, str)
        and isinstance(row.what, str)
        and row.type in set(get_args(tar.Kind)) - {"directory"}
        and all(type(number) is int and number >= 0 for number in numbers)
        and row.mode & ~0o777 == 0
        and (is_sha256(row.what) if row.type == "file" else bool(row.what) and row.size == 0 and "\0" not in row.what)
    )


def _check_paths(rows: list[Row], place: Mapping[str, Json], what: str) -> None:
    roots = tuple(value.strip("/") for name in _PLACES if isinstance(value := place.get(name), str))
    owner = (place.get("uid", 0), place.get("gid", 0))
    seen: dict[str, Row] = {}
    last = b""
    for row in rows:
        if not _is_below(row.path, roots):
            raise BadEntry(f"{what}: holds `/{row.path!a}`, which is not below {' or '.join('/' + root for root in roots)}")
        if row.path.encode() <= last:
            raise BadEntry(f"{what}: its paths are not in order (`/{row.path!a}`)")
        last = row.path.encode()
        if (row.uid, row.gid) != owner:
            raise BadEntry(f"{what}: `/{row.path}` is owned by {row.uid}:{row.gid} (expected {owner[0]}:{owner[1]})")
        if any(parent in seen for parent in ancestors(row.path)):
            raise BadEntry(f"{what}: `/{row.path}` is below a file of the same segment")
        if row.type == "hardlink" and (row.what not in seen or seen[row.what].type != "file"):
            raise BadEntry(f"{what}: `/{row.path}` is a hard link to a path that is not before it in the segment")
        seen[row.path] = row


def _is_below(path: str, roots: tuple[str, ...]) -> bool:
    """Return whether a path without `.`, `..` and whiteouts is one of `roots` or below one."""
    if "\0" in path or any(part in ("", ".", "..") or whiteout(part) is not None for part in path.split("/")):
        return False
    return any(path == root or path.startswith(f"{root}/") for root in roots)
