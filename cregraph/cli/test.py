"""`cregraph test`: the image started in a Docker engine, with a real kernel."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cregraph.cli.make_image import make_image
from cregraph.cli.options import AsJson, Builder, Context, Engine, Jobs, Profile, Sources
from cregraph.cli.terminal_output import as_json, result, seconds, talk, working
from cregraph.errors import Refused
from cregraph.image.media.docker_engine import container, inspect, reachable
from cregraph.image.media.docker_load import load
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.lock_file import Lock
from cregraph.session.session import BuildOptions, Session
from cregraph.smoke.smoke_checks import DRIVER, Outcome, checks_of, files, home_of, read, settled
from cregraph.text import printable

__all__ = ["test", "try_image"]


def test(
    profile: Profile = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="NAME", help="Test this image of the Docker engine. Build nothing.")
    ] = None,
    engine: Engine = "auto",
    builder: Builder = None,
    context: Context = None,
    jobs: Jobs = 0,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Start the image in Docker and check that it works."""
    options = BuildOptions(engine=engine, builder=builder, context=context, jobs=jobs, sources=sources)
    options.check()
    session = Session.of(profile, options)
    reachable()  # before an hour of building
    if image is None:
        built = make_image(session)
        name = session.image_name
        with working(f"loading {name} into the Docker engine"):
            load(built.image, reference=name, store=session.store, base=session.base.open_layer)
    else:
        lock, name = session.lock, image
        labels = (inspect(name).get("Config") or {}).get("Labels") or {}
        if labels.get("org.opencontainers.image.base.digest") != f"sha256:{lock.base.artifact.sha256}":
            talk(f"the labels of {name} do not name the base of `{session.project.shown_lock}`. cregraph tests it nevertheless")
    outcomes = try_image(name, session.lock, session.facts, say=not json)
    failed = [outcome for outcome in outcomes if not outcome.ok]
    if json:
        checks = [{"name": o.name, "ok": o.ok, "why": o.why or None, "seconds": o.seconds} for o in outcomes]
        as_json({"image": name, "ok": not failed, "checks": checks})
        if failed:
            raise SystemExit(1)
    elif failed:
        raise Refused(
            f"{len(failed)} of {len(outcomes)} checks failed in {name}",
            hint=f"look inside: docker run --rm -it --network none --env HOME={home_of(session.lock)} {name} bash",
        )


def try_image(name: str, lock: Lock, facts: BaseFacts, *, say: bool) -> tuple[Outcome, ...]:
    """Run the checks of `lock` in a container of the image `name`. Return the outcomes; with `say` print a line for each."""
    checks = checks_of(lock, facts)
    python = facts.python.executable if facts.python else "python3"
    talk(f"testing {name}: {len(checks)} checks")
    outcomes: list[Outcome] = []
    with container(
        name, [python, DRIVER], env={"HOME": home_of(lock)}, files=files(lock, checks), about=f"a container of {name}"
    ) as started:
        for outcome in read(started.lines()):
            outcomes.append(outcome)
            if say:
                _line(outcome)
        code, words = started.ended()
    late = settled(checks, outcomes, why=f"the container stopped (exit {code}) before this check: {words[-400:] or 'no output'}")
    known = {outcome.name for outcome in outcomes}
    for outcome in late:
        if say and outcome.name not in known:
            _line(outcome)
    return late


def _line(outcome: Outcome) -> None:
    took = f"  ({seconds(outcome.seconds)})" if outcome.seconds >= 5 else ""
    result(printable(f"ok      {outcome.name}{took}" if outcome.ok else f"FAILED  {outcome.name}: {outcome.why}"))
    sys.stdout.flush()  # a pipe's reader waits for it as a person does
