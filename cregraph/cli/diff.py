"""`cregraph diff`."""

from __future__ import annotations

import json as texts
import os
from pathlib import Path
from typing import Annotated

import typer

from cregraph.cli.terminal_output import result, talk
from cregraph.errors import CregraphError
from cregraph.lock.lock_file import Lock
from cregraph.plan.planner import Plan, make_plan
from cregraph.review.change import as_json, as_text, change_of
from cregraph.session.revision import END, Files, Revision, Side, facts_at, here, lock_at, lock_named, project_of
from cregraph.text import printable

__all__ = ["diff"]


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A lock file or a git revision.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="A lock file or a git revision.")],
    profile: Annotated[
        str | None, typer.Option("--profile", help="Whose lock, between git revisions; all locks when not said.")
    ] = None,
    format: Annotated[str, typer.Option("--format", metavar="text|json", help="How the answer is written.")] = "text",
) -> None:
    """Print what changes between two locks: packages, stages that rebuild, the tag. Exit with 1 if they differ."""
    if format not in ("text", "json"):
        raise CregraphError(f"`--format {format}` is none", hint="write text or json")
    places = [lock_named(old), lock_named(new)]
    sides = _sides((old, new), places, profile)
    answers = [_compared(first, second, sides) for first, second in _pairs(sides, places, profile)]
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


def _sides(named: tuple[str, str], places: list[Path | None], profile: str | None) -> list[Side]:
    """Return what OLD and NEW are: a project on disk for a lock file or a profile, else a git revision."""
    folder = next((project_of(place) for place in places if place), Path(profile).parent if profile else here())
    return [
        Files(folder=project_of(place), file=place) if place else Revision.of(text, folder)
        for text, place in zip(named, places, strict=True)
    ]


def _pairs(sides: list[Side], places: list[Path | None], profile: str | None) -> list[tuple[str, str]]:
    """Return the paths to compare, relative to the project's folder: on the old and on the new side."""
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
    """Return the answer for a pair of locks, as JSON and as text."""
    first, second = sides
    old, new = lock_at(first, old_path), lock_at(second, new_path)
    if old is None and new is None:
        raise CregraphError(f"`{first.shown(old_path)}` and `{second.shown(new_path)}` are not there")
    if old is None:
        assert new is not None
        _refuse_missing_file(first, old_path, second)
        return _alone(new, second, new_path, new_path, added=True)
    if new is None:
        _refuse_missing_file(second, new_path, first)
        return _alone(old, first, old_path, new_path, added=False)
    change = change_of(old, new, old_plan=_plan(old, first, old_path), new_plan=_plan(new, second, new_path))
    status = "same" if change.same else "changed"
    return {"lock": printable(new_path), "status": status, **as_json(change)}, as_text(change)


def _refuse_missing_file(side: Side, path: str, other: Side) -> None:
    """Raise CregraphError if both sides are files: only a revision can lack a lock."""
    if isinstance(side, Files) and isinstance(other, Files):
        raise CregraphError(f"`{side.shown(path)}` is not there")


def _alone(lock: Lock, side: Side, path: str, name: str, *, added: bool) -> tuple[dict[str, object], str]:
    """Return the answer for a lock that only one side has."""
    plan = _plan(lock, side, path)
    tag = plan.tag if plan else None
    pins = sum(len(target.pins) for target in lock.targets)
    text = f"{'lock':<9}{'+' if added else '-'} {printable(path)}, {pins} pins" + (f", tag {tag}" if tag else "")
    return {"lock": printable(name), "status": "added" if added else "removed", "pins": pins, "tag": tag}, text


def _plan(lock: Lock, side: Side, path: str) -> Plan | None:
    """Return the plan, for stages and tag; None after a line that says why, if it cannot be made."""
    try:
        where, facts = facts_at(side, lock)
        if facts is None:
            talk(f"{printable(side.shown(path))}: `{where}` is not there, so stages and tag are left out")
            return None
        return make_plan(lock, facts)
    except CregraphError as error:
        talk(f"{printable(side.shown(path))}: stages and tag are left out: {printable(error.message)}")
        return None
