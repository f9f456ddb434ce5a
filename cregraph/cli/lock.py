"""`cregraph lock`."""

from __future__ import annotations

import datetime
import re

from cregraph.cli.say import as_json, projects, result, talk, working
from cregraph.errors import CregraphError, Refused
from cregraph.kinds import image
from cregraph.kinds.base import Given
from cregraph.lock import Lock
from cregraph.project import Asked, Project, shipped_recipes
from cregraph.resolve import Upgrade, resolve
from cregraph.sources.world import OneWorld
from cregraph.stale import reasons


def run(
    named: list[str],
    *,
    every: bool,
    check: bool,
    upgrade: bool,
    packages: list[str],
    as_of: str | None,
    offline: bool,
    sources: str | None,
    json: bool,
) -> None:
    """Lock each profile, or with `check` say whether its lock is fresh."""
    if as_of is not None:
        _day(as_of)
    answers = []
    stale: list[str] = []
    for project in projects(named, every=every):
        asked = project.asked()
        old = project.read_lock()
        why = _reasons(project, asked, old)
        if check:
            answers.append({"lock": project.shown_lock, "fresh": not why, "reasons": why})
            if why and not json:
                stale.append(
                    f"`{project.shown_lock}` is stale\n  " + "\n  ".join(why) if old else f"`{project.shown_lock}` is not there"
                )
            elif not why and not json:
                result(f"{project.shown_lock} is fresh")
            continue
        if old is not None and not why and not upgrade and not packages:
            talk(f"{project.shown_lock} is fresh: nothing to do")
            answers.append({"lock": project.shown_lock, "changed": False})
        else:
            made = lock_project(project, asked, old, upgrade, packages, as_of, offline, sources)
            changed = project.write_lock(made)
            _told(old, made)
            answers.append({"lock": project.shown_lock, "changed": changed})
        if not json:
            result(project.shown_lock)
    if json:
        as_json(answers)
        if check and not all(answer["fresh"] for answer in answers):
            raise SystemExit(1)
    elif stale:
        names = " ".join(p.profile.as_posix() for p in projects(named, every=every))
        raise Refused("\n".join(stale), hint=f"run `cregraph lock {names}`, then look at `cregraph diff`")


def lock_project(
    project: Project,
    asked: Asked,
    old: Lock | None,
    upgrade: bool,
    packages: list[str],
    as_of: str | None,
    offline: bool,
    sources: str | None,
) -> Lock:
    """Resolve one profile."""
    routes = project.routes(sources, registry_url=asked.composition.profile.registry_url)
    world = OneWorld(store=project.store(), routes=routes, local=project.local(), offline=offline)
    given = Given(
        project=project.folder,
        shipped=shipped_recipes(),
        as_of=as_of,
        today=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    with working(f"locking {project.profile}"):
        return resolve(
            identity=asked.identity,
            stages=asked.stages,
            targets=asked.targets,
            world=world,
            given=given,
            facts_for=lambda pin: image.facts_for(pin, world, project.folder),
            old=old,
            upgrade=Upgrade(all=upgrade, packages=frozenset(name.lower() for name in packages)),
        )


def fresh_lock(project: Project) -> Lock:
    """The lock of a project, for commands that never resolve. Raises Refused with the reasons when it is stale or not there."""
    asked = project.asked()
    old = project.read_lock()
    if old is None:
        raise Refused(f"`{project.shown_lock}` is not there", hint=f"run `cregraph lock {project.profile}`")
    why = _reasons(project, asked, old)
    if why:
        raise Refused(
            f"`{project.shown_lock}` is stale\n  " + "\n  ".join(why),
            hint=f"run `cregraph lock {project.profile}`, then look at `cregraph diff`",
        )
    return old


def _reasons(project: Project, asked: Asked, old: Lock | None) -> list[str]:
    if old is None:
        return [f"`{project.shown_lock}` is not there"]
    local = project.local()
    return reasons(old, identity=asked.identity, stages=asked.stages, targets=asked.targets, read=local.read, files=local.files)


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
