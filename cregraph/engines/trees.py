"""Unpacked trees in the store, of which sandboxes are stacked: build roots, environments, results of tasks.

A tree is made once, by key, and only ever read: a sandbox lays its own layer over it. Files are shared by hard links, so an
environment costs the names in it, not the bytes.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import functools
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from cregraph.digest import Json, key_of
from cregraph.engines.contract import EPOCH, Files, Preparation, collision
from cregraph.engines.extract import extract
from cregraph.engines.flatten import flatten
from cregraph.errors import CregraphError
from cregraph.plan.parts import Task
from cregraph.store import Store

__all__ = ["Trees", "names", "of_segment"]

_ROOT = 8.0  # seconds that a build root takes, about
_FORM = 1  # how trees are made; another number, other trees
_MANY = 100  # results that are stacked one by one; more are merged first


class Trees:
    """The trees of one store.

    `layers` gives for the digest of an image manifest its layers' uncompressed, verified tars, in order, each open until the next
    is asked for. `unpack` writes the files of a segment, named by key, at their final paths below a folder.
    """

    def __init__(
        self, store: Store, *, layers: Callable[[str], Iterable[IO[bytes]]], unpack: Callable[[str, Path], None]
    ) -> None:
        self._store = store
        self._layers = layers
        self._unpack = unpack

    def below(self, task: Task, results: Files) -> list[Path]:
        """The trees that make the root of `task`, the uppermost first. `results` maps the keys that it needs to their tars.

        Raises CregraphError where two of them cannot be laid over each other.
        """
        root = self.root(task.root)
        stack = [self.result(key, results[key], at) for key, at in sorted(task.results.items())]
        if len(stack) > _MANY:
            stack = [self._merged("results", stack, [[key, at] for key, at in sorted(task.results.items())])]
        if task.environment:
            stack.append(self.environment(task.environment))
        for tree in stack:
            self._fits(tree, root, task)
        return [*stack, root]

    def ahead(self, tasks: Iterable[Task]) -> list[Preparation]:
        """The trees below `tasks` for which no task is needed: build roots, segments, environments."""
        roots: dict[str, list[str]] = {}
        environments: dict[tuple[str, ...], list[str]] = {}
        for task in tasks:
            roots.setdefault(task.root, []).append(task.key)
            if task.environment:
                environments.setdefault(tuple(sorted(set(task.environment))), []).append(task.key)
        segments = sorted({key for keys in environments for key in keys})
        return [
            *(
                Preparation(name=root, make=functools.partial(self.root, root), tasks=tuple(of), seconds=_ROOT)
                for root, of in roots.items()
            ),
            *(Preparation(name=key, make=functools.partial(self._segment, key), segments=(key,)) for key in segments),
            *(
                Preparation(name=key_of(list(keys)), make=functools.partial(self.environment, keys), needs=keys, tasks=tuple(of))
                for keys, of in environments.items()
            ),
        ]

    def root(self, digest: str) -> Path:
        def fill(folder: Path) -> None:
            title = f"the build root {digest[:19]}"
            with self._store.scratch_file() as tar:
                flatten(lambda: self._layers(digest), tar.write, title=title)
                tar.seek(0)
                extract(tar, folder, title=title)

        return self._tree(_named("roots", image=digest), fill)

    def environment(self, keys: Iterable[str]) -> Path:
        keys = sorted(set(keys))
        return self._merged("environments", (self._segment(key) for key in keys), keys)

    def result(self, key: str, tar: Path, at: str) -> Path:
        """The result of the task `key`, at the folder `at`."""

        def fill(folder: Path) -> None:
            with tar.open("rb") as stream:
                extract(stream, folder, title=f"the result of task {key[:12]}", at=at)

        return self._tree(_named("result-trees", tar=tar.name, at=at), fill)

    def _segment(self, key: str) -> Path:
        def fill(folder: Path) -> None:
            self._unpack(key, folder)
            _settle(os.fsencode(folder))

        return self._tree(of_segment(key), fill)

    def _merged(self, section: str, parts: Iterable[Path], what: Sequence[object]) -> Path:
        def fill(folder: Path) -> None:
            for part in parts:
                _merge(os.fsencode(part), os.fsencode(folder), b"")
            _settle(os.fsencode(folder))

        return self._tree(_named(section, of=list(what)), fill)

    def _tree(self, name: tuple[str, str], fill: Callable[[Path], None]) -> Path:
        def make(folder: Path) -> None:
            # The user's own group for all that comes into it: another one means nothing inside a user namespace.
            os.chown(folder, -1, os.getegid())
            fill(folder)
            folder.chmod(0o755)

        return self._store.tree(*name, make)

    def _fits(self, tree: Path, root: Path, task: Task) -> None:
        """Refuse a folder over something else: in an overlay it would hide a link of the root, and all that lies behind it."""
        todo = [""]
        while todo:
            here = todo.pop()
            for entry in os.scandir(tree / here):
                path = f"{here}/{entry.name}" if here else entry.name
                below = root / path
                if not entry.is_dir(follow_symlinks=False) or not os.path.lexists(below):
                    continue
                if not stat.S_ISDIR(below.lstat().st_mode):
                    raise CregraphError(
                        f"task {task.name}: what it needs has a folder /{path}, where the build root has a file or symbolic link",
                        hint="choose a prefix that does not run through a symbolic link of the build root",
                    )
                todo.append(path)


def names(task: Task, kept: Callable[[str], str | None]) -> Iterator[tuple[str, str]]:
    """Section and key of every tree that `task` may stand on. `kept` gives the sha256 of a task's result, where there is one."""
    yield _named("roots", image=task.root)
    if task.environment:
        keys = sorted(set(task.environment))
        yield _named("environments", of=keys)
        yield from (of_segment(key) for key in keys)
    for key, at in task.results.items():
        found = kept(key)
        if found is not None:
            yield _named("result-trees", tar=found, at=at)
    if len(task.results) > _MANY:
        yield _named("results", of=[[key, at] for key, at in sorted(task.results.items())])


