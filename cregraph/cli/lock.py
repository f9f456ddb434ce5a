"""`cregraph lock`."""

from __future__ import annotations

import datetime
import re

from cregraph.cli.notes import tell_link_scripts, tell_sources
from cregraph.cli.say import as_json, projects, result, talk, working
from cregraph.cli.using import unsettled
from cregraph.errors import CregraphError, Refused
from cregraph.lock.lock_file import Lock
from cregraph.session.session import BuildOptions, Session
from cregraph.store.known import remember

__all__ = ["run"]


def run(
    named: list[str],
    options: BuildOptions,
    *,
    every: bool,
    check: bool,
    upgrade: bool,
    packages: list[str],
    as_of: str | None,
    json: bool,
) -> None:
    """Lock each profile, or with `check` report whether its lock is fresh."""
    if check and (upgrade or packages or as_of is not None):
        moving = "--upgrade" if upgrade else "--upgrade-package" if packages else "--as-of"
        raise CregraphError(f"`--check` only looks, and `{moving}` moves pins", hint="leave one of them out")
    if as_of is not None:
        _day(as_of)
    sessions = [Session(project, options) for project in projects(named, every=every)]
    if check:
        _check(sessions, json=json)
        return
    answers = []
    for session in sessions:
        changed = _lock(session, all_pins=upgrade, packages=packages, as_of=as_of)
        shown = session.project.shown_lock
        answers.append({"lock": shown, "changed": changed})
        if not json:
            result(shown)
    if json:
        as_json(answers)


def _check(sessions: list[Session], *, json: bool) -> None:
    """Report for each lock whether it is fresh. Raise Refused, or exit with 1 with `json`, when one is not."""
    answers = []
    stale = []
    for session in sessions:
        lock, why = _stale_reasons(session)
        shown = session.project.shown_lock
        answers.append({"lock": shown, "fresh": not why, "reasons": why})
        if why:
            stale.append(f"`{shown}` is stale\n  " + "\n  ".join(why) if lock else f"`{shown}` is not there")
        elif not json:
            result(f"{shown} is fresh")
    if json:
        as_json(answers)
        if stale:
            raise SystemExit(1)
    elif stale:
        names = " ".join(session.project.profile.as_posix() for session in sessions)
        raise Refused("\n".join(stale), hint=f"run `cregraph lock {names}`, then look at `cregraph diff`")


def _stale_reasons(session: Session) -> tuple[Lock | None, list[str]]:
    if session.options.sources is not None:
        _ = session.routes  # an invalid sources file is an error, whether it is needed or not
    _ = session.asked
    old = session.project.read_lock()
    return old, session.stale_reasons(old)


def _lock(session: Session, *, all_pins: bool, packages: list[str], as_of: str | None) -> bool:
    """Lock one profile unless its lock is fresh. Return whether the file changed."""
    project = session.project
    old, why = _stale_reasons(session)
    if old is not None and not why and not all_pins and not packages:
        left = "nothing to do" if as_of is None else "--as-of moves nothing by itself; add --upgrade"
        talk(f"{project.shown_lock} is fresh: {left}")
        return False
    from cregraph.resolve import Upgrade

    upgrade = Upgrade(all=all_pins, packages=frozenset(name.lower() for name in packages))
    with unsettled(session.store, "lock"):
        with working(f"locking {project.profile}"):
            made = session.resolve(old=old, upgrade=upgrade, as_of=as_of)
        changed = project.write_lock(made)
        remember(session.store, project.lock_file)
    _told(old, made)
    tell_sources(old, made)
    tell_link_scripts(made, session.store)
    return changed


def _told(old: Lock | None, new: Lock) -> None:
    before = {(t.id, p.name): p for t in old.targets for p in t.pins} if old else {}
    after = {(t.id, p.name): p for t in new.targets for p in t.pins}
    added, removed = after.keys() - before.keys(), before.keys() - after.keys()
    moved = [key for key in after.keys() & before.keys() if after[key].artifact.sha256 != before[key].artifact.sha256]
    talk(f"{len(after)} pins: {len(added)} added, {len(removed)} removed, {len(moved)} changed")


def _day(text: str) -> None:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        text_is_day = False
    else:
        text_is_day = re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) is not None
    if not text_is_day:
        raise CregraphError(f"`--as-of {text}` is no day", hint="write it as 2026-05-29")
