"""What a user should know of a lock's packages, and would find out too late: said on stderr, once."""

from __future__ import annotations

from collections.abc import Container

from cregraph.cli.terminal_output import talk
from cregraph.errors import CregraphError
from cregraph.kinds.conda import conda_kind as conda
from cregraph.lock.lock_file import Lock
from cregraph.lock.pins import Pin
from cregraph.store import Store
from cregraph.text import printable

__all__ = ["tell_link_scripts", "tell_sources"]

_SHOWN = 12


def tell_link_scripts(lock: Lock, store: Store, *, only: Container[str] | None = None) -> None:
    """Say which conda packages of the image have link scripts, that conda would run and nobody does.

    Looked at are those whose bytes are in the store (`only`: with these names); a build says it of what it puts together.
    """
    found: list[str] = []
    for target in lock.targets:
        if target.kind != "conda" or target.scope == "sandbox":
            continue
        for pin in target.pins:
            if (only is None or pin.name in only) and (scripts := _scripts(pin, store)):
                found.append(f"{pin.name} {pin.version} ({', '.join(scripts)})")
    if found:
        talk(
            f"link scripts that are not run: {_few(found)}\n"
            "  what they would change is not in the image; do it with a `file` step of a recipe, or in a notebook"
        )


def _scripts(pin: Pin, store: Store) -> list[str]:
    if not store.has(pin.artifact.sha256):
        return []
    try:
        found = conda.link_scripts(store.path_of(pin.artifact.sha256))
    except CregraphError:
        return []  # what is wrong with it is said by who needs it
    return [printable(name) for name in found]


def tell_sources(old: Lock | None, lock: Lock) -> None:
    """Say which R packages are compiled though built ones are asked for, and why; those that `old` had so are passed over."""
    known = {(p.name, p.version, p.data.get("no_binary")) for t in (old.targets if old else ()) if t.kind == "r" for p in t.pins}
    reasons: dict[str, list[str]] = {}
    for target in lock.targets:
        for p in target.pins if target.kind == "r" else ():
            why = p.data.get("no_binary")
            if why and (p.name, p.version, why) not in known:
                reasons.setdefault(f"{p.data.get('binaries')}: {why}", []).append(p.name)
    for why, names in sorted(reasons.items()):
        talk(f"compiled, not taken built for {why}: {_few(names)}")


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
