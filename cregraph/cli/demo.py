"""`cregraph demo`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from cregraph.build.image_build import Built
from cregraph.cli.image_output import send
from cregraph.cli.make_image import make_image
from cregraph.cli.terminal_output import megabytes, result, seconds, talk, working
from cregraph.demo import demo_project
from cregraph.lock.lock_file import Lock
from cregraph.session.project import Project
from cregraph.session.session import BuildOptions, Session


def demo(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A new or empty folder. [default: demo]")] = "demo",
) -> None:
    """Write a small project, lock it and build it."""
    start = time.monotonic()
    here = Path(folder)
    demo_project.claim(here)
    conda, cran, wheels = demo_project.write_project(here)
    held = f"a base image, {conda} conda packages, {cran} of CRAN, {wheels} wheels"
    talk(f"sources in {here / 'sources'}: {held}")
    sources = str(here / demo_project.SOURCES)
    project = Project(profile=here / demo_project.PROFILE)
    lock = _lock(project, sources)
    compiled = Project(profile=here / demo_project.WITH_CRAN)
    _lock(compiled, sources)
    talk(f"building {project.profile}")
    session = Session(project, BuildOptions(sources=sources))
    built = make_image(session)
    image = here / "image"
    send(session, built, f"oci:{image}")
    demo_project.finish(here)
    talk(f"\ndone in {seconds(time.monotonic() - start)}, with no network, no Docker and no root\n")
    _told(project, compiled, lock, built, image)
    result(f"{session.image_name}@{built.image.digest}")


def _lock(project: Project, sources: str) -> Lock:
    with working(f"locking {project.profile}"):
        session = Session(project, BuildOptions(sources=sources, offline=True))
        made = session.resolve()
    session.write_lock(made)
    return made


def _told(project: Project, compiled: Project, lock: Lock, built: Built, image: Path) -> None:
    here = project.folder
    pins = sum(len(target.pins) for target in lock.targets)
    own, below = sum(layer.size for layer in built.layers), len(built.image.layers) - len(built.layers)
    beneath = sum(layer.size for layer in built.image.layers[:below])
    rows = [
        (project.profile, "the profile, which describes the image"),
        (project.lock_file, f"the lock: {pins} pins, each with its sha256"),
        (here / "bases", "facts about the base image"),
        (image, f"the image, an OCI layout: {len(built.layers)} layers, {megabytes(own)}, on a base of {megabytes(beneath)}"),
        (compiled.lock_file, "a lock with a package from CRAN; its build needs a real R"),
    ]
    width = max(len(str(path)) for path, _ in rows)
    for path, what in rows:
        talk(f"  {path!s:<{width}}  {what}")
    talk("\nThe packages hold placeholders in the real formats. Nothing in the image can be started.\n\ntry next:")
    for line in _next(here):
        talk(f"  {line}")
    talk("")


def _next(here: Path) -> list[str]:
    name = _name(here)
    steps = [
        (f"cd {shlex.quote(str(here))}", ""),
        (f"{name} lock {demo_project.PROFILE} --check", "fresh; opens no connection"),
        (f"{name} build {demo_project.PROFILE} --output oci:image2", "the same digest, also after `rm -r cache`"),
        ("cp locks/demo.lock.json before.json", ""),
        (f"$EDITOR {demo_project.PROFILE}", "write: r-demoframes =1.1.0"),
        (f"{name} lock {demo_project.PROFILE} --check", "stale: prints the line"),
        (f"{name} lock {demo_project.PROFILE}", "one pin moves"),
        (f"{name} diff before.json locks/demo.lock.json", "what a reviewer sees"),
        (f"{name} plan {demo_project.PROFILE}", "what a build would make, and what it would reuse"),
    ]
    width = max(len(step) for step, _ in steps)
    return [f"{step:<{width}}  {'# ' + why if why else ''}".rstrip() for step, why in steps]


def _name(here: Path) -> str:
    """Return how to call this program from the folder `here`."""
    if shutil.which("cregraph"):
        return "cregraph"
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m cregraph"
    return shlex.quote(os.path.relpath(started.absolute(), here.absolute()))
