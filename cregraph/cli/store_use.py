"""Registration of the objects that a command needs with the store, so that `cache gc` keeps them."""

from __future__ import annotations

import atexit
import contextlib

from cregraph.cli.terminal_output import talk
from cregraph.lock import lock_file as locks
from cregraph.session.session import Session
from cregraph.store import Store
from cregraph.store.users import in_use

__all__ = ["hold", "unsettled"]

_held = contextlib.ExitStack()
atexit.register(_held.close)


def hold(session: Session, command: str) -> None:
    """Keep what the lock reaches in the store until this process ends. Call it before looking what the store has.

    Waits while another process removes things.
    """
    facts = session.project.folder / "bases" / f"{session.lock.base.artifact.sha256}.json"
    text = locks.dumps(session.lock).encode()
    _held.enter_context(in_use(session.store, command, locks=[text], facts=[facts.read_bytes()], waiting=_waiting))


def unsettled(store: Store, command: str) -> contextlib.AbstractContextManager[None]:
    """Return a context in which nothing is removed, for a command that does not know yet what it needs."""
    return in_use(store, command, waiting=_waiting)


def _waiting() -> None:
    talk("waiting for `cregraph cache gc`, which deletes entries of the store")
