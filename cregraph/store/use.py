"""Who uses the store now, and how removing waits for them (docs/adr/0015).

    locks/turn        held shared while somebody enters, alone while things are removed
    users/<name>      one file for each who is inside, held by an advisory lock for as long: {"pid", "command", "locks"}

Who enters says which locks it works from, by the sha256 of their texts, which the store then holds; what these reach is kept for
it, also what it has yet to make. Who does not know yet (`lock`) says None, and nothing is removed until it has left. The kernel
frees both kinds of lock with the process, so a killed one is never waited for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from cregraph.digest import is_sha256, sha256
from cregraph.errors import CregraphError
from cregraph.store import Store

__all__ = ["User", "alone", "in_use", "nobody_else"]

_PAUSE = 0.1  # seconds between two looks at what holds the store


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """A process that uses the store. `locks` are the sha256 of its locks' texts; None: it may use anything.

    `entered` is when it began, by the clock of the store's file system: what was put in place since may be its.
    """

    pid: int
    command: str
    locks: tuple[str, ...] | None
    entered: float


@contextlib.contextmanager
def in_use(
    store: Store,
    command: str,
    *,
    locks: Iterable[bytes] | None = None,
    beside: Iterable[bytes] = (),
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Use the store, as `command`, for as long as the context lasts.

    `locks` are the texts of the locks that are worked from, `beside` what else is needed to plan them: base facts. Both become
    objects. While another removes things, entering waits, after one call of `waiting`.
    """
    with store.explained():
        (store.root / "users").mkdir(parents=True, exist_ok=True)
        (store.root / "locks").mkdir(exist_ok=True)
    with contextlib.ExitStack() as inside:
        with _turn(store, fcntl.LOCK_SH, waiting):
            for data in beside:
                _keep(store, data)
            known = None if locks is None else [_keep(store, text) for text in locks]
            path = store.root / "users" / f"{os.getpid()}-{secrets.token_hex(8)}"
            with store.explained():
                file = inside.enter_context(path.open("x", encoding="utf-8"))
                inside.callback(path.unlink, missing_ok=True)
                with contextlib.suppress(OSError):  # no locks on this file system: then nothing is removed either
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                json.dump({"pid": os.getpid(), "command": command, "locks": known}, file)
                file.flush()
        yield


@contextlib.contextmanager
def alone(store: Store, *, patience: float, waiting: Callable[[User], None] = lambda _user: None) -> Iterator[tuple[User, ...]]:
    """The moment in which things may be removed: nobody enters, and those who are inside (given) have said what they need.

    Waits up to `patience` seconds for each who may use anything, after one call of `waiting`; then raises CregraphError naming
    it. Raises also on a file system that has no locks.
    """
    until = time.monotonic() + patience
    told: set[int] = set()
    with store.explained():
        (store.root / "locks").mkdir(parents=True, exist_ok=True)
    while True:
        with _turn(store, fcntl.LOCK_EX, lambda: None):
            users = _users(store)
            open_ended = next((user for user in users if user.locks is None), None)
            if open_ended is None:
                yield users
                return
        if time.monotonic() > until:
            raise CregraphError(
                f"`cregraph {open_ended.command}` (process {open_ended.pid}) uses the store, and what it needs is not known yet",
                hint="run the command again when it is done; nothing was removed",
            )
        if open_ended.pid not in told:
            told.add(open_ended.pid)
            waiting(open_ended)
        time.sleep(_PAUSE)


@contextlib.contextmanager
def nobody_else(store: Store) -> Iterator[bool]:
    """Whether no other process uses the store; while the context lasts, none enters."""
    with store.explained():
        (store.root / "locks").mkdir(parents=True, exist_ok=True)
    with _turn(store, fcntl.LOCK_EX, lambda: None):
        yield all(user.pid == os.getpid() for user in _users(store))


def _keep(store: Store, data: bytes) -> str:
    digest = sha256(data)
    if not store.has(digest):
        store.add(data)
    return digest


@contextlib.contextmanager
def _turn(store: Store, how: int, waiting: Callable[[], None]) -> Iterator[None]:
    with store.explained():
        file = (store.root / "locks" / "turn").open("a")
    with file:
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
                    hint="put the store on a local disk, or remove the whole folder when nothing runs",
                ) from None
        yield


def _users(store: Store) -> tuple[User, ...]:
    """Those whose files are held. What a killed process left is removed. Raises CregraphError when nobody can tell."""
    found = []
    with store.explained():  # a glob would find nothing in a folder that cannot be read
        (store.root / "users").mkdir(exist_ok=True)
        listed = sorted((store.root / "users").iterdir())
    for path in listed:
        try:
            with path.open(encoding="utf-8") as file:
                if not _held(file):
                    with contextlib.suppress(OSError):
                        path.unlink()
                    continue
                found.append(_user(file.read(), os.fstat(file.fileno()).st_mtime))
        except FileNotFoundError:
            continue  # it has left
        except (OSError, ValueError, KeyError, TypeError):
            found.append(User(pid=0, command=path.name, locks=None, entered=0))  # another user's: it does not say what it needs
    return tuple(found)


def _held(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _user(text: str, entered: float) -> User:
    value = json.loads(text)
    locks = value["locks"]
    known = isinstance(locks, list) and all(is_sha256(one) for one in locks)
    return User(pid=int(value["pid"]), command=str(value["command"]), locks=tuple(locks) if known else None, entered=entered)
