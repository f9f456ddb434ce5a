"""`cregraph push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cregraph.cli.image_output import push_built
from cregraph.cli.make_image import make_image
from cregraph.cli.options import AsJson, Builder, Cache, Context, Engine, Jobs, Profile, Sources
from cregraph.cli.terminal_output import as_json, result
from cregraph.errors import CregraphError
from cregraph.session.publication import push_place
from cregraph.session.session import BuildOptions, Session


def push(
    profile: Profile = None,
    place: Annotated[
        str | None, typer.Argument(metavar="HOST/PATH", help="Registry and path. [default: those of the profile]")
    ] = None,
    engine: Engine = "auto",
    builder: Builder = None,
    context: Context = None,
    jobs: Jobs = 0,
    cache: Cache = "",
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Push the image of the lock to a registry."""
    options = BuildOptions(engine=engine, builder=builder, context=context, jobs=jobs, cache=cache, sources=sources)
    options.check()
    profile, place = _told_apart(profile, place)
    session = Session.of(profile, options)
    to = push_place(session, place or "", typed="cregraph push ")
    to[1].ping()  # before an hour of building
    built = make_image(session)
    pushed = push_built(session, built, to)
    if json:
        answer = {"image": str(pushed.reference), "tag": built.plan.tag, "digest": built.image.digest, "key": built.plan.key}
        sizes = {"pushed": pushed.pushed, "streamed": pushed.streamed, "mounted": pushed.mounted, "there": pushed.skipped}
        as_json({**answer, "unchanged": pushed.unchanged, "bytes": sizes})
    else:
        result(str(pushed.reference))


def _told_apart(profile: str | None, place: str | None) -> tuple[str | None, str | None]:
    """Return profile and place. A single argument is a place if no such profile exists and it begins with a host."""
    if profile is None or place is not None or Path(profile).exists() or profile.endswith((".yaml", ".yml")):
        return profile, place
    host, slash, rest = profile.partition("/")
    if slash and rest and (":" in host or host == "localhost" or "." in host.strip(".")):
        return None, profile
    if slash or "." in profile or ":" in profile:
        raise CregraphError(
            f"`{profile}` is neither an existing profile nor a registry with a path",
            hint="write: cregraph push PROFILE HOST/PATH",
        )
    return profile, place
