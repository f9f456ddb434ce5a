"""Notes about the packages of a lock, such as link scripts that do not run. Printed once, on stderr."""

from __future__ import annotations

from collections.abc import Container

from cregraph.cli.terminal_output import talk
from cregraph.kinds import parts
from cregraph.lock.lock_file import Lock
from cregraph.store import Store

__all__ = ["tell"]


def tell(lock: Lock, store: Store, *, before: Lock | None = None, only: Container[str] | None = None) -> None:
    """Print the notes of all kinds: about a new lock (`before` is the old one), or about the packages `only` of a build."""
    targets = [target for target in lock.targets if target.scope == "image"]
    for rules in parts("notes").values():
        for note in rules.notes(targets, store, before=before.targets if before else (), only=only):
            talk(note)
