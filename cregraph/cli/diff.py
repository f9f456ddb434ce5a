"""`cregraph diff`."""

from __future__ import annotations

import json as texts
import os
from pathlib import Path

from cregraph.cli.say import result, talk
from cregraph.errors import CregraphError
from cregraph.lock.lock_file import Lock
from cregraph.plan.planner import Plan, make_plan
from cregraph.review.as_json import as_json
from cregraph.review.as_text import as_text
from cregraph.review.change import change_of
from cregraph.session.revision import END, Files, Revision, Side, facts_at, here, lock_at, lock_named, project_of
from cregraph.text import printable

__all__ = ["run"]


def run(old: str, new: str, *, profile: str | None, format: str) -> None:
    """Print what differs; leaves with SystemExit(1) when something does.

    OLD and NEW are lock files, profiles (for their locks) or git revisions. Of two revisions all locks in `locks/` are
    compared, or that of `profile`; of a file and a revision, the file with itself there.
    """
    if format not in ("text", "json"):
        raise CregraphError(f"`--format {format}` is none", hint="write text or json")
    places = [lock_named(old), lock_named(new)]
    folder = next((project_of(place) for place in places if place), Path(profile).parent if profile else here())
    sides: list[Side] = [
        Files(folder=project_of(place), file=place) if place else Revision.of(text, folder)
        for text, place in zip((old, new), places, strict=True)
    ]
    pairs = _pairs(sides, places, profile)
    answers = [_compared(first, second, sides) for first, second in pairs]
    differs = any(answer["status"] != "same" for answer, _ in answers)
    if format == "json":
        result(texts.dumps({"same": not differs, "locks": [answer for answer, _ in answers]}, indent=2, sort_keys=True))
    else:
        for answer, text in answers:
            if len(answers) > 1 and text:
                result(str(answer["lock"]))
            if text:
                result(text)
    if differs:
        raise SystemExit(1)
    talk("the same")


def _pairs(sides: list[Side], places: list[Path | None], profile: str | None) -> list[tuple[str, str]]:
    """The paths to compare, below the project's folder: on the old side and on the new."""
    first, second = sides
    if isinstance(first, Files) or isinstance(second, Files):
        if profile is not None:
            raise CregraphError("`--profile` is for two git revisions; a lock file says itself whose it is")
        named = [os.path.relpath(place, side.folder) if place else None for place, side in zip(places, sides, strict=True)]
        return [(str(named[0] or named[1]), str(named[1] or named[0]))]
    if profile is not None:
        path = f"locks/{Path(profile).name.removesuffix('.yaml').removesuffix('.yml')}{END}"
        return [(path, path)]
    found = sorted(first.locks() | second.locks())
    if not found:
        raise CregraphError(
            f"there is no lock in `locks/`, at {first.text} or {second.text}", hint="run it beside `locks/`, or name lock files"
        )
    return [(path, path) for path in found]


def _compared(old_path: str, new_path: str, sides: list[Side]) -> tuple[dict[str, object], str]:
    """The answer for a pair, as JSON and as text."""
    first, second = sides
    old, new = lock_at(first, old_path), lock_at(second, new_path)
    name = printable(new_path)
    if old is None and new is None:
        raise CregraphError(f"`{first.shown(old_path)}` and `{second.shown(new_path)}` are not there")
    if old is None or new is None:
        if first.__class__ is Files and second.__class__ is Files:
            raise CregraphError(
                f"`{(first if old is None else second).shown(old_path if old is None else new_path)}` is not there"
            )
        side, path, lock = (second, new_path, new) if new else (first, old_path, old)
        assert lock is not None
        plan = _plan(lock, side, path)
        status, sign = ("added", "+") if new else ("removed", "-")
        tag = plan.tag if plan else None
        pins = sum(len(t.pins) for t in lock.targets)
        text = f"{'lock':<9}{sign} {printable(path)}, {pins} pins" + (f", tag {tag}" if tag else "")
        return {"lock": name, "status": status, "pins": pins, "tag": tag}, text
    old_plan, new_plan = _plan(old, first, old_path), _plan(new, second, new_path)
    change = change_of(old, new, old_plan=old_plan, new_plan=new_plan)
    return {"lock": name, "status": "same" if change.same else "changed", **as_json(change)}, as_text(change)


def _plan(lock: Lock, side: Side, path: str) -> Plan | None:
    """The plan, for stages and tag; None, having said why, where it cannot be made."""
    try:
        where, facts = facts_at(side, lock)
        if facts is None:
            talk(f"{printable(side.shown(path))}: `{where}` is not there, so stages and tag are left out")
            return None
        return make_plan(lock, facts)
    except CregraphError as error:
        talk(f"{printable(side.shown(path))}: stages and tag are left out: {printable(error.message)}")
        return None
