"""A change of a lock: what differs, which stages rebuild, which tag and key the image gets; as text and as JSON. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby

from cregraph.digest import Json
from cregraph.kinds import KINDS
from cregraph.lock.diff import LockDiff, PinChange, compare, differing
from cregraph.lock.lock_file import Lock
from cregraph.lock.pins import Pin
from cregraph.plan.planner import Plan
from cregraph.text import printable

__all__ = ["LockChange", "RecipeFile", "as_json", "as_text", "change_of", "recipe_changes"]

_LEFT = 9
_NAME = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeFile:
    """A file of the standard recipes that differs. `added` and `removed` count lines; both are 0 for a file that is not text."""

    path: str
    how: str
    added: int
    removed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LockChange:
    """The differences of two locks, and their plans, which are None if they are not known.

    `sets` are the sets of standard recipes that the locks pin. `recipes` are the files that differ; None if they are not known.
    """

    diff: LockDiff
    old: Plan | None
    new: Plan | None
    sets: tuple[str, str] = ("", "")
    recipes: tuple[RecipeFile, ...] | None = ()

    @property
    def same(self) -> bool:
        """Return whether both locks give the same image from the same recipes, as far as it is known."""
        same_key = self.old is None or self.new is None or self.old.key == self.new.key
        return self.diff.same and self.sets[0] == self.sets[1] and same_key

    @property
    def rebuilds(self) -> tuple[str, ...] | None:
        """Return the stages of the new lock that rebuild; None unless both plans are known."""
        if self.old is None or self.new is None:
            return None
        return tuple(name for name, key in self.new.stages.items() if self.old.stages.get(name) != key)


def change_of(
    old: Lock,
    new: Lock,
    *,
    old_plan: Plan | None = None,
    new_plan: Plan | None = None,
    recipes: tuple[RecipeFile, ...] | None = (),
) -> LockChange:
    """Return what `new` changes. `recipes` are the files of the standard recipes that differ (`recipe_changes`)."""
    sets = (old.recipes, new.recipes)
    return LockChange(diff=compare(old, new, KINDS), old=old_plan, new=new_plan, sets=sets, recipes=recipes)


def recipe_changes(old: Mapping[str, bytes] | None, new: Mapping[str, bytes] | None) -> tuple[RecipeFile, ...] | None:
    """Return the files that differ between two sets of standard recipes, sorted by path; None if a set is not known."""
    if old is None or new is None:
        return None
    found = []
    for path, before, after in differing(old, new):
        how = "added" if before is None else "removed" if after is None else "changed"
        signs = [line[0] for line in list(difflib.unified_diff(_lines(before), _lines(after), n=0))[2:]]
        found.append(RecipeFile(path=path, how=how, added=signs.count("+"), removed=signs.count("-")))
    return tuple(found)


def _lines(data: bytes | None) -> list[str]:
    try:
        return (data or b"").decode("utf-8").splitlines(keepends=True)
    except UnicodeDecodeError:
        return []


def as_json(change: LockChange) -> dict[str, Json]:
    """Return the change for a program. Unknown values are null."""
    return {
        "same": change.same,
        "packages": [
            {
                "ecosystem": KINDS[c.kind].ECOSYSTEM,
                "target": c.target,
                "name": c.name,
                "how": c.how,
                "build": c.build,
                "old": _pin_json(c.old),
                "new": _pin_json(c.new),
                "asked_by": list(c.asked_by),
            }
            for c in change.diff.pins
        ],
        "asks": [
            {
                "ecosystem": KINDS[a.kind].ECOSYSTEM,
                "stage": a.stage,
                "text": a.text,
                "where": a.where,
                "how": "added" if a.added else "removed",
            }
            for a in change.diff.asks
        ],
        "settings": [asdict(setting) for setting in change.diff.settings],
        "recipes": {
            "old": change.sets[0],
            "new": change.sets[1],
            "files": None if change.recipes is None else [asdict(file) for file in change.recipes],
        },
        "rebuilds": None if change.rebuilds is None else list(change.rebuilds),
        "stages": None if change.rebuilds is None or change.new is None else len(change.new.stages),
        "tag": {"old": change.old.tag if change.old else None, "new": change.new.tag if change.new else None},
        "key": {"old": change.old.key if change.old else None, "new": change.new.key if change.new else None},
    }


def _pin_json(pin: Pin | None) -> Json:
    return None if pin is None else {"version": pin.version, "sha256": pin.artifact.sha256}


def as_text(change: LockChange) -> str:
    """Return the change, one line for each thing, without a line break at the end; empty if nothing differs.

    A lock may come from anywhere, so everything that would move a terminal's cursor is written as an escape.
    """
    if change.same:
        return ""
    rows = _rows(change)
    lines = []
    for section, listed in groupby(rows, key=lambda row: row[0]):
        for number, (_, text) in enumerate(listed):
            lines.append(f"{'' if number else section:<{_LEFT}}{text}")
    if not lines:
        lines.append(f"{'lock':<{_LEFT}}the packages are the same; facts of the base or of the targets differ")
    if change.old and change.new and change.rebuilds is not None:
        names = ", ".join(change.rebuilds) or "nothing"
        lines.append(f"{'rebuilds':<{_LEFT}}{names} ({len(change.rebuilds)} of {len(change.new.stages)})")
        tag = change.new.tag
        moved = f"{tag} (unchanged)" if change.old.key == change.new.key else f"{change.old.tag} -> {tag}"
        lines.append(f"{'tag':<{_LEFT}}{moved}")
    return "\n".join(printable(line.rstrip()) for line in lines)


def _rows(change: LockChange) -> list[tuple[str, str]]:
    """A section and a text for each difference."""
    targets: dict[tuple[str, str], set[str]] = {}
    for c in change.diff.pins:
        targets.setdefault((c.kind, c.name), set()).add(c.target)
    rows = [(KINDS[c.kind].ECOSYSTEM, _pin(c, several=len(targets[c.kind, c.name]) > 1)) for c in change.diff.pins]
    rows += [("asks", f"{_pad(('+ ' if a.added else '- ') + a.text)} {a.where}") for a in change.diff.asks]
    rows += [(s.section, f"{_pad(s.name)} {_value(s.old)} -> {_value(s.new)}") for s in change.diff.settings]
    if change.sets[0] != change.sets[1]:
        rows.append(("recipes", f"{_pad('(the set)')} {change.sets[0][:16]} -> {change.sets[1][:16]}"))
    for file in change.recipes or ():
        rows.append(("recipes", f"{_pad(file.path)} {file.how}, +{file.added} -{file.removed} lines"))
    return rows


def _pin(c: PinChange, *, several: bool) -> str:
    end = f"  in {c.target.partition(':')[2]}" if several else ""
    end += "  (build)" if c.build else ""
    if c.old is None or c.new is None:
        sign, pin = ("+", c.new) if c.new else ("-", c.old)
        text = f"{sign} {c.name} {pin.version if pin else ''}".rstrip()
        return f"{_pad(text)} asked by {', '.join(c.asked_by)}{end}" if c.asked_by else text + end
    if c.how == "changed":
        return f"{_pad(c.name)} {c.old.version} -> {c.new.version}{end}"
    head = _pad(f"{c.name} {c.new.version}".rstrip())
    if c.how == "moved":
        return f"{head} the same bytes; their metadata in the lock differs{end}"
    old, new = (f"sha256:{pin.artifact.sha256[:4]}…" for pin in (c.old, c.new))
    return f"{head} {old} -> {new}{end}"


def _pad(text: str) -> str:
    return f"{text:<{_NAME}}"


def _value(text: str | None) -> str:
    return "(none)" if text is None else text or '""'
