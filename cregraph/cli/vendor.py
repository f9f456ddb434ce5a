"""`cregraph vendor`."""

from __future__ import annotations

from pathlib import Path

from cregraph.cli.lock import fresh_lock
from cregraph.cli.say import as_json, counted, megabytes, projects, result, talk, working
from cregraph.cli.using import hold
from cregraph.image.bases.base_image import BaseImage, find
from cregraph.lock.lock_file import Lock
from cregraph.lock.pins import Artifact
from cregraph.session.project import Project
from cregraph.sources.configured import ConfiguredSources
from cregraph.vendor.vendor_files import VendorAccess
from cregraph.vendor.vendor_folder import SOURCES, vendor


def run(folder: str, named: list[str], *, every: bool, prune: bool, sources: str | None, json: bool) -> None:
    """Copy what the locks of the profiles need into `folder`."""
    chosen = projects(named, every=every)
    at = Path(folder)
    locks: list[Lock] = []
    worlds: dict[str, tuple[Project, ConfiguredSources]] = {}
    for project in chosen:
        asked = project.asked()
        lock = fresh_lock(project, asked)
        store = project.store()
        hold(project, lock, store, "vendor")
        store.sweep()
        routes = project.routes(sources, registry_url=asked.composition.profile.registry_url)
        world = ConfiguredSources(store=store, routes=routes, local=project.local())
        locks.append(lock)
        for target in lock.targets:
            for pin in target.pins:
                worlds.setdefault(pin.artifact.sha256, (project, world))

    def fetch(artifact: Artifact) -> Path:
        return worlds[artifact.sha256][1].fetch(artifact)

    def opened(artifact: Artifact) -> BaseImage:
        project, world = worlds[artifact.sha256]
        return find(artifact, routes=world.routes, project=project.folder, store=world.store)

    with working(f"copying what {counted(len(locks), 'lock')} {'needs' if len(locks) == 1 else 'need'} into {at}"):
        done = vendor(locks, at, VendorAccess(fetch=fetch, image=opened), prune=prune)
    talk(
        f"{counted(done.files, 'file')}, {megabytes(done.size)}: {done.added} added"
        + (f", {done.removed} others removed" if prune else "")
    )
    if done.own:
        talk(f"not copied, for they come with the project: {_few(done.own)}")
    where = at / SOURCES
    if json:
        as_json(
            {
                "sources": str(where),
                "files": done.files,
                "bytes": done.size,
                "added": done.added,
                "removed": done.removed,
                "own": list(done.own),
            }
        )
    else:
        result(str(where))


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
