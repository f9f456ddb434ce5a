"""`cregraph plan`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cregraph.build.image_build import missing_work
from cregraph.cli.lock import fresh_lock
from cregraph.cli.plan_shown import Before, CacheOffer, Moves, as_text, whole
from cregraph.cli.say import as_json, result, talk, working
from cregraph.engines.trees import kept_root
from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import home_of
from cregraph.image.media.registry import Registry
from cregraph.image.media.registry_state import Remote, look
from cregraph.image.model import layer as layers_of
from cregraph.image.model import segment as segments_of
from cregraph.image.model.layer import LayerRecord
from cregraph.image.model.manifest import Descriptor
from cregraph.image.model.reference import Reference
from cregraph.kinds import kind
from cregraph.lock import lock_file as locks
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.lock_file import Lock
from cregraph.plan.explain import History, explain
from cregraph.plan.explain.causes import Causes
from cregraph.plan.missing_work import MissingWork
from cregraph.plan.planner import Plan, make_plan
from cregraph.session.project import Asked, Project
from cregraph.session.revision import END, Files, Revision, Side, facts_at, lock_at, lock_named, project_of
from cregraph.sources.configured import ConfiguredSources
from cregraph.store import Store
from cregraph.store.known import known_of
from cregraph.store.pushed import elsewhere, pushed_to
from cregraph.store.task_records import recorded_seconds
from cregraph.store.throughput import rates
from cregraph.text import printable

__all__ = ["run"]


def run(
    profile: str | None,
    *,
    against: str | None,
    remote: bool,
    to: str | None,
    full: bool,
    jobs: int,
    sources: str | None,
    json: bool,
    cache: str = "",
) -> None:
    """Say what a build would do, and why; with `remote` or `to` what the registry has of it, with `cache` what that would spare.

    Else no socket is opened.
    """
    project = Project.of(profile)
    asked = project.asked()
    lock = fresh_lock(project, asked)
    facts = project.facts(lock.base)
    plan = make_plan(lock, facts)
    store = project.store()
    work = missing_work(plan, store)
    before = _against(project, against) if against is not None else _last(project, store, plan, work)
    cached = _offered(project, asked, plan, work, cache, sources) if cache else None
    if cached is not None:
        work = cached.left
    causes = Causes(before.plan, plan) if before is not None and before.plan is not None else None
    past = History(
        tasks={t.key: found for t in work.tasks if (found := recorded_seconds(store, t)) is not None}, rates=rates(store)
    )
    jobs = jobs or os.cpu_count() or 1
    view = explain(
        plan,
        work,
        causes=causes,
        past=past,
        jobs=jobs,
        everything=against is not None,
        cached=cached.keys if cached else frozenset(),
    )
    there = _There.of(project, asked, plan, store, sources, to, needed=remote or to is not None)
    moves = _moves(project, plan, work, facts, store, there)
    asking = _look(plan, facts, store, there) if remote or to is not None else None
    if json:
        as_json(whole(plan, view, moves, before, asking, cached))
    else:
        for line in as_text(plan, view, moves, before, asking, cached, full=full):
            result(line)


def _offered(project: Project, asked: Asked, plan: Plan, work: MissingWork, named: str, sources: str | None) -> CacheOffer:
    """What the cache would spare a build; nothing where it does not answer, which is said."""
    from cregraph.remote_cache.cache_name import cache_named
    from cregraph.remote_cache.cache_transfer import offered, without

    routes = project.routes(sources, registry_url=asked.composition.profile.registry_url)
    cache = cache_named(named, routes)
    with working(f"asking the cache {cache.name}"):
        offer = offered(plan, work, cache, project.read_outputs().expected())
    if offer.unreachable:
        talk(f"the cache {cache.name} is left out: {offer.unreachable}")
    return CacheOffer(
        name=cache.name,
        trusted=cache.trusted,
        tasks=len(offer.tasks),
        segments=len(offer.segments),
        size=sum(offer.tasks.values()) + sum(offer.segments.values()),
        unreachable=offer.unreachable,
        keys=frozenset({*offer.tasks, *offer.segments}),
        left=without(work, offer),
    )


def _against(project: Project, text: str) -> Before:
    """What `--against` names: a lock file, a profile's lock, or this profile's lock in a git revision."""
    file = lock_named(text)
    side: Side = Files(folder=project_of(file), file=file) if file else Revision.of(text, project.folder)
    path = file.relative_to(side.folder).as_posix() if file else f"locks/{project.name}{END}"
    lock = lock_at(side, path)
    if lock is None:
        raise CregraphError(f"`{printable(side.shown(path))}` is not there", hint="name a lock file, or a revision that has it")
    where, facts = facts_at(side, lock)
    if facts is None:
        raise CregraphError(
            f"`{printable(side.shown(path))}` cannot be compared with: `{where}` is not there",
            hint="bring the facts of its base back",
        )
    return Before(what=printable(text), plan=make_plan(lock, facts))


def _last(project: Project, store: Store, plan: Plan, work: MissingWork) -> Before | None:
    """The last finished build of this lock file in this store; None when there is none, or nothing is to be compared."""
    known = known_of(store, project.lock_file)
    if known is None or known.built is None:
        return None
    if known.built.key == plan.key:
        return Before(what="the last build", plan=plan)
    try:
        text = store.verified(known.built.text, "the lock of the last build").read_text(encoding="utf-8")
        lock: Lock = locks.loads(text, name="the lock of the last build", kinds=kind)
        where, facts = facts_at(Files(folder=project.folder, file=project.lock_file), lock)
        if facts is None:
            talk(f"what changed since the last build is left out: `{where}`, the facts of its base, is not there")
            return Before(what="the last build", plan=None)
        return Before(what="the last build", plan=make_plan(lock, facts))
    except (CregraphError, OSError, UnicodeDecodeError) as error:
        talk(f"what changed since the last build is left out: {printable(str(error))}")
        return Before(what="the last build", plan=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class _There:
    """Where a push would go, and where the base is: None where no such place is known."""

    to: Reference | None
    registry: Registry | None
    home: tuple[str, str] | None

    @classmethod
    def of(
        cls, project: Project, asked: Asked, plan: Plan, store: Store, sources: str | None, to: str | None, *, needed: bool
    ) -> _There:
        profile = asked.composition.profile
        routes = project.routes(sources, registry_url=profile.registry_url)
        world = ConfiguredSources(store=store, routes=routes, local=project.local())
        try:
            home = home_of(plan.lock.base.artifact, routes=world.routes)
        except CregraphError:
            home = None  # no registry of that name on this machine: a build says so
        from cregraph.cli.publish import place_of

        path = "" if to else profile.image_repo_path or ""
        try:
            place, registry = place_of(
                to or "",
                path=path,
                image=plan.lock.identity.image,
                tag=plan.tag,
                world=world,
                profile=str(project.profile),
                typed="--to ",
            )
        except CregraphError:
            if needed:
                raise
            return cls(to=None, registry=None, home=home)
        return cls(to=place, registry=registry, home=home)


def _moves(project: Project, plan: Plan, work: MissingWork, facts: BaseFacts, store: Store, there: _There) -> Moves:
    """The bytes that would move, as far as this machine knows."""
    known = pushed_to(store, there.to.host, there.to.repository) if there.to else frozenset()
    size = layers = unmade = 0
    for layer, record in _own(plan, store).items():
        if record is not None and record.digest in known:
            continue
        layers += 1
        if record is None:
            unmade += _estimated(plan, layer, store)
        else:
            size += record.size
    base = {layer.digest: layer.size for layer in facts.layers}
    lacking = [s for digest, s in base.items() if there.home and not store.has(digest.removeprefix("sha256:"))]
    absent = sum(s for digest, s in base.items() if digest not in known)
    near = there.home is not None and there.to is not None and there.home[0] == there.to.host
    root = 0
    if work.tasks and not kept_root(store, f"sha256:{plan.lock.build_root.artifact.sha256}"):
        of_root = facts if plan.lock.build_root == plan.lock.base else project.facts(plan.lock.build_root)
        root = sum(s.size for s in of_root.layers if not store.has(s.digest.removeprefix("sha256:")))
    return Moves(
        place=str(there.to) if there.to else None,
        push=size + unmade,
        layers=layers,
        unmade=unmade,
        mount=absent if near else 0,
        stream=absent if there.to and not near else 0,
        base=sum(lacking),
        base_layers=len(lacking),
        root=root,
    )


def _own(plan: Plan, store: Store) -> dict[str, LayerRecord | None]:
    return {layer.key: layers_of.read(store, layer.key) for layer in plan.layers}


def _estimated(plan: Plan, key: str, store: Store) -> int:
    """About what a layer that is not made yet will weigh: its segments, by what they are or by what they are made of."""
    layer = next(layer for layer in plan.layers if layer.key == key)
    found = ((s, segments_of.read(store, s.key)) for s in layer.segments)
    return sum(record.size if record else s.size for s, record in found)


def _look(plan: Plan, facts: BaseFacts, store: Store, there: _There) -> Remote:
    assert there.to is not None
    assert there.registry is not None
    record = store.record("images", plan.key)
    digest = record.get("digest") if isinstance(record, dict) else None
    own = [
        Descriptor(media_type=record.media_type, digest=record.digest, size=record.size)
        for record in _own(plan, store).values()
        if record is not None
    ]
    return look(
        there.registry,
        there.to,
        key=plan.key,
        digest=digest if isinstance(digest, str) else None,
        own=own,
        base=[Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size) for layer in facts.layers],
        home=there.home,
        others=elsewhere(store, there.to.host, there.to.repository),
    )
