"""`cregraph build`.

The common case is that there is nothing to do. It is looked for first, with no more of the program loaded than that takes.
"""

from __future__ import annotations

import time

from cregraph.cli.build_report import answer, summary
from cregraph.cli.say import as_json, projects, result, talk
from cregraph.session.session import BuildOptions, Session
from cregraph.session.session_build import is_last_build, unchanged_image

__all__ = ["run"]


def run(named: list[str], options: BuildOptions, *, every: bool, outputs: list[str], json: bool, rebuild: bool) -> None:
    """Build each profile's lock and send the image where `outputs` say. Exit with 1 when a rebuild differs."""
    special = BuildOptions(jobs=options.jobs, keep_going=options.keep_going, sources=options.sources) != options
    if special or outputs or rebuild:
        from cregraph.cli.image_output import check_output

        options.check()
        for output in outputs:
            check_output(output)
        _build([Session(project, options) for project in projects(named, every=every)], outputs, json=json, rebuild=rebuild)
        return
    sessions = [Session(project, options) for project in projects(named, every=every)]
    if not _unchanged(sessions, json=json):
        _build(sessions, outputs, json=json, rebuild=rebuild)


def _unchanged(sessions: list[Session], *, json: bool) -> bool:
    """Report the images of all sessions if there is nothing to do for any; else return False."""
    start = time.monotonic()
    if not all(is_last_build(session) for session in sessions):
        return False
    found = [(session, built) for session in sessions if (built := unchanged_image(session)) is not None]
    if len(found) < len(sessions):
        return False
    for session, built in found:
        talk(summary(built, start, fetched="0 files fetched"))
        if not json:
            result(f"{session.image_name}@{built.image.digest}")
    if json:
        as_json([answer(session, built) for session, built in found])
    return True


def _build(sessions: list[Session], outputs: list[str], *, json: bool, rebuild: bool) -> None:
    from cregraph.cli.image_output import check_place, send
    from cregraph.cli.make_image import make_image
    from cregraph.cli.remote_cache_use import RemoteCacheUse

    for session in sessions:
        for output in outputs:
            check_place(session, output)
    answers: list[dict[str, object]] = []
    differs = False
    for session in sessions:
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
        as_json(answers)
    if differs:
        raise SystemExit(1)
