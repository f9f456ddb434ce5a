"""`cregraph build`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from cregraph.build import Built, build, pending
from cregraph.cli.lock import fresh_lock
from cregraph.cli.progress import Display
from cregraph.cli.say import as_json, counted, megabytes, projects, result, seconds, talk
from cregraph.digest import sha256
from cregraph.engines import choice
from cregraph.errors import CregraphError
from cregraph.facts import BaseFacts
from cregraph.image.base import BaseImage, find
from cregraph.image.reference import check_repository
from cregraph.planning import make_plan
from cregraph.project import Asked, Project
from cregraph.sources.world import OneWorld
from cregraph.store import Store
from cregraph.store.known import Built as Known
from cregraph.store.known import known_of, remember


def run(
    named: list[str],
    *,
    every: bool,
    engine: str,
    outputs: list[str],
    jobs: int,
    keep_going: bool,
    sources: str | None,
    json: bool,
) -> None:
    """Build each profile's lock and send the image where `outputs` say."""
    choice.check(engine)
    for output in outputs:
        _check_output(output)
    answers = []
    for project in projects(named, every=every):
        built, base = build_project(project, engine=engine, jobs=jobs, keep_going=keep_going, sources=sources)
        sent = [send(project, built, base, output, sources) for output in outputs]
        name = f"{image_name(built)}@{built.image.digest}"
        answers.append(
            {
                "image": image_name(built),
                "tag": built.plan.tag,
                "digest": built.image.digest,
                "key": built.plan.key,
                "outputs": sent,
                "made": built.made,
            }
        )
        if not json:
            result(name)
    if json:
        as_json(answers)


def build_project(
    project: Project, *, engine: str, jobs: int, keep_going: bool = False, sources: str | None = None
) -> tuple[Built, BaseImage]:
    """Make the image of a project's lock in the store; with it the base, at its origin."""
    start = time.monotonic()
    asked = project.asked()
    lock = fresh_lock(project, asked)
    facts: BaseFacts = project.facts(lock.base)
    plan = make_plan(lock, facts)
    store = project.store()
    store.sweep()
    work = pending(plan, store)
    display = Display(plan.tag, work, layers=len(plan.layers))
    world = _world(project, asked, store, sources, on_bytes=display.received)
    base = find(lock.base.artifact, routes=world.routes, project=project.folder, store=store)
    base.check_facts(facts)
    root = find(lock.build_root.artifact, routes=world.routes, project=project.folder, store=store)
    jobs = jobs or os.cpu_count() or 1
    with display:
        built = build(
            plan,
            facts,
            store=store,
            fetch=world.fetch,
            engine=lambda: choice.choose(engine, store=store, root=root),
            jobs=jobs,
            keep_going=keep_going,
            on_event=display,
        )
    _remember(project, built, store)
    own = sum(layer.size for layer in built.layers)
    made = built.made
    fetched = counted(made["artifacts"], "file") + " fetched"
    if work.artifacts:
        fetched += f", {megabytes(sum(artifact.size for artifact in work.artifacts))}"
    talk(
        f"{counted(len(built.layers), 'layer')}, {megabytes(own)} over the base: "
        f"{made['layers']} made, {len(built.layers) - made['layers']} reused; "
        f"tasks: {made['tasks']} run, {len(plan.tasks) - made['tasks']} reused; {fetched}; {seconds(time.monotonic() - start)}"
    )
    return built, base


def _remember(project: Project, built: Built, store: Store) -> None:
    """Keep what was built of this lock file: `plan` compares with it, and `cache gc` keeps it."""
    text = project.lock_file.read_bytes()
    now = Known(text=sha256(text), key=built.plan.key, digest=built.image.digest)
    before = known_of(store, project.lock_file)
    if before is None or before.built != now or not store.has(now.text):
        store.add(text)
        remember(store, project.lock_file, built=now)


def image_name(built: Built) -> str:
    """`image:tag`, in the letters that registries accept."""
    name = built.plan.lock.identity.image.lower()
    check_repository(name, where="cre.image")
    return f"{name}:{built.plan.tag}"


def send(project: Project, built: Built, base: BaseImage, output: str, sources: str | None) -> str:
    """Write the image to an output; returns where it is."""
    store = project.store()
    name = image_name(built)
    form, _, rest = output.partition(":")
    if form == "oci":
        from cregraph.image import layout

        layout.write(Path(rest), built.image, reference=name, store=store, base=base.open_layer)
        return output
    if form == "docker":
        from cregraph.image.docker_load import load

        load(built.image, reference=rest or name, store=store, base=base.open_layer)
        return f"docker:{rest or name}"
    from cregraph.cli.publish import publish

    return publish(project, built, base, rest, _world(project, project.asked(), store, sources))


def _world(
    project: Project, asked: Asked, store: Store, sources: str | None, *, on_bytes: Callable[[int], None] | None = None
) -> OneWorld:
    registry_url = asked.composition.profile.registry_url
    routes = project.routes(sources, registry_url=registry_url)
    return OneWorld(store=store, routes=routes, local=project.local(), on_bytes=on_bytes)


def _check_output(output: str) -> None:
    form, colon, rest = output.partition(":")
    if form not in ("oci", "docker", "registry") or (form == "oci" and not rest) or (colon and not rest):
        raise CregraphError(
            f"`--output {output}` is none", hint="write oci:DIR, docker, docker:NAME:TAG, registry, or registry:HOST/REPOSITORY"
        )
