"""Options and arguments that several commands declare, and the sessions that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cregraph.cli.terminal_output import talk
from cregraph.errors import CregraphError
from cregraph.session.project import Project
from cregraph.session.session import BuildOptions, Session

__all__ = ["All", "AsJson", "Builder", "Cache", "Context", "Engine", "Jobs", "Profile", "Profiles", "Sources", "sessions"]

_PROFILES = "Profile to use. Repeatable. [default: cregraph.yaml]"
_SOURCES = "Read source addresses from FILE. [env: CREGRAPH_SOURCES]"
_ENGINE = "Engine that runs tasks: auto, native or docker. [default: auto]"
_CACHE = "Read results from this remote cache: HOST/PATH, or a name in sources.yaml."
_JOBS = "Run at most N jobs at the same time. 0 means the number of processors. [default: 0]"

Profiles = Annotated[list[str] | None, typer.Argument(metavar="PROFILE", help=_PROFILES)]
Profile = Annotated[str | None, typer.Argument(metavar="PROFILE", help="Profile to use. [default: cregraph.yaml]")]
All = Annotated[bool, typer.Option("--all", help="Use every profile that has a lock in locks/.")]
Sources = Annotated[str | None, typer.Option("--sources", metavar="FILE", help=_SOURCES)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result, or the error, as JSON.")]
Engine = Annotated[str, typer.Option("--engine", metavar="NAME", help=_ENGINE)]
Builder = Annotated[str | None, typer.Option("--builder", metavar="NAME", help="Run tasks with this buildx builder.")]
Context = Annotated[str | None, typer.Option("--context", metavar="NAME", help="Use the engine of this Docker context.")]
Cache = Annotated[str, typer.Option("--cache", metavar="REF", help=_CACHE)]
Jobs = Annotated[int, typer.Option("--jobs", "-j", metavar="N", min=0, help=_JOBS)]


def sessions(profiles: list[str] | None, options: BuildOptions, *, every: bool) -> list[Session]:
    """Return one session for each profile that is named, with `every` for each that has a lock here, else for cregraph.yaml."""
    named = _with_lock(profiles) if every else [Project.of(name) for name in dict.fromkeys(profiles or ())]
    return [Session(project, options) for project in named or [Project.of(None)]]


def _with_lock(profiles: list[str] | None) -> list[Project]:
    if profiles:
        raise CregraphError("`--all` does not work with PROFILE", hint="remove `--all` or the profiles")
    found: list[Project] = []
    for lock in sorted(Path("locks").glob("*.lock.json")):
        name = lock.name.removesuffix(".lock.json")
        profile = next((file for file in (f"{name}.yaml", f"{name}.yml") if Path(file).is_file()), None)
        if profile is None:
            talk(f"skipped `{lock}`: neither `{name}.yaml` nor `{name}.yml` exists")
        else:
            found.append(Project.of(profile))
    if not found:
        raise CregraphError(
            "`--all`: there is no lock of a profile in `locks/`", hint="name a profile: cregraph lock my_team.yaml"
        )
    return found
