"""`cregraph build`."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

from cregraph.build.build_run import Event
from cregraph.build.image_build import Built, build, missing_work
from cregraph.cli.lock import fresh_lock
from cregraph.cli.notes import tell_link_scripts
from cregraph.cli.progress import Display
from cregraph.cli.remote_caches import Caches
from cregraph.cli.say import as_json, counted, megabytes, projects, result, talk
from cregraph.cli.unchanged import answer, image_name, summary
from cregraph.cli.using import hold
from cregraph.digest import sha256
from cregraph.engines import choice
from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import BaseImage, find
from cregraph.lock import lock_file as locks
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.outputs import updated
from cregraph.plan.planner import make_plan
from cregraph.session.project import Asked, Project
from cregraph.sources.configured import ConfiguredSources
from cregraph.store import Store
from cregraph.store.known import Built as Known
from cregraph.store.known import known_of, remember
from cregraph.store.task_records import task_results
from cregraph.store.throughput import Throughput


def run(
    named: list[str],
    *,
    every: bool,
    engine: str,
    builder: str | None = None,
    context: str | None = None,
    outputs: list[str],
    jobs: int,
    keep_going: bool,
    sources: str | None,
    json: bool,
    cache: str = "",
    cache_write: str = "",
    rebuild: bool = False,
) -> None:
    """Build each profile's lock and send the image where `outputs` say. Leaves with SystemExit(1) when a rebuild differs."""
    choice.check(engine, builder=builder, context=context)
    for output in outputs:
        _check_output(output)
    answers: list[dict[str, object]] = []
    differs = False
    chosen = projects(named, every=every)
    for project, output in itertools.product(chosen, outputs):
        form, _, rest = output.partition(":")
        if form == "registry":
            from cregraph.cli.publish import check_place

            check_place(project, rest, sources, typed="--output registry:")
    for project in chosen:
        caches = Caches(read=cache, write=cache_write)
        built, base = build_project(
            project,
            engine=engine,
            builder=builder,
            context=context,
            jobs=jobs,
            keep_going=keep_going,
            sources=sources,
            caches=caches,
            certain=not rebuild,
        )
        compared: dict[str, object] = {}
        if rebuild:
            compared = _again(
                project,
                built,
                base,
                caches,
                engine=engine,
                builder=builder,
                context=context,
                jobs=jobs,
                sources=sources,
                json=json,
            )
        if compared and not compared["equal"]:
            differs = True
            answers.append({"image": image_name(built), "tag": built.plan.tag, "key": built.plan.key, "rebuild": compared})
            continue
        sent = [send(project, built, base, output, sources) for output in outputs]
        name = f"{image_name(built)}@{built.image.digest}"
        more: dict[str, object] = {"rebuild": compared} if compared else {}
        answers.append(answer(built) | {"outputs": sent, "cache": caches.answer} | more)
        if not json:
            result(name)
    if json:
        as_json(answers)
    if differs:
        raise SystemExit(1)


def _again(
    project: Project,
    built: Built,
    base: BaseImage,
    caches: Caches,
    *,
    engine: str,
    builder: str | None,
    context: str | None,
    jobs: int,
    sources: str | None,
    json: bool,
) -> dict[str, object]:
    """Make everything again and compare, for `--rebuild`; only what came out equal is recorded and given to a cache."""
    from cregraph.cli import rebuild

    plan, store = built.plan, project.store()
    world = world_of(project, sources)
    root = find(plan.lock.build_root.artifact, routes=world.routes, project=project.folder, store=store)
    outputs = project.read_outputs()
    caches.compared(plan, store, world.table, outputs)
    compared, circumstances = rebuild.again(
        project,
        built,
        (base, root),
        engine=engine,
        builder=builder,
        context=context,
        jobs=jobs or os.cpu_count() or 1,
        sources=sources,
        recorded=outputs.expected(),
    )
    if not json or not compared.differences:
        rebuild.say(compared)
    if not compared.differences:
        project.write_outputs(updated(outputs, plan.tasks, task_results(plan.tasks, store)))
        caches.leave(plan, store, world.table)
    return rebuild.answer(compared, circumstances)


