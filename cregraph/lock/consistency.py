"""What a lock lacks or contradicts, by its own words: an ask without a pin, a need that nobody provides, a pin that does not
agree with itself. A merge or an edit by hand leaves such holes; a lock with one is stale, and `cregraph lock` mends it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cregraph.digest import Json
from cregraph.lock.lock_file import Lock
from cregraph.lock.pins import BUILD_ROOT, Pin, Target

__all__ = ["agrees", "find_problems"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOKEN = {"conda": "conda", "r": "r", "python": "py"}


def find_problems(lock: Lock, *, base: Iterable[str] | None = None) -> dict[str, list[str]]:
    """The problems of each target, by the target's id; targets without one are left out.

    `base` are the normal names (PEP 503) of the base's Python distributions; with None, what only they could answer is passed.
    """
    names = None if base is None else frozenset(base)
    provided = {token.split(" ")[0] for t in lock.targets for p in t.pins for token in p.provides}
    found = {t.id: [*_of(t, provided, names), *_built_elsewhere(t, lock)] for t in lock.targets}
    return {target_id: listed for target_id, listed in found.items() if listed}


def agrees(pin: Pin, kind: str) -> bool:
    """Whether a pin of that kind provides what its name and version say."""
    token = _TOKEN.get(kind)
    if token is None:
        return True
    name = pin.name if pin.data.get("role") == "build" else f"{token}:{pin.name.lower() if kind == 'r' else pin.name}"
    return f"{name} {pin.version}" in pin.provides


def _of(target: Target, provided: set[str], base: frozenset[str] | None) -> list[str]:
    if not target.pins and target.scope == "sandbox" and target.place != BUILD_ROOT:
        return []  # only pinned when something is compiled
    found = []
    names = {p.name for p in target.pins}
    for ask in target.asks:
        name = _asked(target.kind, ask.what)
        if name is None or name in names or (target.kind == "file" and any(n.startswith(name + "/") for n in names)):
            continue
        if target.kind == "r" and f"r:{name.lower()}" in provided:
            continue  # conda has it
        if target.kind == "python" and (base is None or name in base):
            continue  # the base has it, or that is not known here
        found.append(f"{ask.where}: `{name}` is asked for, and the lock has no pin of it")
    for pin in target.pins:
        if not agrees(pin, target.kind):
            found.append(
                f"`{pin.name}` {pin.version} in the lock is not what it says that it provides: {', '.join(pin.provides)}"
            )
        for need in pin.needs:
            ecosystem, _, name = need.partition(":")
            if need in provided or (ecosystem == "py" and (base is None or name in base)):
                continue
            found.append(f"`{pin.name}` needs `{name}` ({ecosystem}), and the lock has no pin of it")
    if target.kind == "image" and not target.pins and target.asks:
        found.append(f"{target.asks[0].where}: the lock has no pin of `{target.id}`")
    return found


def _built_elsewhere(target: Target, lock: Lock) -> list[str]:
    """Built R packages of another R (by its first two numbers) than the one that the lock has around their library."""
    around = [t for t in lock.targets if t.kind == "conda" and target.place.startswith(t.place + "/")]
    versions = {
        version
        for t in around
        for p in t.pins
        for name, _, version in (token.partition(" ") for token in p.provides)
        if name in ("r:base", "r:r")
    }
    return [
        f"`{p.name}` {p.version} is built for R {p.data.get('built')}, and the lock has R {version}"
        for p in target.pins
        if target.kind == "r" and p.data.get("form") == "binary"
        for version in sorted(versions)
        if str(p.data.get("built")).split(".")[:2] != version.split(".")[:2]
    ]


def _asked(kind: str, what: Json) -> str | None:
    """The name of the pin that must answer an ask; None where no pin of that name needs to be."""
    if isinstance(what, dict):
        if kind == "r":
            return str(what.get("name"))
        named = what.get("from") if kind == "file" else what.get("url") if kind == "archive" else None
        return None if named is None else str(named)
    match = _NAME.match(str(what))
    if match is None or kind not in _TOKEN:
        return None
    name = match.group()
    return re.sub(r"[-_.]+", "-", name).lower() if kind == "python" else name
