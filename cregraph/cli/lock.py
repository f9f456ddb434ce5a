"""`cregraph lock`."""

from __future__ import annotations

import contextlib
import datetime
import re
from typing import Annotated

import typer

from cregraph.cli.notes import tell
from cregraph.cli.options import All, AsJson, Profiles, Sources, sessions
from cregraph.cli.store_use import unsettled
from cregraph.cli.terminal_output import as_json, result, talk, working
from cregraph.errors import CregraphError, Refused
from cregraph.lock.lock_file import Lock
from cregraph.session import recipe_sets
from cregraph.session.session import BuildOptions, Session
from cregraph.store.known import remember

_CHECK = "Compare the lock with the profile and check that it is consistent. Write nothing; open no connection."
_RECIPES = "Replace the recipes that the lock pins by those of this cregraph version."
_AS_OF = "Ignore what was published after DATE (UTC), such as 2026-05-29. Existing pins move only with --upgrade."


def lock(
    profiles: Profiles = None,
    every: All = False,
    check: Annotated[bool, typer.Option("--check", help=_CHECK)] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Allow every pin to move.")] = False,
    upgrade_package: Annotated[
        list[str] | None, typer.Option("--upgrade-package", metavar="NAME", help="Allow this package to move. Repeatable.")
    ] = None,
    upgrade_recipes: Annotated[bool, typer.Option("--upgrade-recipes", help=_RECIPES)] = False,
    as_of: Annotated[str | None, typer.Option("--as-of", metavar="DATE", help=_AS_OF)] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only what the store holds. Open no connection.")] = False,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Write the lock of each profile."""
    moves = {"--upgrade": upgrade, "--upgrade-package": upgrade_package, "--upgrade-recipes": upgrade_recipes, "--as-of": as_of}
    if check and any(moves.values()):
        moving = next(name for name, value in moves.items() if value)
        raise CregraphError(f"`--check` does not work with `{moving}`", hint="remove one of the two options")
    if as_of is not None:
        _day(as_of)
    chosen = sessions(profiles, BuildOptions(sources=sources, offline=offline), every=every)
    if check:
        _check(chosen, json=json)
        return
    answers = []
    for session in chosen:
        session.upgrade_recipes = upgrade_recipes
        changed = _lock(session, all_pins=upgrade, packages=upgrade_package or [], as_of=as_of)
        shown = session.project.shown_lock
        answers.append({"lock": shown, "changed": changed})
        if not json:
            result(shown)
    if json:
        as_json({"locks": answers})


def _check(chosen: list[Session], *, json: bool) -> None:
    """Report for each lock whether it is fresh. Raise Refused, or exit with 1 with `json`, when one is not."""
    answers = []
    stale = []
    for session in chosen:
        old, why = _stale_reasons(session)
        shown = session.project.shown_lock
        answers.append({"lock": shown, "fresh": not why, "reasons": why})
        if why:
            answer = f"does not answer {session.project.profile}\n  " + "\n  ".join(why) if old else "does not exist"
            stale.append(f"{shown}: the lock {answer}")
        elif not json:
            result(f"{shown} is fresh")
        if old and old.recipes != recipe_sets.installed().sha256:
            talk(
                f"{shown}: the standard recipes of this cregraph differ from those that the lock pins. To take them, run "
                f"`cregraph lock {session.project.profile.as_posix()} --upgrade-recipes`"
            )
    if json:
        as_json({"locks": answers})
        if stale:
            raise SystemExit(1)
    elif stale:
        named = zip(chosen, answers, strict=True)
        names = " ".join(session.project.profile.as_posix() for session, answer in named if not answer["fresh"])
        raise Refused("\n".join(stale), hint=f"run `cregraph lock {names}`, then review the change with `cregraph diff`")


def _stale_reasons(session: Session) -> tuple[Lock | None, list[str]]:
    if session.options.sources is not None:
        _ = session.routes  # an invalid sources file is an error, also if nothing needs it
    _ = session.asked
    old = session.project.read_lock()
    return old, session.stale_reasons(old)


def _lock(session: Session, *, all_pins: bool, packages: list[str], as_of: str | None) -> bool:
    """Lock one profile unless its lock is fresh. Return whether the file changed."""
    project = session.project
    installed = recipe_sets.installed()
    if recipe_sets.named_by(project.lock_file) == installed.sha256:
        recipe_sets.write(installed, project.folder)  # what an interrupted command left out
    old, why = _stale_reasons(session)
    if old is not None and not why and not all_pins and not packages:
        left = "nothing to do" if as_of is None else "`--as-of` alone moves no pin. Add `--upgrade`"
        recipe_sets.write(session.recipes, project.folder)
        talk(f"{project.shown_lock} is fresh: {left}")
        return False
    from cregraph.resolve import Upgrade

    upgrade = Upgrade(all=all_pins, packages=frozenset(name.lower() for name in packages))
    with unsettled(session.store, "lock"):
        with working(f"locking {project.profile}"):
            made = session.resolve(old=old, upgrade=upgrade, as_of=as_of)
        changed = session.write_lock(made)
        remember(session.store, project.lock_file)
    _told(old, made)
    tell(made, session.store, before=old)
    return changed


def _told(old: Lock | None, new: Lock) -> None:
    before = {(t.id, p.name): p for t in old.targets for p in t.pins} if old else {}
    after = {(t.id, p.name): p for t in new.targets for p in t.pins}
    added, removed = after.keys() - before.keys(), before.keys() - after.keys()
    moved = [key for key in after.keys() & before.keys() if after[key].artifact.sha256 != before[key].artifact.sha256]
    talk(f"{len(after)} pins: {len(added)} added, {len(removed)} removed, {len(moved)} changed")


def _day(text: str) -> None:
    with contextlib.suppress(ValueError):
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) and datetime.date.fromisoformat(text):
            return
    raise CregraphError(f"`--as-of {text}` is not a date (expected YYYY-MM-DD)")
