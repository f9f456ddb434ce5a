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

Profiles = Annotated[list[str] | None, typer.Argument(metavar="PROFILE", help="Profiles; cregraph.yaml when none is named.")]
Profile = Annotated[str | None, typer.Argument(metavar="PROFILE", help="The profile; cregraph.yaml when none is named.")]
All = Annotated[bool, typer.Option("--all", help="Every profile beside a locks/ folder here that has a lock.")]
Sources = Annotated[str | None, typer.Option("--sources", metavar="FILE", help="Where sources lead on this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on stdout.")]
Engine = Annotated[str, typer.Option("--engine", metavar="auto|native|docker", help="What runs tasks.")]
Builder = Annotated[str | None, typer.Option("--builder", metavar="NAME", help="The buildx builder that runs tasks.")]
Context = Annotated[str | None, typer.Option("--context", metavar="NAME", help="The Docker context whose engine runs tasks.")]
Cache = Annotated[
    str, typer.Option("--cache", metavar="REF", help="A shared cache to read: HOST/PATH, or a name of sources.yaml.")
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=0, help="How much at once; 0: as many as there are processors.")]


def sessions(profiles: list[str] | None, options: BuildOptions, *, every: bool) -> list[Session]:
    """Return one session for each profile that is named, with `every` for each that has a lock here, else for cregraph.yaml."""
    return [Session(project, options) for project in (_with_lock(profiles) if every else _named(profiles))]


def _named(profiles: list[str] | None) -> list[Project]:
    return [Project.of(name) for name in dict.fromkeys(profiles or [])] or [Project.of(None)]


def _with_lock(profiles: list[str] | None) -> list[Project]:
    if profiles:
        raise CregraphError("either profiles or `--all`, not both")
    found: list[Project] = []
    for lock in sorted(Path("locks").glob("*.lock.json")):
        name = lock.name.removesuffix(".lock.json")
        profile = next((file for file in (f"{name}.yaml", f"{name}.yml") if Path(file).is_file()), None)
        if profile is None:
            talk(f"`{lock}` is left out: there is no profile `{name}.yaml` or `{name}.yml`")
        else:
            found.append(Project.of(profile))
    if not found:
        raise CregraphError(
            "`--all`: there is no lock of a profile in `locks/`", hint="name a profile: cregraph lock my_team.yaml"
        )
    return found
