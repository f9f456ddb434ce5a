"""`cregraph plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from cregraph.build.image_build import missing_work
from cregraph.cli.options import AsJson, Cache, Jobs, Profile, Sources
from cregraph.cli.plan_answer import CacheOffer, PlanAnswer, as_object
from cregraph.cli.plan_text import as_text
from cregraph.cli.terminal_output import as_json, result, talk, working
from cregraph.plan.explain import History, explain
from cregraph.plan.explain.causes import Causes
from cregraph.plan.missing_work import MissingWork
from cregraph.session.earlier_plan import last_build, named_plan
from cregraph.session.session import BuildOptions, Session
from cregraph.session.transfers import estimate, places, registry_state
from cregraph.store.task_records import recorded_seconds
from cregraph.store.throughput import rates


def plan(
    profile: Profile = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="LOCK", help="Compare with this lock file, profile or git revision.")
    ] = None,
    remote: Annotated[bool, typer.Option("--remote", help="Ask the registry what a push would send.")] = False,
    to: Annotated[
        str | None, typer.Option("--to", metavar="HOST/PATH", help="Ask this registry and path, not those of the profile.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Print a line for each task, segment and layer.")] = False,
    jobs: Jobs = 0,
    cache: Cache = "",
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Show what a build would download and make, and why."""
    options = BuildOptions(jobs=jobs, sources=sources, cache=cache)
    session = Session.of(profile, options)
    asks_registry = remote or to is not None
    store = session.store
    work = missing_work(session.plan, store)
    earlier = named_plan(session, against) if against is not None else last_build(session)
    if earlier is not None and earlier.lost:
        talk(f"cannot compare with the last build: {earlier.lost}")
    cache_offer, keys = None, frozenset[str]()
    if options.cache:
        from cregraph.remote_cache.cache_transfer import left_after

        cache_offer = _cache_offer(session, work)
        keys = frozenset({*cache_offer[1].tasks, *cache_offer[1].segments})
        work = left_after(session.plan, work, cache_offer[1])
    causes = Causes(earlier.plan, session.plan) if earlier is not None and earlier.plan is not None else None
    past = History(
        tasks={t.key: found for t in work.tasks if (found := recorded_seconds(store, t)) is not None}, rates=rates(store)
    )
    everything = against is not None
    view = explain(session.plan, work, causes=causes, past=past, jobs=options.workers, everything=everything, cached=keys)
    where = places(session, to or "", needed=asks_registry)
    state = registry_state(session, where) if asks_registry else None
    transfers = estimate(session, work, where, state)
    answer = PlanAnswer(plan=session.plan, view=view, transfers=transfers, earlier=earlier, remote=state, cache=cache_offer)
    if json:
        as_json(as_object(answer))
    else:
        for line in as_text(answer, full=full):
            result(line)


def _cache_offer(session: Session, work: MissingWork) -> CacheOffer:
    """Ask the remote cache what it has of `work`."""
    from cregraph.remote_cache.cache_name import cache_named
    from cregraph.remote_cache.cache_transfer import find_offer

    cache = cache_named(session.options.cache, session.routes)
    with working(f"asking the cache {cache.name}"):
        offer = find_offer(session.plan, work, cache, session.outputs.expected())
    if offer.unreachable:
        talk(f"skipped the cache {cache.name}: {offer.unreachable}")
    return cache, offer
