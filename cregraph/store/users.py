"""The processes that use a store, and the lock that `cache gc` takes (docs/adr/0015).

    locks/gc          shared while a process registers, exclusive while objects are removed
    users/<name>      one file for each registered process, which holds an advisory lock on it: {"pid", "command", "locks"}

A process registers the sha256 of the texts of its locks, which become objects. gc keeps what these locks reach, also what is
not built yet. A process that does not know its locks yet, such as `lock`, registers None, and gc waits until it has left. The
kernel frees both locks with the process, so gc never waits for a killed one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from cregraph.digest import is_sha256, sha256
from cregraph.errors import CregraphError
from cregraph.store import Store

__all__ = ["User", "gc_lock", "in_use", "only_user"]

_PAUSE = 0.1  # seconds between two attempts


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """A process that uses the store.

    Attributes:
        locks: The sha256 of its locks' texts. None: it may use any object.
        since: When it registered, in seconds by the clock of the store's file system. Files that are newer may be its own.
    """

    pid: int
    command: str
    locks: tuple[str, ...] | None
    since: float


@contextlib.contextmanager
def in_use(
    store: Store,
    command: str,
    *,
    locks: Iterable[bytes] | None = None,
    facts: Iterable[bytes] = (),
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Register this process as a user of the store for the duration of the context.

    `locks` are the texts of its locks, `facts` the base facts that their plans need. Both become objects. While gc runs, this
    calls `waiting` once and waits.
    """
    with contextlib.ExitStack() as inside:
        with _locked(store, fcntl.LOCK_SH, waiting):
            for data in facts:
                _keep(store, data)
            known = None if locks is None else [_keep(store, text) for text in locks]
            path = store.root / "users" / f"{os.getpid()}-{os.urandom(8).hex()}"
            with store.explained():
                path.parent.mkdir(exist_ok=True)
                file = inside.enter_context(path.open("x", encoding="utf-8"))
                inside.callback(path.unlink, missing_ok=True)
                with contextlib.suppress(OSError):  # without locks on this file system gc removes nothing
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                json.dump({"pid": os.getpid(), "command": command, "locks": known}, file)
                file.flush()
        yield


@contextlib.contextmanager
def gc_lock(store: Store, *, patience: float, waiting: Callable[[User], None] = lambda _user: None) -> Iterator[tuple[User, ...]]:
    """Hold the lock under which objects may be removed, and yield the registered users. No process registers meanwhile.

    Calls `waiting` for each user whose locks are None and waits for it, up to `patience` seconds in total.

    Raises CregraphError if such a user is still there (the message names it), or if the file system has no locks.
    """
    until = time.monotonic() + patience
    told: set[int] = set()
    while True:
        with _locked(store, fcntl.LOCK_EX, lambda: None):
            users = _users(store)
            open_ended = next((user for user in users if user.locks is None), None)
            if open_ended is None:
                yield users
                return
        if time.monotonic() > until:
            raise CregraphError(
                f"`cregraph {open_ended.command}` (process {open_ended.pid}) uses the store, and its needs are not known yet",
                hint="run the command again later. Nothing was removed",
            )
        if open_ended.pid not in told:
            told.add(open_ended.pid)
            waiting(open_ended)
        time.sleep(_PAUSE)


@contextlib.contextmanager
def only_user(store: Store) -> Iterator[bool]:
    """Hold the gc lock, and yield whether no other process uses the store."""
    with _locked(store, fcntl.LOCK_EX, lambda: None):
        yield all(user.pid == os.getpid() for user in _users(store))


def _keep(store: Store, data: bytes) -> str:
    digest = sha256(data)
    if not store.has(digest):
        store.add(data)
    return digest


@contextlib.contextmanager
def _locked(store: Store, how: int, waiting: Callable[[], None]) -> Iterator[None]:
    with store.lock_file("gc") as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                waiting()
                fcntl.flock(file, how)
            elif how == fcntl.LOCK_EX:
                raise CregraphError(
                    f"the file system of the store at {store.root} has no locks ({error.strerror}), "
                    "so nobody can tell what is in use there",
                    hint="put the store on a local disk, or remove the whole folder when no command uses it",
                ) from None
        yield


def _users(store: Store) -> tuple[User, ...]:
    """Return the processes that hold their files, and remove the files of killed ones. Raises CregraphError if unreadable."""
    found = []
    with store.explained():  # glob() returns nothing for an unreadable folder
        (store.root / "users").mkdir(exist_ok=True)
        listed = sorted((store.root / "users").iterdir())
    for path in listed:
        try:
            with path.open(encoding="utf-8") as file:
                if not _held(file):
                    with contextlib.suppress(OSError):
                        path.unlink()
                    continue
                value, since = json.load(file), os.fstat(file.fileno()).st_mtime
                locks = value["locks"]
                known = tuple(locks) if isinstance(locks, list) and all(is_sha256(one) for one in locks) else None
                found.append(User(pid=int(value["pid"]), command=str(value["command"]), locks=known, since=since))
        except FileNotFoundError:
            continue  # the process has ended
        except (OSError, ValueError, KeyError, TypeError):
            found.append(User(pid=0, command=path.name, locks=None, since=0))  # a file of another account
    return tuple(found)


def _held(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
