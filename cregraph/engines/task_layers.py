"""What a task sees, as plain tars that any container engine stacks: root, environment, results of needed tasks.

The same files as the trees of `cregraph.engines.trees`, made without unpacking anything here, each once, by key, and kept in the
store. An environment of hundreds of packages differs from task to task by a few of them, so it is cut into groups: what many
tasks share goes to an engine once. How it is cut decides no byte of a result: only the files' sum is seen.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cregraph.digest import Json, is_sha256, key_of
from cregraph.engines.contract import Files, Write, collision
from cregraph.engines.flatten import flatten
from cregraph.engines.task_image import Blob
from cregraph.errors import CregraphError
from cregraph.formats.tar_header import whiteout
from cregraph.formats.untrusted_tar import PACKAGE, Reader
from cregraph.image.model import segment as segments
from cregraph.image.model import tar_writer as tar
from cregraph.image.model.segment import Row, SegmentRecord
from cregraph.image.model.segment_files import contents, stored
from cregraph.plan.parts import Task
from cregraph.store import Store

__all__ = ["Layer", "TaskLayers"]

_FORM = 1  # how layers are made; another number, other layers
_SECTION = "task-layers"
_GROUPS = "groups"
_REMEMBERED = 32  # groups of segments that are kept in mind from build to build
_WORTH = 4 << 20  # bytes from which a group that one task alone has is kept in mind
_MANY = 60  # results that are layers of their own; more are one layer. Image stores take 127 layers at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer(Blob):
    """An uncompressed tar in the store; its sha256 is also its diff id. `folders` are the paths of the folders that it lists,
    relative to the root; `others`, of a root only, those of all else."""

    path: Path
    folders: tuple[str, ...]
    others: frozenset[str] = frozenset()


class TaskLayers:
    """The layers of one store. Safe with many threads.

    `layers` gives for the digest of an image manifest its layers' uncompressed, verified tars, in order, each open until the next
    is asked for.
    """

    def __init__(self, store: Store, *, layers: Callable[[str], Iterable[IO[bytes]]]) -> None:
        self._store = store
        self._layers = layers
        self._expected: Sequence[Task] = ()
        self._guard = threading.RLock()
        self._known: list[frozenset[str]] | None = None
        self._sound: set[frozenset[str]] = set()
        self._rows: dict[str, tuple[Row, ...]] = {}

    def expect(self, tasks: Sequence[Task]) -> None:
        """Say which tasks this build has, before the first is asked for: what their environments share is found from them."""
        self._expected = tasks

    def lowest(self, task: Task) -> frozenset[str] | None:
        """The group of segments that will lie lowest in the environment of `task`, where it is known before the segments are."""
        with self._guard:
            groups, _ = _fit(frozenset(task.environment), self._known_groups())
            return groups[0] if groups else None

    def stack(self, task: Task, results: Files) -> list[Layer]:
        """The layers that make the root of `task`, the lowest first. `results` maps the keys that it needs to their tars.

        Raises CregraphError where two of them cannot be laid over each other.
        """
        root = self.root(task.root)
        above = [*self.environment(task.environment), *self._results(task, results)]
        for layer in above:
            for folder in layer.folders:
                if folder in root.others:
                    raise CregraphError(
                        f"task {task.name}: what it needs has a folder /{folder}, where the build root has a file or link",
                        hint="choose a prefix that does not run through a symbolic link of the build root",
                    )
        return [root, *above]

    def root(self, digest: str) -> Layer:
        def make(write: Write) -> tuple[list[str], list[str]]:
            return [], flatten(lambda: self._layers(digest), write, title=f"the build root {digest[:19]}")

        return self._made({"image": digest}, make)

    def environment(self, keys: Iterable[str]) -> list[Layer]:
        """The files of all these segments: a layer for each group of them. Where two own one path it must be equal."""
        wanted = frozenset(keys)
        if not wanted:
            return []
        groups = self._cut(wanted)
        self._agree(wanted)
        return [self.group(group) for group in groups]

    def result(self, key: str, result: Path, at: str) -> Layer:
        """The result of the task `key`, at the folder `at`. `result` is its tar in the store."""
        return self._made({"results": [[result.name, at]]}, lambda write: (_lay([(key, result, at)], write), []))

    def _results(self, task: Task, results: Files) -> list[Layer]:
        placed = [(key, results[key], at) for key, at in sorted(task.results.items())]
        if len(placed) <= _MANY:
            return [self.result(*each) for each in placed]
        what: list[Json] = [[path.name, at] for _, path, at in placed]
        return [self._made({"results": what}, lambda write: (_lay(placed, write), []))]

    def group(self, group: frozenset[str]) -> Layer:
        """The files of these segments as one layer. Which of two that own one path gives it is `environment`'s to judge."""
        keys = sorted(group)

        def make(write: Write) -> tuple[list[str], list[str]]:
            folders = sorted({path for key in keys for path in segments.directories(self._rows_of(key))})
            for path in folders:
                write(tar.header(path=path, type="directory", mode=0o755))
            seen: set[str] = set()
            for key in keys:
                for row, content in contents(self._store, self._segment(key)):
                    if row.path in seen:
                        for _ in content:
                            pass
                        continue
                    seen.add(row.path)
                    size, link = (row.size, "") if row.type == "file" else (0, row.what)
                    write(tar.header(path=row.path, type=row.type, mode=row.mode & 0o777, size=size, link=link))
                    for piece in content:
                        write(piece)
                    if row.type == "file":
                        write(tar.padding(row.size))
            write(tar.END)
            return folders, []

        return self._made({"segments": list(keys)}, make)

    def _agree(self, environment: frozenset[str]) -> None:
        """Raise CregraphError where two segments own one path with different content."""
        with self._guard:
            if environment in self._sound:
                return
            owners: dict[str, Row] = {}
            folders: set[str] = set()
            for key in environment:
                rows = self._rows_of(key)
                folders |= segments.directories(rows)
                for row in rows:
                    before = owners.setdefault(row.path, row)
                    if (before.type, before.mode, before.size, before.what) != (row.type, row.mode, row.size, row.what):
                        raise collision(row.path)
            for path in folders & owners.keys():
                raise collision(path)
            self._sound.add(environment)

    def _cut(self, environment: frozenset[str]) -> list[frozenset[str]]:
        """Groups that make up `environment`: those that are known and fit, the largest first, and what is left."""
        with self._guard:
            groups, rest = _fit(environment, self._known_groups())
            if rest:
                groups.append(rest)
                if sum(self._segment(key).tar_size for key in rest) >= _WORTH:
                    self._keep([rest])
            return groups

    def _known_groups(self) -> list[frozenset[str]]:
        if self._known is None:
            self._known = self._remembered()
            self._keep(_shared([_fit(frozenset(task.environment), self._known)[1] for task in self._expected]))
        return self._known

    def _remembered(self) -> list[frozenset[str]]:
        found = self._store.record(_SECTION, _GROUPS)
        if not isinstance(found, list):
            return []
        return [
            frozenset(str(key) for key in group)
            for group in found[-_REMEMBERED:]
            if isinstance(group, list) and group and all(is_sha256(key) for key in group)
        ]

    def _keep(self, groups: list[frozenset[str]]) -> None:
        if groups and self._known is not None:
            self._known += groups
            # Another process may lose its own here: then something is sent twice, and nothing else.
            self._store.put_record(_SECTION, _GROUPS, [sorted(group) for group in self._known[-_REMEMBERED:]])

    def _segment(self, key: str) -> SegmentRecord:
        return stored(self._store, key, key[:12])

    def _rows_of(self, key: str) -> tuple[Row, ...]:
        with self._guard:
            if key not in self._rows:
                self._rows[key] = segments.index(self._store, self._segment(key))
            return self._rows[key]

    def _made(self, what: dict[str, Json], make: Callable[[Write], tuple[list[str], list[str]]]) -> Layer:
        """The layer of that description, made when the store does not have it."""
        key = key_of({"form": _FORM, **what})
        found = self._read(key)
        if found is None:
            with self._store.lock(f"{_SECTION}-{key}"):
                found = self._read(key)
                if found is None:
                    with self._store.writer() as out:
                        folders, others = make(out.write)
                    self._store.put_record(
                        _SECTION, key, {"sha256": out.sha256, "size": out.size, "folders": list(folders), "others": list(others)}
                    )
                    found = self._read(key)
                    assert found is not None
        return found

    def _read(self, key: str) -> Layer | None:
        found = self._store.record(_SECTION, key)
        if not isinstance(found, dict) or not is_sha256(found.get("sha256")) or not self._store.has(str(found["sha256"])):
            return None
        sha256, size, folders, others = str(found["sha256"]), found.get("size"), found.get("folders"), found.get("others")
        if not isinstance(size, int) or not isinstance(folders, list) or not isinstance(others, list):
            return None
        try:
            path = self._store.verified(sha256, "what a task sees")
        except CregraphError:
            return None
        return Layer(
            sha256=sha256, size=size, path=path, folders=tuple(map(str, folders)), others=frozenset(str(name) for name in others)
        )


