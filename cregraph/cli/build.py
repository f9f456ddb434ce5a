"""`cregraph build`.

In the common case there is nothing to do. `build` checks this first, before it loads the rest of the program.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cregraph.cli.build_report import answer, summary
from cregraph.cli.options import All, AsJson, Builder, Cache, Context, Engine, Jobs, Profiles, Sources, sessions
from cregraph.cli.terminal_output import as_json, result, talk
from cregraph.session.session import BuildOptions, Session
from cregraph.session.session_build import is_last_build, unchanged_image

_OUTPUT = "Send the image to oci:DIR, docker[:NAME:TAG] or registry[:HOST/PATH]. Repeatable."
_CACHE_WRITE = "Write results to this remote cache. Existing entries are never overwritten."
_REBUILD = "Build everything a second time, under other conditions. Fail if a byte differs."


def build(
    profiles: Profiles = None,
    every: All = False,
    engine: Engine = "auto",
    builder: Builder = None,
    context: Context = None,
    output: Annotated[list[str] | None, typer.Option("--output", "-o", metavar="DEST", help=_OUTPUT)] = None,
    jobs: Jobs = 0,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="After a failure, run the tasks that do not need it.")] = False,
    cache: Cache = "",
    cache_write: Annotated[str, typer.Option("--cache-write", metavar="REF", help=_CACHE_WRITE)] = "",
    rebuild: Annotated[bool, typer.Option("--rebuild", help=_REBUILD)] = False,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Build the image of each lock."""
    options = BuildOptions(
        engine=engine,
        builder=builder,
        context=context,
        jobs=jobs,
        keep_going=keep_going,
        cache=cache,
        cache_write=cache_write,
        sources=sources,
    )
    outputs = output or []
    special = BuildOptions(jobs=jobs, keep_going=keep_going, sources=sources) != options
    if not (special or outputs or rebuild):
        chosen = sessions(profiles, options, every=every)
        if not _unchanged(chosen, json=json):
            _build(chosen, outputs, json=json, rebuild=rebuild)
        return
    from cregraph.cli.image_output import check_output

    options.check()
    for each in outputs:
        check_output(each)
    _build(sessions(profiles, options, every=every), outputs, json=json, rebuild=rebuild)


def _unchanged(chosen: list[Session], *, json: bool) -> bool:
    """Report the images of all sessions if there is nothing to do for any; else return False."""
    start = time.monotonic()
    if not all(is_last_build(session) for session in chosen):
        return False
    found = [(session, built) for session in chosen if (built := unchanged_image(session)) is not None]
    if len(found) < len(chosen):
        return False
    for session, built in found:
        talk(summary(built, start, fetched="0 files fetched"))
        if not json:
            result(f"{session.image_name}@{built.image.digest}")
    if json:
        as_json({"images": [answer(session, built) for session, built in found]})
    return True


def _build(chosen: list[Session], outputs: list[str], *, json: bool, rebuild: bool) -> None:
    from cregraph.cli.image_output import check_place, send
    from cregraph.cli.make_image import make_image
    from cregraph.cli.remote_cache_use import RemoteCacheUse

    for session in chosen:
        for output in outputs:
            check_place(session, output)
        RemoteCacheUse(session).check()
    answers: list[dict[str, object]] = []
    differs = False
    for session in chosen:
        caches = RemoteCacheUse(session)
        built = make_image(session, caches, record=not rebuild)
        more: dict[str, object] = {}
        if rebuild:
            from cregraph.cli.rebuild_report import rebuild_and_compare

            compared = rebuild_and_compare(session, caches, json=json)
            more = {"rebuild": compared}
            if not compared["equal"]:
                differs = True
                answers.append({"image": session.image_name, "tag": built.plan.tag, "key": built.plan.key, **more})
                continue
        sent = [send(session, built, output) for output in outputs]
        answers.append({**answer(session, built), "outputs": sent, "cache": caches.answer, **more})
        if not json:
            result(f"{session.image_name}@{built.image.digest}")
    if json:
        as_json({"images": answers})
    if differs:
        raise SystemExit(1)