def build_project(
    project: Project,
    *,
    engine: str,
    builder: str | None = None,
    context: str | None = None,
    jobs: int,
    keep_going: bool = False,
    sources: str | None = None,
    caches: Caches | None = None,
    certain: bool = True,
) -> tuple[Built, BaseImage]:
    """Make the image of a project's lock in the store; with it the base, at its origin.

    What its tasks gave is recorded beside the lock, and given to the cache. Raises Refused when either has it otherwise. With
    `certain` false nothing of that is done: a rebuild comes first.
    """
    start = time.monotonic()
    asked = project.asked()
    lock = fresh_lock(project, asked)
    facts: BaseFacts = project.facts(lock.base)
    plan = make_plan(lock, facts)
    store = project.store()
    hold(project, lock, store, "build")
    store.sweep()
    outputs = project.read_outputs()
    if certain:
        updated(outputs, plan.tasks, task_results(plan.tasks, store))  # a store that contradicts what is recorded makes no image
    caches = caches or Caches()
    routes = project.routes(sources, registry_url=asked.composition.profile.registry_url)
    caches.take(plan, store, routes, outputs)
    work = missing_work(plan, store)
    display = Display(plan.tag, work, layers=len(plan.layers))
    world = _world(project, asked, store, sources, on_bytes=display.received)
    base = find(lock.base.artifact, routes=world.routes, project=project.folder, store=store)
    base.check_facts(facts)
    root = find(lock.build_root.artifact, routes=world.routes, project=project.folder, store=store)
    jobs = jobs or os.cpu_count() or 1
    throughput = Throughput()

    fresh: set[str] = set()

    def noted(event: Event) -> None:
        display(event)
        if (event.what, event.subject) == ("made", "segment"):
            fresh.add(event.name)
        if event.what in ("fetched", "made") and event.subject in ("artifact", "segment", "layer"):
            throughput.note(event.subject, event.seconds, event.size)

    with display:
        built = build(
            plan,
            facts,
            store=store,
            fetch=world.fetch,
            engine=lambda: choice.choose(engine, store=store, root=root, builder=builder, context=context),
            jobs=jobs,
            keep_going=keep_going,
            on_event=noted,
            recorded=outputs.expected() if certain else {},
        )
    if certain:
        project.write_outputs(updated(outputs, plan.tasks, task_results(plan.tasks, store)))
    throughput.save(store)
    _remember(project, built, store)
    fetched = counted(built.made["artifacts"], "file") + " fetched"
    if work.artifacts:
        fetched += f", {megabytes(sum(artifact.size for artifact in work.artifacts))}"
    talk(summary(built, start, fetched=fetched))
    if fresh:
        tell_link_scripts(lock, store, only=fresh)
    if certain:
        caches.leave(plan, store, routes)
    return built, base


def _remember(project: Project, built: Built, store: Store) -> None:
    """Keep what was built of this lock file: `plan` compares with it, and `cache gc` keeps it."""
    text = locks.dumps(built.plan.lock).encode()  # not the file's: it may have changed while this was built
    now = Known(text=sha256(text), key=built.plan.key, digest=built.image.digest)
    before = known_of(store, project.lock_file)
    if before is None or before.built != now or not store.has(now.text):
        store.add(text)
        remember(store, project.lock_file, built=now)


def send(project: Project, built: Built, base: BaseImage, output: str, sources: str | None) -> str:
    """Write the image to an output; returns where it is."""
    store = project.store()
    name = image_name(built)
    form, _, rest = output.partition(":")
    if form == "oci":
        from cregraph.image.media import oci_layout as layout

        layout.write(Path(rest), built.image, reference=name, store=store, base=base.open_layer)
        return output
    if form == "docker":
        from cregraph.image.media.docker_load import load

        load(built.image, reference=rest or name, store=store, base=base.open_layer)
        return f"docker:{rest or name}"
    from cregraph.cli.publish import publish

    return publish(project, built, base, rest, _world(project, project.asked(), store, sources))


def world_of(project: Project, sources: str | None) -> ConfiguredSources:
    """The places that a project's lock and registry lead to."""
    return _world(project, project.asked(), project.store(), sources)


def _world(
    project: Project, asked: Asked, store: Store, sources: str | None, *, on_bytes: Callable[[int], None] | None = None
) -> ConfiguredSources:
    registry_url = asked.composition.profile.registry_url
    routes = project.routes(sources, registry_url=registry_url)
    return ConfiguredSources(store=store, routes=routes, local=project.local(), on_bytes=on_bytes)


def _check_output(output: str) -> None:
    form, colon, rest = output.partition(":")
    if form not in ("oci", "docker", "registry") or (form == "oci" and not rest) or (colon and not rest):
        raise CregraphError(
            f"`--output {output}` is none", hint="write oci:DIR, docker, docker:NAME:TAG, registry, or registry:HOST/REPOSITORY"
        )
