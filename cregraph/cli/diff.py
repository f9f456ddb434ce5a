"""`cregraph diff`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cregraph.cli.options import AsJson
from cregraph.cli.terminal_output import as_json, result, talk
from cregraph.errors import CregraphError
from cregraph.lock.lock_file import Lock
from cregraph.plan.planner import Plan, make_plan
from cregraph.review import change as review
from cregraph.session import revision
from cregraph.session.revision import END, Files, Revision, Side
from cregraph.text import printable

__all__ = ["diff"]

_FORMATS = ("text", "json")


def diff(
    old: Annotated[
        str | None, typer.Argument(metavar="OLD", help="Lock file, profile, git revision, A..B or A...B. [default: HEAD]")
    ] = None,
    new: Annotated[
        str | None, typer.Argument(metavar="NEW", help="Lock, profile or revision. [default: the working tree]")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", metavar="PROFILE", help="Compare only the lock of this profile.")
    ] = None,
    format: Annotated[str, typer.Option("--format", metavar="FORMAT", help="Print text or json. [default: text]")] = "text",
    json: AsJson = False,
) -> None:
    """Show what changes between two locks."""
    if format not in _FORMATS:
        raise CregraphError(f"unknown format `{format}` (expected {' or '.join(_FORMATS)})", hint="write `--format json`")
    names = _ends(old, new)
    places = [revision.lock_named(name or "") for name in names]
    sides = _sides(names, places, profile, merged=new is None and "..." in (old or ""))
    answers = [_compared(first, second, sides) for first, second in _pairs(sides, places, profile)]
    differs = any(answer["status"] != "same" for answer, _ in answers)
    if json or format == "json":
        as_json({"same": not differs, "locks": [answer for answer, _ in answers]})
    else:
        for answer, text in answers:
            if text:
                result(f"{answer['lock']}\n" * (len(answers) > 1) + text)
    if differs:
        raise SystemExit(1)
    talk("the same")


def _ends(old: str | None, new: str | None) -> tuple[str, str | None]:
    """Return the names of the old and the new side. None is the working tree."""
    if old is None or new is not None:
        return old or "HEAD", new
    if revision.lock_named(old):
        return "HEAD", old
    return revision.range_named(old) or (old, None)


def _sides(names: tuple[str, str | None], places: list[Path | None], profile: str | None, *, merged: bool) -> list[Side]:
    """Return what the names are: a project on disk for a lock file, a profile or the working tree, else a git revision."""
    folder = next((revision.project_of(place) for place in places if place), Path(profile).parent if profile else revision.here())
    sides: list[Side] = [
        Files(folder=revision.project_of(place) if place else folder) if place or name is None else Revision.of(name, folder)
        for name, place in zip(names, places, strict=True)
    ]
    first, second = sides
    if merged and isinstance(first, Revision) and isinstance(second, Revision):
        return [revision.common_ancestor(first, second), second]
    return sides


def _pairs(sides: list[Side], places: list[Path | None], profile: str | None) -> list[tuple[str, str]]:
    """Return the paths to compare, relative to the project's folder: on the old and on the new side."""
    first, second = sides
    if any(places):
        if profile is not None:
            raise CregraphError("`--profile` does not work with a lock file", hint="remove `--profile`, or name git revisions")
        named = [os.path.relpath(place, side.folder) if place else None for place, side in zip(places, sides, strict=True)]
        return [(str(named[0] or named[1]), str(named[1] or named[0]))]
    if profile is not None:
        path = f"locks/{Path(profile).name.removesuffix('.yaml').removesuffix('.yml')}{END}"
        return [(path, path)]
    found = sorted(first.locks() | second.locks())
    if not found:
        raise CregraphError(
            f"`locks/` has no lock at {first.text} or {second.text}",
            hint="run the command in the folder that contains `locks/`, or name two lock files",
        )
    return [(path, path) for path in found]


def _compared(old_path: str, new_path: str, sides: list[Side]) -> tuple[dict[str, object], str]:
    """Return the answer for a pair of locks, as JSON and as text."""
    first, second = sides
    old, new = revision.lock_at(first, old_path), revision.lock_at(second, new_path)
    if old is None and new is None:
        raise CregraphError(f"`{first.shown(old_path)}` and `{second.shown(new_path)}` do not exist")
    if old is None or new is None:
        lock, side = (old, first) if new is None else (new, second)
        assert lock is not None
        return _alone(lock, side, old_path if new is None else new_path, new_path, added=old is None)
    known = [revision.recipes_at(side, lock) for side, lock in ((first, old), (second, new)) if old.recipes != new.recipes]
    change = review.change_of(
        old,
        new,
        old_plan=_plan(old, first, old_path),
        new_plan=_plan(new, second, new_path),
        recipes=review.recipe_changes(*known) if known else (),
    )
    status = "same" if change.same else "changed"
    return {"lock": printable(new_path), "status": status, **review.as_json(change)}, review.as_text(change)


def _alone(lock: Lock, side: Side, path: str, name: str, *, added: bool) -> tuple[dict[str, object], str]:
    """Return the answer for a lock that only one side has."""
    plan = _plan(lock, side, path)
    tag = plan.tag if plan else None
    pins = sum(len(target.pins) for target in lock.targets)
    text = f"{'lock':<9}{'+' if added else '-'} {printable(path)}, {pins} pins" + (f", tag {tag}" if tag else "")
    return {"lock": printable(name), "status": "added" if added else "removed", "pins": pins, "tag": tag}, text


def _plan(lock: Lock, side: Side, path: str) -> Plan | None:
    """Return the plan, for stages and tag. If there is no plan, print the reason and return None."""
    try:
        where, facts = revision.facts_at(side, lock)
        if facts is None:
            talk(f"{printable(side.shown(path))}: `{where}` does not exist, so stages and tag are unknown")
            return None
        return make_plan(lock, facts)
    except CregraphError as error:
        talk(f"{printable(side.shown(path))}: stages and tag are unknown: {printable(error.message)}")
        return None