def _named(section: str, **what: Json) -> tuple[str, str]:
    return section, key_of({"form": _FORM, **what})


def of_segment(key: str) -> tuple[str, str]:
    """Section and key of the tree of the segment `key`."""
    return _named("segment-trees", segment=key)


def kept_root(store: Store, digest: str) -> bool:
    section, key = _named("roots", image=digest)
    return (store.root / section / key[:2] / key).is_dir()


def _merge(source: bytes, target: bytes, at: bytes) -> None:
    """Lay the files of `source` into `target`, by hard links. A name taken by equal content is left; by another, an error."""
    for entry in sorted(os.scandir(source), key=lambda e: e.name):
        place = target + b"/" + entry.name
        shown = at + b"/" + entry.name
        if entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(FileExistsError):
                os.mkdir(place, 0o755)  # noqa: PTH102
            if not stat.S_ISDIR(os.lstat(place).st_mode):
                raise collision(shown.decode(errors="replace"))
            _merge(entry.path, place, shown)
            continue
        try:
            os.link(entry.path, place, follow_symlinks=False)
        except FileExistsError:
            if not _equal(entry.path, place):
                raise collision(shown.decode(errors="replace")) from None
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EPERM, errno.ENOTSUP, errno.EXDEV):
                raise
            shutil.copy2(entry.path, place, follow_symlinks=False)


def _equal(one: bytes, other: bytes) -> bool:
    first, second = os.lstat(one), os.lstat(other)
    if first.st_mode != second.st_mode:
        return False
    if stat.S_ISLNK(first.st_mode):
        return os.readlink(one) == os.readlink(other)  # noqa: PTH115
    return filecmp.cmp(one, other, shallow=False)


def _settle(folder: bytes) -> None:
    """Give all in `folder` one time and no set-id bits, and folders one mode: what a task can see must not depend on the day."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            _settle(entry.path)
            continue
        info = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(info.st_mode) and info.st_mode & 0o6000:
            os.chmod(entry.path, stat.S_IMODE(info.st_mode) & 0o777)  # noqa: PTH101
        if info.st_mtime_ns != EPOCH * 10**9:
            os.utime(entry.path, (EPOCH, EPOCH), follow_symlinks=False)
    os.chmod(folder, 0o755)  # noqa: PTH101, S103
    os.utime(folder, (EPOCH, EPOCH))
