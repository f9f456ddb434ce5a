"""`cregraph lock`."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

from cregraph.cli.notes import tell_link_scripts, tell_sources
from cregraph.cli.say import as_json, projects, result, talk, working
from cregraph.cli.using import unsettled
from cregraph.errors import CregraphError, Refused
from cregraph.kinds.base import PinContext
from cregraph.kinds.image import image_kind as image
from cregraph.lock.consistency import find_problems
from cregraph.lock.lock_file import Lock
from cregraph.lock.staleness import reasons
from cregraph.session.project import Asked, Project, shipped_recipes
from cregraph.store.known import remember

if TYPE_CHECKING:
    from cregraph.resolve import Upgrade


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
    if check and (upgrade or packages or as_of is not None):
        moving = "--upgrade" if upgrade else "--upgrade-package" if packages else "--as-of"
        raise CregraphError(f"`--check` only looks, and `{moving}` moves pins", hint="leave one of them out")
    if as_of is not None:
        _day(as_of)
    answers = []
    stale: list[str] = []
    chosen = projects(named, every=every)
    for project in chosen:
        if sources is not None:
            project.routes(sources)  # a file that is none is said, whether it is needed or not
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
            left = "nothing to do" if as_of is None else "--as-of moves nothing by itself; add --upgrade"
            talk(f"{project.shown_lock} is fresh: {left}")
            answers.append({"lock": project.shown_lock, "changed": False})
        else:
            from cregraph.resolve import Upgrade

            with unsettled(project.store(), "lock"):
                made = lock_project(
                    project,
                    asked,
                    old=old,
                    upgrade=Upgrade(all=upgrade, packages=frozenset(name.lower() for name in packages)),
                    as_of=as_of,
                    offline=offline,
                    sources=sources,
                )
                changed = project.write_lock(made)
                remember(project.store(), project.lock_file)
            _told(old, made)
            tell_sources(old, made)
            tell_link_scripts(made, project.store())
            answers.append({"lock": project.shown_lock, "changed": changed})
        if not json:
            result(project.shown_lock)
    if json:
        as_json(answers)
        if check and not all(answer["fresh"] for answer in answers):
            raise SystemExit(1)
    elif stale:
        names = " ".join(project.profile.as_posix() for project in chosen)
        raise Refused("\n".join(stale), hint=f"run `cregraph lock {names}`, then look at `cregraph diff`")


def lock_project(
    project: Project,
    asked: Asked,
    *,
    old: Lock | None = None,
    upgrade: Upgrade | None = None,
    as_of: str | None = None,
    offline: bool = False,
    sources: str | None = None,
) -> Lock:
    """Resolve one profile."""
    from cregraph.resolve import resolve
    from cregraph.sources.configured import ConfiguredSources

    routes = project.routes(sources, registry_url=asked.composition.profile.registry_url)
    store = project.store()
    store.sweep()
    world = ConfiguredSources(store=store, routes=routes, local=project.local(), offline=offline)
    context = PinContext(
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
            sources=world,
            context=context,
            facts_for=lambda pin: image.facts_for(pin, world, project.folder),
            old=old,
            upgrade=upgrade,
        )


def fresh_lock(project: Project, asked: Asked | None = None) -> Lock:
    """The lock of a project, for commands that never resolve. Raises Refused with the reasons when it is stale or not there.

    `asked` is what the profile asks, where the caller has read that already.
    """
    asked = asked or project.asked()
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
    found = reasons(old, identity=asked.identity, stages=asked.stages, targets=asked.targets, read=local.read, files=local.files)
    lost = [why for pin in (old.base, old.build_root) if (why := project.facts_missing(pin))]
    python = None if lost else project.facts(old.base).python
    gaps = find_problems(old, base=None if lost else python.distributions if python else ())
    return list(dict.fromkeys([*found, *lost, *(why for listed in gaps.values() for why in listed)]))


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
