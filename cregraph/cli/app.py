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
Engine = Annotated[str, typer.Option("--engine", metavar="auto|native|docker", help="What runs tasks.")]
Builder = Annotated[str | None, typer.Option("--builder", metavar="NAME", help="The buildx builder that runs tasks.")]
Context = Annotated[str | None, typer.Option("--context", metavar="NAME", help="The Docker context whose engine runs tasks.")]
Cache = Annotated[
    str, typer.Option("--cache", metavar="REF", help="A shared cache to read: HOST/PATH, or a name of sources.yaml.")
]
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
    from cregraph.session.session import BuildOptions

    command.run(
        profiles or [],
        BuildOptions(sources=sources, offline=offline),
        every=every,
        check=check,
        upgrade=upgrade,
        packages=upgrade_package or [],
        as_of=as_of,
        json=json,
    )


@app.command()
def plan(
    profile: Profile = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="LOCK|REV", help="What to compare with instead of the last build here.")
    ] = None,
    remote: Annotated[
        bool, typer.Option("--remote", help="Ask the registry too: is there anything to do, what would move?")
    ] = False,
    to: Annotated[
        str | None, typer.Option("--to", metavar="HOST/PATH", help="The registry to ask, instead of the profile's.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="A line for each task, segment and layer.")] = False,
    jobs: Jobs = 0,
    cache: Cache = "",
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """What a build would fetch, make and reuse, and why. Opens no socket unless it is told to ask a registry."""
    from cregraph.cli import plan as command
    from cregraph.session.session import BuildOptions

    options = BuildOptions(jobs=jobs, sources=sources, cache=cache)
    command.run(profile, options, against=against, remote=remote, to=to, full=full, json=json)


@app.command()
def build(
    profiles: Profiles = None,
    every: All = False,
    engine: Engine = "auto",
    builder: Builder = None,
    context: Context = None,
    output: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", metavar="oci:DIR|docker|registry", help="Where the image goes; may be given again."),
    ] = None,
    jobs: Jobs = 0,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="After a failed task, run all that does not need it.")] = False,
    cache: Cache = "",
    cache_write: Annotated[
        str, typer.Option("--cache-write", metavar="REF", help="A shared cache to write to; what is there is left alone.")
    ] = "",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make everything again under other circumstances; exit 1 when something differs.")
    ] = False,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Make the image of the lock. Prints its name with its digest."""
    from cregraph.cli import build as command
    from cregraph.session.session import BuildOptions

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
    command.run(profiles or [], options, every=every, outputs=output or [], json=json, rebuild=rebuild)


@app.command()
def push(
    profile: Profile = None,
    place: Annotated[
        str | None, typer.Argument(metavar="HOST/PATH", help="The registry and path, instead of the profile's.")
    ] = None,
    engine: Engine = "auto",
    builder: Builder = None,
    context: Context = None,
    jobs: Jobs = 0,
    cache: Cache = "",
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Bring the image of the lock into a registry; only what is missing there moves. Prints its name with its digest."""
    from cregraph.cli import push as command
    from cregraph.session.session import BuildOptions

    options = BuildOptions(engine=engine, builder=builder, context=context, jobs=jobs, cache=cache, sources=sources)
    command.run(profile, place, options, json=json)


@app.command()
def test(
    profile: Profile = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="NAME", help="An image of the Docker engine instead of a fresh build.")
    ] = None,
    engine: Engine = "auto",
    builder: Builder = None,
    context: Context = None,
    jobs: Jobs = 0,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Start the image: a real kernel, %%R, every asked-for package, the recipes' checks."""
    from cregraph.cli import test as command
    from cregraph.session.session import BuildOptions

    options = BuildOptions(engine=engine, builder=builder, context=context, jobs=jobs, sources=sources)
    command.run(profile, options, image=image, json=json)


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
def why(
    package: Annotated[
        str, typer.Argument(metavar="PACKAGE", help="A package's name; conda:NAME, r:NAME or py:NAME for one ecosystem.")
    ],
    profile: Profile = None,
    json: AsJson = False,
) -> None:
    """Print every path from the profile to a pin of the lock. Exit 1 when the lock has no such pin."""
    from cregraph.cli import why as command

    command.run(package, profile, json=json)


