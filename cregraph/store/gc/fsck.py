"""Search for damage in a store: `cache verify`.

It hashes every object, and compares records with the objects that they name, segments with their indexes, layers with their
diff ids, and trees of segments with the indexes. Damaged objects move to quarantine/; damaged records and trees are deleted.
The next build downloads or rebuilds them. Build roots, trees of task results, and the caches of rattler and uv are not checked.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cregraph.digest import is_sha256
from cregraph.engines import trees
from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_of, inflated
from cregraph.image.model import layer as layers
from cregraph.image.model import segment as segments
from cregraph.image.model.segment import Row
from cregraph.image.model.segment_files import NotTheIndex, check_rows
from cregraph.store import Store
from cregraph.store.atomic_file import file_digest, remove_tree
from cregraph.store.gc.roots import Root
from cregraph.store.listing import Entry, named, objects, records, sections
from cregraph.store.listing import trees as trees_of
from cregraph.store.users import only_user

__all__ = ["Damage", "inspect", "names"]

_GONE = "it names a missing object"


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """A damaged object, record or tree.

    Attributes:
        what: `object`, `record` or `tree`.
        name: Its place in the store.
        done: What cregraph did with it.
        of: What it belongs to, in words.
    """

    what: str
    name: str
    why: str
    done: str
    of: tuple[str, ...] = ()


def inspect(store: Store, known: Mapping[str, str], *, jobs: int = 2) -> list[Damage]:
    """Check everything. `known` describes keys and objects in words: see `names`."""
    found = list(_objects(store, known, jobs))
    checks = {"segments": _segment, "layers": _layer, "tasks": _task, "images": _image, "settled": _settled, "projects": _project}
    for section in sections(store):
        for entry in records(store, section):
            record, why = _read(entry)
            if why is None and section in checks:
                why = checks[section](store, entry.name, record)
            if why is not None:
                store.drop_record(section, entry.name)
                of = (known[entry.name],) if entry.name in known else ()
                found.append(Damage(what="record", name=f"{section}/{entry.name}", why=why, done="forgotten", of=of))
    return [*found, *_trees(store, known)]


def names(roots: Iterable[Root]) -> dict[str, str]:
    """Return descriptions of the keys and artifacts of locks."""
    found: dict[str, str] = {}
    for root in roots:
        plan = root.plan
        for target in plan.lock.targets:
            found |= {pin.artifact.sha256: f"{target.kind} {pin.name} {pin.version}".strip() for pin in target.pins}
        found |= {segment.key: f"segment {segment.name}" for segment in (*plan.segments.values(), *plan.hidden.values())}
        found |= {layer.key: f"layer {layer.name}" for layer in plan.layers}
        found |= {task.key: f"task {task.name}" for task in plan.tasks}
        found |= {plan.key: f"image {plan.tag}", root.text: f"the text of {root.name}"}
    return found


def _objects(store: Store, known: Mapping[str, str], jobs: int) -> Iterator[Damage]:
    def look(entry: Entry) -> tuple[Entry, str, int]:
        try:
            with open(entry.path, "rb", opener=_quietly) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                info = os.fstat(file.fileno())
        except FileNotFoundError:
            return entry, entry.name, 0
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise _unreadable(entry, error) from None
            return entry, f"it cannot be read: {error.strerror}", 0
        return entry, digest, info.st_ino

    needed: dict[str, list[str]] | None = None
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for entry, digest, inode in pool.map(look, objects(store)):
            if digest == entry.name:
                continue
            if needed is None:
                needed = _needed(store, known)
            why = f"its bytes have sha256:{digest}" if is_sha256(digest) else digest
            of = ((known[entry.name],) if entry.name in known else ()) + tuple(sorted(needed.get(entry.name, ())))
            yield Damage(what="object", name=entry.name, why=why, done=_aside(store, entry, digest, inode), of=of)


def _quietly(path: str, flags: int) -> int:
    """Open without changing the access time, which `gc --older` compares."""
    with contextlib.suppress(OSError, AttributeError):
        return os.open(path, flags | os.O_NOATIME)
    return os.open(path, flags)


def _aside(store: Store, entry: Entry, digest: str, inode: int) -> str:
    """Move a damaged object to quarantine/, unless it was replaced meanwhile."""
    aside = store.root / "quarantine" / f"{entry.name}.{digest[:12] if is_sha256(digest) else 'unread'}"
    aside.parent.mkdir(exist_ok=True)
    with store.commit_lock(exclusive=True), contextlib.suppress(FileNotFoundError):
        if inode in (0, entry.path.stat().st_ino):
            entry.path.replace(aside)
            return f"moved to quarantine/{aside.name}"
    return "replaced during the check"


def _needed(store: Store, known: Mapping[str, str]) -> dict[str, list[str]]:
    """Return descriptions of the records that name each object."""
    found: dict[str, list[str]] = {}
    for section in sections(store):
        for entry in records(store, section):
            for name in named(entry) - {entry.name}:
                found.setdefault(name, []).append(known.get(entry.name, f"{section}/{entry.name[:12]}"))
    return found


def _read(entry: Entry) -> tuple[object, str | None]:
    """Parse a record. Raises CregraphError if the user or the disk does not permit it: the record may be whole and stays."""
    try:
        return json.loads(entry.path.read_bytes()), None
    except FileNotFoundError:
        return None, None  # it was removed meanwhile
    except OSError as error:
        raise _unreadable(entry, error) from None
    except (ValueError, RecursionError):
        return None, "it is not JSON"


def _unreadable(entry: Entry, error: OSError) -> CregraphError:
    return CregraphError(
        f"the store cannot be checked: `{entry.path}` cannot be read ({error.strerror})",
        hint="run the command as the owner of the store, and check the disk",
    )


def _segment(store: Store, key: str, record: object) -> str | None:
    found = segments.read(store, key)
    if found is None:
        return _GONE if isinstance(record, dict) and record.get("key") == key else "it is not a record of a segment"
    try:
        rows = segments.index(store, found)
        if len(rows) != found.entries:
            return f"its index lists {len(rows)} entries (expected {found.entries})"
        check_rows(rows, store, found)
    except NotTheIndex as error:
        where = f"`{error.row.path}` has other bytes" if error.row else "it contains more than it lists"
        return f"its index does not match: {where}"
    except (CregraphError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return error.message if isinstance(error, CregraphError) else "its index is invalid"
    return None


def _layer(store: Store, key: str, record: object) -> str | None:
    found = layers.read(store, key)
    if found is None:
        return _GONE if isinstance(record, dict) and record.get("key") == key else "it is not a record of a layer"
    hasher = hashlib.sha256()
    try:
        for block in inflated(blocks_of(store.verified(found.object)), what="it"):
            hasher.update(block)
    except CregraphError as error:
        return error.message
    return None if found.diff_id == f"sha256:{hasher.hexdigest()}" else "its plain bytes have another digest than stated"


def _task(store: Store, key: str, record: object) -> str | None:
    found = record.get("sha256") if isinstance(record, dict) else None
    if not isinstance(found, str) or not is_sha256(found):
        return "it is not a record of a task"
    return None if store.has(found) else _GONE


def _image(store: Store, key: str, record: object) -> str | None:
    found = record.get("digest") if isinstance(record, dict) else None
    return None if is_sha256(str(found).removeprefix("sha256:")) else "it is not a record of an image"


def _settled(store: Store, key: str, record: object) -> str | None:
    return None if isinstance(record, list) and all(is_sha256(one) for one in record) else "it is not a list of segments"


def _project(store: Store, key: str, record: object) -> str | None:
    if not isinstance(record, dict) or not isinstance(record.get("lock"), str):
        return "it does not name a lock file"
    built = record.get("built")
    return None if built is None or (isinstance(built, dict) and store.has(str(built.get("text")))) else _GONE


def _trees(store: Store, known: Mapping[str, str]) -> Iterator[Damage]:
    """Compare the trees of segments with their indexes. Environments are hard links to the same files."""
    of = {trees.of_segment(entry.name): entry.name for entry in records(store, "segments")}
    for entry in trees_of(store, "segment-trees"):
        key = of.get(("segment-trees", entry.name))
        record = segments.read(store, key) if key else None
        if key is None or record is None:
            continue
        why = _differs(entry.path, segments.index(store, record))
        if why is not None:
            label = (known[key],) if key in known else ()
            yield Damage(what="tree", name=f"segment-trees/{entry.name}", why=why, done=_without(store, entry.name), of=label)


def _without(store: Store, damaged: str) -> str:
    """Remove a segment's tree and all environments, which share its files, unless another process uses the store."""
    with only_user(store) as free:
        if not free:
            return "not checked, because another command uses the store: run this again later"
        gone = []
        for section in ("segment-trees", "environments"):
            for tree in trees_of(store, section):
                if section == "environments" or tree.name == damaged:
                    with store.scratch_folder() as aside:
                        tree.path.replace(aside / "tree")
                        remove_tree(aside / "tree")
                    gone.append(section)
        return "removed" + (", and the environments" if "environments" in gone else "")


def _differs(tree: Path, rows: Iterable[Row]) -> str | None:
    expected = {row.path: row for row in rows}
    for here, _, found in os.walk(tree):
        for name in found:
            path = Path(here, name)
            if path.relative_to(tree).as_posix() not in expected:
                return f"it contains `{path.relative_to(tree)}`, which its index does not list"
    for row in expected.values():
        path = tree / row.path
        try:
            info = path.lstat()
            if row.type == "symlink":
                same = stat.S_ISLNK(info.st_mode) and os.readlink(path) == row.what  # noqa: PTH115
            else:
                whole = row if row.type == "file" else expected[row.what]
                same = stat.S_ISREG(info.st_mode) and info.st_size == whole.size and file_digest(path) == whole.what
        except (OSError, KeyError):
            same = False
        if not same:
            return f"`{row.path}` does not match its index"
    return None