def _fit(environment: frozenset[str], known: Sequence[frozenset[str]]) -> tuple[list[frozenset[str]], frozenset[str]]:
    """The known groups that lie in `environment`, the largest first, none of them over another; and the rest."""
    groups = []
    rest = environment
    for group in sorted(set(known), key=lambda g: (-len(g), min(g))):
        if group <= rest:
            groups.append(group)
            rest -= group
    return groups, rest


def _shared(environments: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    """Groups of keys that the same environments hold, at least two of them."""
    holders: dict[str, list[int]] = defaultdict(list)
    for number, environment in enumerate(environments):
        for key in environment:
            holders[key].append(number)
    classes: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for key, numbers in holders.items():
        classes[tuple(numbers)].add(key)
    shared = [(len(numbers) * len(keys), frozenset(keys)) for numbers, keys in classes.items() if len(numbers) > 1]
    shared.sort(key=lambda pair: (-pair[0], min(pair[1])))
    return [keys for _, keys in shared[: _REMEMBERED // 2]]


def _lay(results: Sequence[tuple[str, Path, str]], write: Write) -> list[str]:
    """Write the normalised tars of tasks at their places; returns the folders. Nothing in them is believed."""
    folders: dict[str, None] = {}
    for key, path, at in results:
        prefix = at.strip("/")
        parts = prefix.split("/")
        for count in range(1, len(parts) + 1):
            _folder("/".join(parts[:count]), folders, write)
        title = f"the result of task {key[:12]}"
        try:
            with path.open("rb") as stream:
                archive = Reader(stream, what=title, policy=PACKAGE, hint="run the command again")
                for member in archive:
                    if any(name in ("", ".") or whiteout(name) is not None for name in member.name.split("/")):
                        raise CregraphError(f"{title} holds `{member.name}`, a name that no layer can hold")
                    name = f"{prefix}/{member.name}"
                    if member.type == "directory":
                        _folder(name, folders, write)
                    elif member.type == "symlink":
                        write(tar.header(path=name, type="symlink", link=member.link))
                    elif member.type == "file":
                        write(tar.header(path=name, mode=member.mode & 0o777, size=member.size))
                        for piece in archive.blocks():
                            write(piece)
                        write(tar.padding(member.size))
        except (UnicodeError, ValueError) as error:
            raise CregraphError(f"{title} cannot be read: {error}", hint="run the command again") from error
    write(tar.END)
    return list(folders)


def _folder(path: str, folders: dict[str, None], write: Write) -> None:
    if path not in folders:
        folders[path] = None
        write(tar.header(path=path, type="directory", mode=0o755))
