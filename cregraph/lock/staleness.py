"""Staleness: the reasons why a lock does not answer profile and recipes. A fresh lock has no reason.

The check is offline. It hashes the files of the project and of recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

from cregraph.digest import Json, canonical, sha256
from cregraph.errors import CregraphError
from cregraph.lock.diff import differing
from cregraph.lock.lock_file import Identity, Lock, StageRecord
from cregraph.lock.pins import Ask, Target
from cregraph.lock.rules import Kinds, LockRules

__all__ = ["group", "reasons", "same_asks"]


def group(asks: Sequence[Ask], kinds: Kinds) -> tuple[Target, ...]:
    """Return asks by target. Raises CregraphError, naming both lines, if two asks of one target have different options."""
    targets: dict[str, list[Ask]] = {}
    for ask in asks:
        targets.setdefault(ask.target, []).append(ask)
    made = []
    for target_id, listed in targets.items():
        first = listed[0]
        for other in listed[1:]:
            for option, one, two in differing(first.options, other.options):
                raise CregraphError(
                    f"`{target_id}` has asks with two values of `{option}`:\n  {first.where}: {one!r}\n  {other.where}: {two!r}",
                    hint="use one value in all steps that fill this target",
                )
        scope = kinds[first.kind].scope(first.place)
        made.append(Target(kind=first.kind, place=first.place, scope=scope, options=first.options, asks=tuple(listed)))
    return tuple(made)


def reasons(
    lock: Lock,
    kinds: Kinds,
    *,
    identity: Identity,
    stages: Sequence[StageRecord],
    targets: Sequence[Target],
    read: Callable[[str], bytes],
    files: Callable[[str], Sequence[str]],
) -> list[str]:
    """Return the reasons why `lock` is stale, each as `file:line: problem`.

    `read` returns the bytes of a file of the project (`./x`) or a recipe (`standard:x`). `files` lists the files below a folder.
    """
    changed = differing(asdict(lock.identity), asdict(identity))
    found = [f"the image's {name}: `{old}` became `{new}`" for name, old, new in changed]
    found += _stages(lock, stages)
    locked, asked = {t.id: t for t in lock.targets}, {t.id: t for t in targets}
    for target in {**asked, **locked}.values():
        rules = kinds[target.kind]
        then, now = (side.get(target.id) or replace(target, asks=()) for side in (locked, asked))
        found += _asks(then, now, rules)
        if target.id in locked and target.id in asked:
            found += _files(locked[target.id], rules, read, files)
    return found


def same_asks(locked: Target, target: Target) -> bool:
    """Return whether `locked` and `target` have the same asks and options. Lines do not matter."""
    same_options = canonical(dict(locked.options)) == canonical(dict(target.options))
    return same_options and _bag(locked.asks).keys() == _bag(target.asks).keys()


def _stages(lock: Lock, stages: Sequence[StageRecord]) -> list[str]:
    found = []
    old, new = {s.name: s for s in lock.stages}, {s.name: s for s in stages}
    found += [f"stage `{name}` was added" for name in new if name not in old]
    found += [f"stage `{name}` is no longer used" for name in old if name not in new]
    found += [why for name in new.keys() & old.keys() for why in _stage(old[name], new[name])]
    if not found and [s.name for s in lock.stages] != [s.name for s in stages]:
        found.append("the order of the stages changed")
    return sorted(found)


def _stage(old: StageRecord, new: StageRecord) -> Iterator[str]:
    for variable, before, after in differing(old.env, new.env):
        yield f"stage `{new.name}`: env.{variable}: `{before}` became `{after}`"
    if old.needs != new.needs:
        yield f"stage `{new.name}`: needs: `{', '.join(old.needs)}` became `{', '.join(new.needs)}`"
    if canonical(list(old.checks)) != canonical(list(new.checks)):
        yield f"stage `{new.name}`: its checks changed"


def _asks(locked: Target, target: Target, rules: LockRules) -> list[str]:
    found = []
    for option, before, after in differing(locked.options, target.options):
        where = target.asks[0].where if target.asks else target.id
        found.append(f"{where}: {option}: `{_value(before)}` became `{_value(after)}`")
    then, now = _bag(locked.asks), _bag(target.asks)
    found += [f"{now[key].where}: `{rules.shown(now[key].what)}` was added" for key in now if key not in then]
    found += [f"{then[key].where}: `{rules.shown(then[key].what)}` was removed" for key in then if key not in now]
    return found


def _files(target: Target, rules: LockRules, read: Callable[[str], bytes], files: Callable[[str], Sequence[str]]) -> list[str]:
    found = []
    pinned = {p.artifact.source: p.artifact.sha256 for p in target.pins if p.artifact.kind == "path"}
    for source, digest in sorted(pinned.items()):
        try:
            if sha256(read(source)) != digest:
                found.append(f"`{source}` changed since it was locked")
        except CregraphError as error:
            found.append(error.message)
    for ask in target.asks:
        folder = rules.folder(ask)
        if folder:
            try:
                found += [f"{ask.where}: `{name}` is new in `{folder}`" for name in files(folder) if name not in pinned]
            except CregraphError as error:
                found.append(f"{ask.where}: {error.message}")
    return found


def _bag(asks: Sequence[Ask]) -> dict[tuple[str, bytes], Ask]:
    return {(ask.stage, canonical(ask.what)): ask for ask in asks}


def _value(option: Json) -> str:
    return option if isinstance(option, str) else canonical(option).decode()[:120]
