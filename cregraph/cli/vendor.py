"""`cregraph vendor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cregraph.cli.options import All, AsJson, Profiles, Sources, sessions
from cregraph.cli.store_use import hold
from cregraph.cli.terminal_output import as_json, counted, megabytes, result, talk, working
from cregraph.image.bases.base_image import BaseImage
from cregraph.lock.pins import Artifact
from cregraph.session.session import BuildOptions, Session
from cregraph.text import few
from cregraph.vendor import vendor_folder
from cregraph.vendor.vendor_files import VendorAccess


def vendor(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder that is new, empty or an earlier vendor folder.")],
    profiles: Profiles = None,
    every: All = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete from DIR what these locks do not need.")] = False,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Copy everything that the locks need into one folder."""
    chosen = sessions(profiles, BuildOptions(sources=sources), every=every)
    at = Path(folder)
    by_sha256: dict[str, Session] = {}
    for session in chosen:
        hold(session, "vendor")
        session.store.sweep()
        for target in session.lock.targets:
            for pin in target.pins:
                by_sha256.setdefault(pin.artifact.sha256, session)
    locks = [session.lock for session in chosen]

    sets = {session.recipes.sha256[:16]: session.recipes.files() for session in chosen}

    def fetch(artifact: Artifact) -> Path:
        return by_sha256[artifact.sha256].sources.fetch(artifact)

    def opened(artifact: Artifact) -> BaseImage:
        return by_sha256[artifact.sha256].image(artifact)

    with working(f"copying what {counted(len(locks), 'lock')} {'needs' if len(locks) == 1 else 'need'} into {at}"):
        done = vendor_folder.vendor(locks, at, VendorAccess(fetch=fetch, image=opened), recipes=sets, prune=prune)
    talk(
        f"{counted(done.files, 'file')}, {megabytes(done.size)}: {done.added} added"
        + (f", {done.removed} others removed" if prune else "")
    )
    if done.own:
        talk(f"not copied, because they are part of the project: {few(done.own, 4)}")
    where = at / vendor_folder.SOURCES
    if json:
        counts = {"files": done.files, "bytes": done.size, "added": done.added, "removed": done.removed}
        as_json({"sources": str(where), **counts, "own": list(done.own)})
    else:
        result(str(where))
