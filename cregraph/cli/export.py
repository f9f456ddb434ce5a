"""`cregraph export`: an image as text for other builders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cregraph.cli.options import All, AsJson, Engine, Jobs, Profiles, Sources, sessions
from cregraph.errors import CregraphError, did_you_mean
from cregraph.session.session import BuildOptions

FORMATS = ("bake", "dockerfile")
FLAVORS = ("artifacts", "image-builder")
_ALONE = "export each profile alone: `cregraph export dockerfile PROFILE`"
_FLAVOR = "artifacts: for any builder. image-builder: for Snowflake's builder. [default: artifacts]"


def export(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="dockerfile: one profile. bake: one or more profiles.")],
    profiles: Profiles = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="Write into DIR: a new or empty folder, or an export.")
    ] = "",
    flavor: Annotated[str, typer.Option("--flavor", metavar="NAME", help=_FLAVOR)] = "artifacts",
    budget: Annotated[
        int,
        typer.Option("--context-budget", metavar="MB", min=1, help="Largest context of image-builder. [default: 20]"),
    ] = 20,
    with_tasks: Annotated[
        bool, typer.Option("--with-tasks", help="Write tasks as stages that run, with their inputs. Otherwise they are comments.")
    ] = False,
    every: All = False,
    engine: Engine = "auto",
    jobs: Jobs = 0,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Write the image as a Dockerfile or as a bake file."""
    if not output:
        raise CregraphError("missing option `--output`", hint="add `--output DIR` with a new or empty folder")
    from cregraph.export.folder import is_free

    is_free(Path(output))
    _known("FORMAT", format, FORMATS)
    _known("--flavor", flavor, FLAVORS)
    chosen = sessions(profiles, BuildOptions(engine=engine, jobs=jobs, sources=sources), every=every)
    if format == "bake":
        if flavor != "artifacts":
            raise CregraphError("`export bake` does not support `--flavor image-builder`", hint=_ALONE)
        if with_tasks:
            raise CregraphError("`export bake` does not support `--with-tasks`", hint=_ALONE)
        from cregraph.cli.export_artifacts import export_bake

        export_bake(chosen, Path(output), json=json)
        return
    if len(chosen) != 1:
        raise CregraphError(
            f"`export dockerfile` takes one profile ({len(chosen)} are named)",
            hint="use `cregraph export bake` for several profiles",
        )
    if flavor == "image-builder":
        if with_tasks:
            raise CregraphError("`--flavor image-builder` always includes tasks", hint="remove `--with-tasks`")
        from cregraph.cli.export_image_builder import export_image_builder

        export_image_builder(chosen[0], Path(output), budget=budget, json=json)
        return
    from cregraph.cli.export_artifacts import export_dockerfile

    export_dockerfile(chosen[0], Path(output), tasks=with_tasks, json=json)


def _known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise CregraphError(f"unknown {what} `{name}` (expected {' or '.join(known)})", hint=did_you_mean(name, known))
