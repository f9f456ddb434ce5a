"""What changes between two locks: packages by ecosystem, asks, variables, stages that rebuild, the tag. Pure.

Versions are compared as texts, never by order: `1.1.4 -> 1.1.5` says what it was and what it is. The lines that asks stand on
explain and decide nothing, so a lock that differs in them alone is the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from cregraph.digest import Json
from cregraph.lock.lock_file import Lock, StageRecord
from cregraph.lock.pins import Ask, Pin, Target
from cregraph.plan.planner import Plan
from cregraph.text import printable

__all__ = [
    "AskChange",
    "Change",
    "LockDiff",
    "Setting",
    "as_json",
    "as_text",
    "compare",
    "ecosystem",
    "in_sandbox",
    "said",
    "shown_name",
    "split_ask",
]

_KINDS = ("base", "conda", "r", "python", "archive", "file")
_LEFT = 9
_NAME = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A pin that differs.

    `how`: `added`, `removed`, `changed` (another version), `rebuilt` (the version stays, the bytes differ), `moved` (the bytes
    stay, and what the lock says of them differs: source, needs, build). `build` marks what only the sandbox sees. `asked_by`
    are the lines whose ask, new in this lock, names the pin.
    """

    ecosystem: str
    target: str
    name: str
    how: str
    old: str | None = None
    new: str | None = None
    old_sha256: str | None = None
    new_sha256: str | None = None
    build: bool = False
    asked_by: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class AskChange:
    """Something asked that was not asked before (`added`), or is asked no longer."""

    ecosystem: str
    stage: str
    text: str
    where: str
    added: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A value that differs: of the image (`label`), a target (`channels`), a stage (`needs`), or a variable of the image."""

    section: str
    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LockDiff:
    """All that differs. `rebuilds`, `stages` (how many the new lock has), tags and keys are None where no plan was given."""

    same: bool
    changes: tuple[Change, ...] = ()
    asks: tuple[AskChange, ...] = ()
    settings: tuple[Setting, ...] = ()
    rebuilds: tuple[str, ...] | None = None
    stages: int | None = None
    old_tag: str | None = None
    new_tag: str | None = None
    old_key: str | None = None
    new_key: str | None = None


def compare(old: Lock, new: Lock, *, old_plan: Plan | None = None, new_plan: Plan | None = None) -> LockDiff:
    """What `new` has that `old` has not, and the other way round. Stages that rebuild need both plans."""
    before, after = {t.id: t for t in old.targets}, {t.id: t for t in new.targets}
    changes: list[Change] = []
    asks: list[AskChange] = []
    settings = _identity(old, new)
    for target_id in sorted({*before, *after}):
        first, second = before.get(target_id), after.get(target_id)
        asks += _asks(first, second)
        changes += _pins(first, second)
        if first is not None and second is not None:
            options = sorted({*first.options, *second.options})
            settings += _settings(ecosystem(second), options, first.options, second.options)
    settings += _stages(old.stages, new.stages) + _env(old.stages, new.stages)
    rebuilds = None
    if old_plan is not None and new_plan is not None:
        rebuilds = tuple(name for name, key in new_plan.stages.items() if old_plan.stages.get(name) != key)
    return LockDiff(
        same=_compared(old) == _compared(new) and (old_plan is None or new_plan is None or old_plan.key == new_plan.key),
        changes=tuple(sorted(changes, key=_rank)),
        asks=tuple(sorted(asks, key=lambda a: (_KINDS.index(a.ecosystem), not a.added, a.text, a.stage))),
        settings=tuple(settings),
        rebuilds=rebuilds,
        stages=None if rebuilds is None else len(new.stages),
        old_tag=old_plan.tag if old_plan else None,
        new_tag=new_plan.tag if new_plan else None,
        old_key=old_plan.key if old_plan else None,
        new_key=new_plan.key if new_plan else None,
    )


def as_json(diff: LockDiff) -> dict[str, Json]:
    """The whole of it for a program; what is not known is null."""
    return {
        "same": diff.same,
        "packages": [
            {
                "ecosystem": c.ecosystem,
                "target": c.target,
                "name": c.name,
                "how": c.how,
                "build": c.build,
                "old": None if c.old is None else {"version": c.old, "sha256": c.old_sha256},
                "new": None if c.new is None else {"version": c.new, "sha256": c.new_sha256},
                "asked_by": list(c.asked_by),
            }
            for c in diff.changes
        ],
        "asks": [
            {
                "ecosystem": a.ecosystem,
                "stage": a.stage,
                "text": a.text,
                "where": a.where,
                "how": "added" if a.added else "removed",
            }
            for a in diff.asks
        ],
        "settings": [{"section": s.section, "name": s.name, "old": s.old, "new": s.new} for s in diff.settings],
        "rebuilds": None if diff.rebuilds is None else list(diff.rebuilds),
        "stages": diff.stages,
        "tag": {"old": diff.old_tag, "new": diff.new_tag},
        "key": {"old": diff.old_key, "new": diff.new_key},
    }


def as_text(diff: LockDiff) -> str:
    """The same for people, a line each without a line break at the end; empty for locks that are the same.

    Locks come from anywhere: whatever would move a terminal's cursor is written as an escape.
    """
    if diff.same:
        return ""
    twice = _in_several_places(diff.changes)
    rows = [(c.ecosystem, _change_row(c, (c.ecosystem, c.name) in twice)) for c in diff.changes]
    rows += [("asks", f"{_pad(('+ ' if a.added else '- ') + a.text)} {a.where}") for a in diff.asks]
    rows += [(s.section, f"{_pad(s.name)} {_value(s.old)} -> {_value(s.new)}") for s in diff.settings]
    lines = []
    for section, listed in groupby(rows, key=lambda row: row[0]):
        for number, (_, text) in enumerate(listed):
            lines.append(f"{'' if number else section:<{_LEFT}}{text}")
    if not lines:
        lines.append(f"{'lock':<{_LEFT}}the packages are the same; what is known of the base, or of the targets, differs")
    if diff.rebuilds is not None:
        lines.append(f"{'rebuilds':<{_LEFT}}{', '.join(diff.rebuilds) or 'nothing'} ({len(diff.rebuilds)} of {diff.stages})")
    if diff.old_tag and diff.new_tag:
        moved = f"{diff.old_tag} -> {diff.new_tag}" if diff.old_key != diff.new_key else f"{diff.new_tag} (unchanged)"
        lines.append(f"{'tag':<{_LEFT}}{moved}")
    return "\n".join(printable(line.rstrip()) for line in lines)


def _change_row(c: Change, several: bool) -> str:
    end = f"  in {c.target.partition(':')[2]}" if several else ""
    end += "  (build)" if c.build else ""
    if c.how in ("added", "removed"):
        sign, version = ("+", c.new) if c.how == "added" else ("-", c.old)
        why = f" asked by {', '.join(c.asked_by)}" if c.asked_by else ""
        return f"{_pad(f'{sign} {c.name} {version}'.rstrip()) if why else f'{sign} {c.name} {version}'.rstrip()}{why}{end}"
    if c.how == "changed":
        return f"{_pad(c.name)} {c.old} -> {c.new}{end}"
    head = _pad(f"{c.name} {c.new}".rstrip())
    if c.how == "moved":
        return f"{head} the same bytes; what the lock says of them differs{end}"
    return f"{head} {_short(c.old_sha256)} -> {_short(c.new_sha256)}{end}"


def _pad(text: str) -> str:
    return f"{text:<{_NAME}}"


def _short(sha256: str | None) -> str:
    return f"sha256:{(sha256 or '')[:4]}…"


def _value(text: str | None) -> str:
    return "(none)" if text is None else text or '""'


def _in_several_places(changes: Iterable[Change]) -> set[tuple[str, str]]:
    places: dict[tuple[str, str], set[str]] = {}
    for c in changes:
        places.setdefault((c.ecosystem, c.name), set()).add(c.target)
    return {key for key, found in places.items() if len(found) > 1}


def _rank(c: Change) -> tuple[Json, ...]:
    # What both have, what is new, what is gone; what only the sandbox sees comes last.
    return (
        _KINDS.index(c.ecosystem),
        c.build,
        ("added", "removed").index(c.how) + 1 if c.how in ("added", "removed") else 0,
        c.name,
        c.target,
    )


def ecosystem(target: Target) -> str:
    """What people call the kind of a target."""
    return "base" if target.kind == "image" else target.kind if target.kind in _KINDS else "file"


def _pins(old: Target | None, new: Target | None) -> list[Change]:
    target = new or old
    assert target is not None
    before = {p.name: p for p in old.pins} if old else {}
    after = {p.name: p for p in new.pins} if new else {}
    there = {(a.stage, _json(a.what)) for a in old.asks} if old else set()
    fresh = {(a.stage, said(a.what)): a.where for a in (new.asks if new else ()) if (a.stage, _json(a.what)) not in there}
    found = []
    for name in sorted({*before, *after}):
        first, second = before.get(name), after.get(name)
        how = _how(first, second)
        pin = second or first
        if how is None or pin is None:
            continue
        asked = {fresh[key] for text in (second.asked if second else ()) if (key := split_ask(text)) in fresh}
        found.append(
            Change(
                ecosystem=ecosystem(target),
                target=target.id,
                name=shown_name(pin, target),
                how=how,
                old=first.version if first else None,
                new=second.version if second else None,
                old_sha256=first.artifact.sha256 if first else None,
                new_sha256=second.artifact.sha256 if second else None,
                build=in_sandbox(pin, target),
                asked_by=tuple(sorted(asked)),
            )
        )
    return found


def in_sandbox(pin: Pin, target: Target) -> bool:
    """Return whether only tasks see the pin, so that it is not part of the image."""
    return target.scope == "sandbox" or pin.data.get("role") == "build"


def _how(old: Pin | None, new: Pin | None) -> str | None:
    if old is None:
        return "added"
    if new is None:
        return "removed"
    if old.version != new.version:
        return "changed"
    if old.artifact.sha256 != new.artifact.sha256:
        return "rebuilt"
    return "moved" if _pin(old) != _pin(new) else None


def _pin(pin: Pin) -> Json:
    a = pin.artifact
    return [
        pin.name,
        pin.version,
        a.kind,
        a.source,
        a.file,
        a.sha256,
        a.size,
        *map(list, (pin.needs, pin.provides)),
        dict(pin.data),
    ]


def shown_name(pin: Pin, target: Target) -> str:
    """A pin's name for people: an image goes by its repository's last part."""
    if target.kind != "image":
        return pin.name
    place = pin.artifact.file or pin.artifact.source
    return place.rpartition("/")[2].partition(":")[0].partition("@")[0] or pin.name


def split_ask(text: str) -> tuple[str, str]:
    """Stage and ask of an entry of `Pin.asked`; the ask is as `said` writes it."""
    stage, _, what = text.partition(": ")
    return stage, what


def _asks(old: Target | None, new: Target | None) -> list[AskChange]:
    target = new or old
    assert target is not None
    before, after = ({(a.stage, _json(a.what)): a for a in t.asks} if t else {} for t in (old, new))

    def change(ask: Ask, added: bool) -> AskChange:
        text = _text(ask.what)
        return AskChange(ecosystem=ecosystem(target), stage=ask.stage, text=text, where=ask.where, added=added)

    return [change(a, True) for key, a in after.items() if key not in before] + [
        change(a, False) for key, a in before.items() if key not in after
    ]


def said(what: Json) -> str:
    """What an ask asks, as pins repeat it in `asked`."""
    if isinstance(what, str):
        return what
    if isinstance(what, Mapping):
        if "tarball" in what:
            return f"{what.get('name')} @ {what['tarball']}"
        cuda = f" cuda={what['cuda']}" if what.get("cuda") else ""
        for key in ("url", "from", "reference"):
            if isinstance(what.get(key), str):
                return f"{what[key]}{cuda}"
        if isinstance(what.get("repositories"), list):
            places = ",".join(map(str, what["repositories"]))
            return f"{what.get('registry')}:{what.get('folder')}/{{{places}}}:{what.get('tag')}{cuda}"
    return ""


def _text(what: Json) -> str:
    """What an ask asks, for people."""
    text = said(what)
    if isinstance(what, Mapping) and isinstance(what.get("at"), list):
        if not text:
            form = "link" if "link" in what else "text"
            text = f"{form} {_json(what.get(form))[:60]}"
        text += f" at {', '.join(map(str, what['at']))}"
        text += "".join(f", {field} {what[field]}" for field in ("mode", "owner") if field in what)
    return text or _json(what)[:120]


def _identity(old: Lock, new: Lock) -> list[Setting]:
    names = ("name", "image", "label", "tag", "base_type")
    before = {name: getattr(old.identity, name) for name in names}
    after = {name: getattr(new.identity, name) for name in names}
    return _settings("image", names, before, after)


def _settings(section: str, names: Sequence[str], old: Mapping[str, Json], new: Mapping[str, Json]) -> list[Setting]:
    return [
        Setting(section=section, name=name, old=_option(old.get(name)), new=_option(new.get(name)))
        for name in names
        if old.get(name) != new.get(name)
    ]


def _option(value: Json) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return _json(value)


def _stages(old: Sequence[StageRecord], new: Sequence[StageRecord]) -> list[Setting]:
    before, after = {s.name: s for s in old}, {s.name: s for s in new}
    found = []
    for name in [s.name for s in new] + [s.name for s in old if s.name not in after]:
        first, second = before.get(name), after.get(name)
        if first is None or second is None:
            there = ("used" if s else None for s in (first, second))
            found.append(Setting(section="stages", name=name, old=next(there), new=next(there)))
            continue
        found += _settings("stages", [f"{name}: needs"], *({f"{name}: needs": list(s.needs)} for s in (first, second)))
        if _json(list(first.checks)) != _json(list(second.checks)):
            counts = (f"{len(s.checks)} ({_json(list(s.checks))[:60]})" for s in (first, second))
            found.append(Setting(section="stages", name=f"{name}: checks", old=next(counts), new=next(counts)))
    if not found and list(before) != list(after):
        found.append(Setting(section="stages", name="order", old=", ".join(before), new=", ".join(after)))
    return found


def _env(old: Sequence[StageRecord], new: Sequence[StageRecord]) -> list[Setting]:
    before, after = ({k: v for s in stages for k, v in s.env.items()} for stages in (old, new))
    return _settings("env", sorted({*before, *after}), before, after)


def _compared(lock: Lock) -> str:
    """Everything of a lock that is not explanation: the lines of asks are."""
    return _json(
        {
            "assembly": lock.assembly,
            "platform": lock.platform,
            "image": [getattr(lock.identity, name) for name in ("name", "image", "label", "tag", "base_type")],
            "stages": [[s.name, list(s.needs), dict(s.env), list(s.checks)] for s in lock.stages],
            "targets": {
                t.id: [
                    dict(t.options),
                    sorted(_json([a.stage, a.what]) for a in t.asks),
                    sorted(_json(_pin(p)) for p in t.pins),
                ]
                for t in lock.targets
            },
        }
    )


def _json(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