@app.command()
def export(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="dockerfile, or bake for several profiles together.")],
    profiles: Profiles = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="A folder that is new, empty or an export.")] = "",
    flavor: Annotated[
        str, typer.Option("--flavor", metavar="artifacts|image-builder", help="Whose builder the Dockerfile is for.")
    ] = "artifacts",
    budget: Annotated[
        int, typer.Option("--context-budget", metavar="MB", min=1, help="The most that an image-builder's context may hold.")
    ] = 20,
    with_tasks: Annotated[
        bool, typer.Option("--with-tasks", help="Task stages that can be run: adds all that they see to the folder.")
    ] = False,
    every: All = False,
    engine: Engine = "auto",
    jobs: Jobs = 0,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Write the image as text for another builder. Prints the command that builds it."""
    from cregraph.cli import export as command
    from cregraph.session.session import BuildOptions

    command.run(
        format,
        profiles or [],
        BuildOptions(engine=engine, jobs=jobs, sources=sources),
        every=every,
        output=output,
        flavor=flavor,
        budget=budget,
        tasks=with_tasks,
        json=json,
    )


@app.command()
def verify(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="docker:NAME or NAME, oci:DIR, or registry:HOST/PATH:TAG.")],
    profile: Profile = None,
    recompiled: Annotated[
        bool, typer.Option("--recompiled", help="Compiled files may have other bytes: another builder compiled them.")
    ] = False,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """What is in the image is what the lock says: packages, files, variables, labels. Exit 1 when it is not."""
    from cregraph.cli import verify as command
    from cregraph.session.session import BuildOptions

    command.run(image, profile, BuildOptions(sources=sources), recompiled=recompiled, json=json)


@app.command()
def vendor(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder that is new, empty or a vendor folder already.")],
    profiles: Profiles = None,
    every: All = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove from DIR what these locks do not name.")] = False,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Copy everything that a lock needs into plain standard trees, with a sources.yaml that leads to them."""
    from cregraph.cli import vendor as command
    from cregraph.session.session import BuildOptions

    command.run(folder, profiles or [], BuildOptions(sources=sources), every=every, prune=prune, json=json)


cache = typer.Typer(help="The store: what is in it, clearing it, checking it.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(cache, name="cache")


@cache.command("path")
def cache_path() -> None:
    """Print where the store is."""
    from cregraph.cli import cache as command

    command.path()


@cache.command("ls")
def cache_ls(json: AsJson = False) -> None:
    """What is in the store, and how much of it known locks reach."""
    from cregraph.cli import cache as command

    command.ls(json=json)


@cache.command("gc")
def cache_gc(
    locks: Annotated[
        list[str] | None, typer.Argument(metavar="LOCK", help="Locks (or their profiles) to keep besides those known.")
    ] = None,
    older: Annotated[float, typer.Option("--older", metavar="DAYS", help="Only what nobody touched for so many days.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    keep_built: Annotated[
        bool, typer.Option("--keep-built", help="Keep what was last built of lock files that are gone.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Remove what no known lock and no running build needs."""
    from cregraph.cli import cache as command

    command.gc(locks or [], older=older, dry=dry_run, keep_built=keep_built, json=json)


@cache.command("verify")
def cache_verify(json: AsJson = False) -> None:
    """Hash everything; what is damaged is set aside and made anew next time. Exit 1 when something was."""
    from cregraph.cli import cache as command

    command.verify(json=json)


@app.command()
def doctor(
    profile: Profile = None,
    builder: Builder = None,
    context: Context = None,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Whether a build can run here: engines, store, sources, credentials; with a way out for what is not well."""
    from cregraph.cli import doctor as command

    raise typer.Exit(command.run(profile, builder=builder, context=context, sources=sources, json=json))


@app.command()
def shell(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task's name, or the beginning of its key.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="What runs in place of a shell; after `--`.")
    ] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="Whose task; cregraph.yaml when not said.")] = None,
    engine: Annotated[str, typer.Option("--engine", metavar="auto|native|docker", help="What makes the sandbox.")] = "auto",
    context: Context = None,
    jobs: Jobs = 0,
    sources: Sources = None,
) -> None:
    """Open the sandbox of a task, with all that the task sees. Ends with the status of what ran in it."""
    from cregraph.cli import shell as command_module
    from cregraph.session.session import BuildOptions

    options = BuildOptions(engine=engine, context=context, jobs=jobs, sources=sources)
    raise typer.Exit(command_module.run(task, command or [], options, profile=profile))


@app.command()
def demo(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder that is new or empty.")] = "demo",
) -> None:
    """A small project with its own little world: locked and built here, with no network, no Docker and no root."""
    from cregraph.cli import demo as command

    command.run(folder)
