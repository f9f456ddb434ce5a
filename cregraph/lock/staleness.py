"""Whether a lock holds what profile and recipes ask now: always a list of reasons; empty means fresh.

Nothing is asked of the network. The project's own files (and those that recipes ship) are hashed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cregraph.digest import Json, canonical, sha256
from cregraph.errors import CregraphError
from cregraph.lock.lock_file import Identity, Lock, StageRecord
from cregraph.lock.pins import Ask, Target
from cregraph.lock.rules import Kinds

__all__ = ["group", "reasons", "same_asks"]


def group(asks: Sequence[Ask], kinds: Kinds) -> tuple[Target, ...]:
    """Return asks by target. Raises CregraphError when two asks of one target want different options, naming both lines."""
    targets: dict[str, list[Ask]] = {}
    for ask in asks:
        targets.setdefault(ask.target, []).append(ask)
    made = []
    for target_id, listed in targets.items():
        first = listed[0]
        for other in listed[1:]:
            if canonical(dict(other.options)) != canonical(dict(first.options)):
                option = next(k for k in {**first.options, **other.options} if first.options.get(k) != other.options.get(k))
                raise CregraphError(
                    f"`{target_id}` is asked for with two values of `{option}`:\n"
                    f"  {first.where}: {first.options.get(option)!r}\n  {other.where}: {other.options.get(option)!r}",
                    hint="all steps that fill one target are resolved together, so they must agree",
                )
        scope = kinds(first.kind).scope(first.place)
        made.append(Target(kind=first.kind, place=first.place, scope=scope, options=first.options, asks=tuple(listed)))
    return tuple(made)


def reasons(
    lock: Lock,
    *,
    identity: Identity,
    stages: Sequence[StageRecord],
    targets: Sequence[Target],
    read: Callable[[str], bytes],
    files: Callable[[str], Sequence[str]],
) -> list[str]:
    """Why `lock` is stale, each as `file:line: what`.

    `read` gives the bytes of a source of the project (`./x`, `standard:x`), `files` the files below one.
    """
    found: list[str] = []
    for name in ("name", "image", "label", "tag", "base_type"):
        old, new = getattr(lock.identity, name), getattr(identity, name)
        if old != new:
            found.append(f"the image's {name}: `{old}` became `{new}`")
    found += _stages(lock, stages)
    old_targets = {t.id: t for t in lock.targets}
    new_targets = {t.id: t for t in targets}
    for target in targets:
        locked = old_targets.get(target.id)
        if locked is None:
            found += [f"{ask.where}: `{_text(ask.what)}` was added" for ask in target.asks]
            continue
        found += _asks(locked, target)
    for target in lock.targets:
        if target.id not in new_targets:
            found += [f"{ask.where}: `{_text(ask.what)}` is asked for no longer" for ask in target.asks]
        else:
            found += _files(target, read, files)
    return found


def same_asks(locked: Target, target: Target) -> bool:
    """Whether everything asked of `target` is what was asked of `locked`, whichever lines say so."""
    same_options = canonical(dict(locked.options)) == canonical(dict(target.options))
    return same_options and _bag(locked.asks).keys() == _bag(target.asks).keys()


def _stages(lock: Lock, stages: Sequence[StageRecord]) -> list[str]:
    found = []
    old, new = {s.name: s for s in lock.stages}, {s.name: s for s in stages}
    found += [f"stage `{name}` was added" for name in new if name not in old]
    found += [f"stage `{name}` is used no longer" for name in old if name not in new]
    for name in new.keys() & old.keys():
        before, after = old[name].env, new[name].env
        for variable in sorted({*before, *after}):
            if before.get(variable) != after.get(variable):
                found.append(f"stage `{name}`: env.{variable}: `{before.get(variable)}` became `{after.get(variable)}`")
        if old[name].needs != new[name].needs:
            found.append(f"stage `{name}`: needs: {list(old[name].needs)} became {list(new[name].needs)}")
        if canonical(list(old[name].checks)) != canonical(list(new[name].checks)):
            found.append(f"stage `{name}`: its checks changed")
    if not found and [s.name for s in lock.stages] != [s.name for s in stages]:
        found.append("the stages stand in another order")
    return sorted(found)


def _asks(locked: Target, target: Target) -> list[str]:
    found = []
    for option in sorted({*locked.options, *target.options}):
        before, after = locked.options.get(option), target.options.get(option)
        if before != after:
            where = target.asks[0].where if target.asks else target.id
            found.append(f"{where}: {option}: `{_text(before)}` became `{_text(after)}`")
    then, now = _bag(locked.asks), _bag(target.asks)
    found += [f"{now[key].where}: `{_text(now[key].what)}` was added" for key in now if key not in then]
    found += [f"{then[key].where}: `{_text(then[key].what)}` is asked for no longer" for key in then if key not in now]
    return found


def _files(target: Target, read: Callable[[str], bytes], files: Callable[[str], Sequence[str]]) -> list[str]:
    found = []
    pinned = {p.artifact.source: p.artifact.sha256 for p in target.pins if p.artifact.kind == "path"}
    for source, digest in sorted(pinned.items()):
        try:
            if sha256(read(source)) != digest:
                found.append(f"`{source}` changed since it was locked")
        except CregraphError as error:
            found.append(error.message)
    for ask in target.asks:
        folder = ask.what.get("from") if isinstance(ask.what, dict) else None
        if folder and target.kind == "file":
            try:
                found += [f"{ask.where}: `{name}` is new in `{folder}`" for name in files(folder) if name not in pinned]
            except CregraphError as error:
                found.append(f"{ask.where}: {error.message}")
    return found


def _bag(asks: Sequence[Ask]) -> dict[tuple[str, bytes], Ask]:
    return {(ask.stage, canonical(ask.what)): ask for ask in asks}


def _text(what: Json) -> str:
    if isinstance(what, str):
        return what
    if isinstance(what, dict):
        for key in ("from", "url", "tarball", "link", "reference", "tag"):
            if what.get(key):
                at = what.get("at")
                return f"{what.get('name', '')} {what[key]}".strip() + (f" at {at[0]}" if isinstance(at, list) and at else "")
        if isinstance(what.get("at"), list):
            return f"text at {what['at'][0]}"
    return canonical(what).decode()[:120]
