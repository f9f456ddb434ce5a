"""`cregraph cache verify --cache REF`: a sample of a shared cache made again."""

from __future__ import annotations

import os

from cregraph.build.build_run import MissingWork
from cregraph.build.rebuild_comparison import Compared
from cregraph.cli import rebuild
from cregraph.cli.build import world_of
from cregraph.cli.lock import fresh_lock
from cregraph.cli.progress import Display
from cregraph.cli.say import as_json, counted, result, talk
from cregraph.cli.using import hold
from cregraph.engines import choice
from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import find
from cregraph.plan.planner import make_plan
from cregraph.remote_cache.cache_name import cache_named
from cregraph.remote_cache.sample_check import verify_remote
from cregraph.session.project import Project
from cregraph.sources.configured import ConfiguredSources
from cregraph.store import Store


def run(profile: str | None, cache: str, *, sample: int, engine: str, jobs: int, sources: str | None, json: bool) -> None:
    """Make a sample of what the cache holds for the profile's lock again. Leaves with SystemExit(1) when something differs."""
    choice.check(engine)
    project = Project.of(profile)
    lock = fresh_lock(project)
    facts = project.facts(lock.base)
    plan = make_plan(lock, facts)
    store = project.store()
    hold(project, lock, store, "cache verify")
    world = world_of(project, sources)
    named = cache_named(cache, world.table)
    root = find(lock.build_root.artifact, routes=world.routes, project=project.folder, store=store)
    talk(f"making {sample or 'all'} entries of {named.name} again")
    with store.scratch_folder() as folder, Display(plan.tag, MissingWork(), layers=0) as display:
        other = Store(folder / "store")
        elsewhere = ConfiguredSources(store=other, routes=world.table, local=project.local())
        found = verify_remote(
            plan,
            facts,
            named,
            store=store,
            other=other,
            sample=sample,
            fetch=elsewhere.fetch,
            engine=lambda: choice.choose(engine, store=other, root=root, fresh=True),
            jobs=jobs or os.cpu_count() or 1,
            on_event=display,
        )
    if not (found.tasks or found.segments or found.damaged):
        raise CregraphError(
            f"the cache {named.name} holds nothing for `{project.shown_lock}`, so nothing could be made again",
            hint="look at its name; `cregraph build --cache-write` fills it",
        )
    compared = Compared(differences=found.differences)
    ok = not found.differences and not found.damaged
    if json:
        as_json(
            {
                "cache": named.name,
                "ok": ok,
                "tasks": found.tasks,
                "segments": found.segments,
                "damaged": found.damaged,
                "differences": rebuild.answer(compared, {})["differences"],
            }
        )
    else:
        for why in found.damaged:
            result(f"damaged: {why}")
        if found.differences:
            rebuild.say(compared)
        made = (
            f"{counted(len(found.tasks), 'task result')} and {counted(len(found.segments), 'segment')} of {named.name} made again"
        )
        result(f"{made}: " + ("equal" if ok else f"{len(found.differences)} differ, {len(found.damaged)} damaged"))
    if not ok:
        raise SystemExit(1)
