"""`cregraph push`."""

from __future__ import annotations

from pathlib import Path

from cregraph.cli.build import build_project, world_of
from cregraph.cli.publish import check_place, published
from cregraph.cli.remote_caches import Caches
from cregraph.cli.say import as_json, result
from cregraph.engines import choice
from cregraph.errors import CregraphError
from cregraph.session.project import Project

__all__ = ["run"]


def run(
    profile: str | None,
    place: str | None,
    *,
    engine: str,
    builder: str | None,
    context: str | None,
    jobs: int,
    sources: str | None,
    cache: str,
    json: bool,
) -> None:
    """Build the image of the lock where it is not there yet, and bring it into a registry."""
    choice.check(engine, builder=builder, context=context)
    profile, place = _told_apart(profile, place)
    project = Project.of(profile)
    check_place(project, place or "", sources, typed="cregraph push ")
    built, base = build_project(
        project, engine=engine, builder=builder, context=context, jobs=jobs, sources=sources, caches=Caches(read=cache)
    )
    pushed = published(project, built, base, place or "", world_of(project, sources), typed="cregraph push ")
    if json:
        as_json(
            {
                "image": str(pushed.reference),
                "tag": built.plan.tag,
                "digest": built.image.digest,
                "key": built.plan.key,
                "unchanged": pushed.unchanged,
                "bytes": {
                    "pushed": pushed.pushed,
                    "streamed": pushed.streamed,
                    "mounted": pushed.mounted,
                    "there": pushed.skipped,
                },
            }
        )
    else:
        result(str(pushed.reference))


def _told_apart(profile: str | None, place: str | None) -> tuple[str | None, str | None]:
    """A single argument may be either: it is a place when no such profile is there and it begins with a host."""
    if profile is None or place is not None or Path(profile).exists() or profile.endswith((".yaml", ".yml")):
        return profile, place
    host, slash, rest = profile.partition("/")
    if slash and rest and (":" in host or host == "localhost" or "." in host.strip(".")):
        return None, profile
    if slash or "." in profile or ":" in profile:
        raise CregraphError(
            f"`{profile}` is neither a profile that is there nor a place to push to",
            hint="write: cregraph push PROFILE HOST/PATH",
        )
    return profile, place
