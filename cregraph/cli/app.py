"""The commands and their options. What they do stands in the module of each."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="cregraph",
    help="Container images from one profile and one lock: the same lock, the same tag, the same digest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Profiles = Annotated[list[str] | None, typer.Argument(metavar="PROFILE", help="Profiles; cregraph.yaml when none is named.")]
Profile = Annotated[str | None, typer.Argument(metavar="PROFILE", help="The profile; cregraph.yaml when none is named.")]
All = Annotated[bool, typer.Option("--all", help="Every profile beside a locks/ folder here that has a lock.")]
Sources = Annotated[str | None, typer.Option("--sources", metavar="FILE", help="Where sources lead on this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on stdout.")]
Engine = Annotated[str, typer.Option("--engine", metavar="auto|native", help="What runs tasks.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=0, help="How much at once; 0: as many as there are processors.")]


def _version(value: bool) -> None:
    if value:
        from cregraph import __version__

        print(f"cregraph {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Container images from one profile and one lock: the same lock, the same tag, the same digest."""


@app.command()
def lock(
    profiles: Profiles = None,
    every: All = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the lock is fresh, offline; exit 1 with reasons if not.")
    ] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Let every pin move.")] = False,
    upgrade_package: Annotated[
        list[str] | None, typer.Option("--upgrade-package", metavar="NAME", help="Let this pin move; may be given again.")
    ] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", metavar="DATE", help="Take nothing newer than this day (UTC).")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection.")] = False,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Pin every byte that the profile asks for; move nothing that nobody asked to move."""
    from cregraph.cli import lock as command

    command.run(
        profiles or [],
        every=every,
        check=check,
        upgrade=upgrade,
        packages=upgrade_package or [],
        as_of=as_of,
        offline=offline,
        sources=sources,
        json=json,
    )


@app.command()
def plan(profile: Profile = None, json: AsJson = False) -> None:
    """What a build would fetch, make and reuse. Opens no socket."""
    from cregraph.cli import plan as command

    command.run(profile, json=json)


@app.command()
def build(
    profiles: Profiles = None,
    every: All = False,
    engine: Engine = "auto",
    output: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", metavar="oci:DIR|docker|registry", help="Where the image goes; may be given again."),
    ] = None,
    jobs: Jobs = 0,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="After a failed task, run all that does not need it.")] = False,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Make the image of the lock. Prints its name with its digest."""
    from cregraph.cli import build as command

    command.run(
        profiles or [],
        every=every,
        engine=engine,
        outputs=output or [],
        jobs=jobs,
        keep_going=keep_going,
        sources=sources,
        json=json,
    )


@app.command()
def test(
    profile: Profile = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="NAME", help="An image of the Docker engine instead of a fresh build.")
    ] = None,
    engine: Engine = "auto",
    jobs: Jobs = 0,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Start the image: a real kernel, %%R, every asked-for package, the recipes' checks."""
    from cregraph.cli import test as command

    command.run(profile, image=image, engine=engine, jobs=jobs, sources=sources, json=json)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A lock file or a git revision.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="A lock file or a git revision.")],
    profile: Annotated[
        str | None, typer.Option("--profile", help="Whose lock, between git revisions; all locks when not said.")
    ] = None,
    format: Annotated[str, typer.Option("--format", metavar="text|json", help="How the answer is written.")] = "text",
) -> None:
    """What changes between two locks: packages, stages that rebuild, the tag. Exit 1 when they differ."""
    from cregraph.cli import diff as command

    command.run(old, new, profile=profile, format=format)


@app.command()
def demo(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder that is new or empty.")] = "demo",
) -> None:
    """A small project with its own little world: locked and built here, with no network, no Docker and no root."""
    from cregraph.cli import demo as command

    command.run(folder)
