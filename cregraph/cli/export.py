"""`cregraph export`: an image as text for other builders."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

import typer

from cregraph.cli.make_image import make_image
from cregraph.cli.options import All, AsJson, Engine, Jobs, Profiles, Sources, sessions
from cregraph.cli.say import as_json, counted, megabytes, result, talk, working
from cregraph.errors import CregraphError, nearest
from cregraph.export import artifacts
from cregraph.export.folder import Content, write_folder
from cregraph.export.stages import Chain
from cregraph.export.task_stages import described
from cregraph.formats.inflate import blocks_as_file, inflated
from cregraph.image.model.reference import check_repository, check_tag
from cregraph.session.session import BuildOptions, Session
from cregraph.store import Store

FORMATS = ("bake", "dockerfile")
FLAVORS = ("artifacts", "image-builder")


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
    if not output:
        raise CregraphError("`--output` is missing: the folder to write into", hint="--output DIR, new or empty")
    _known("FORMAT", format, FORMATS)
    _known("--flavor", flavor, FLAVORS)
    chosen = sessions(profiles, BuildOptions(engine=engine, jobs=jobs, sources=sources), every=every)
    if format == "bake":
        if flavor != "artifacts":
            raise CregraphError("`--flavor image-builder` goes with `export dockerfile`: that builder makes one image at a time")
        if with_tasks:
            raise CregraphError("`--with-tasks` goes with `export dockerfile`", hint="export one of the profiles alone")
        _bake(chosen, Path(output), json=json)
        return
    if len(chosen) != 1:
        raise CregraphError(
            "a Dockerfile is of one profile, and several are named",
            hint="`cregraph export bake` writes several profiles together",
        )
    if flavor == "image-builder":
        if with_tasks:
            raise CregraphError("`--with-tasks` goes with `--flavor artifacts`: the other flavor always has its tasks in it")
        from cregraph.cli.export_builder import run as for_builder

        for_builder(chosen[0], Path(output), budget=budget, json=json)
        return
    _dockerfile(chosen[0], Path(output), tasks=with_tasks, json=json)


def _known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        meant = nearest(name, known)
        raise CregraphError(
            f"`{what}`: there is no `{name}`", hint=f"did you mean `{meant}`?" if meant else f"there are: {', '.join(known)}"
        )


def _dockerfile(session: Session, folder: Path, *, tasks: bool, json: bool) -> None:
    chain, base = _chain(session, folder)
    name = image_name(chain)
    context = f" --build-context {shlex.quote(base.context)}" if base.context else ""
    said = [
        f"{session.project.profile.name}: {name.removesuffix(artifacts.SUFFIX)}, key {chain.plan.key}",
        f"docker build{context} -t {name} .",
        "Another builder puts this image together, so its digest is not the lock's: never give it the lock's tag.",
    ]
    store = session.store
    lines, more = _runnable(session, chain) if tasks else (_described([chain], store), {})
    text = artifacts.text_of([chain], artifacts.head("dockerfile", said), lines)
    files: dict[str, Content] = {**artifacts.files_of([chain]), **more, "Dockerfile": text.encode()}
    write_folder(folder, files, fixed=("Dockerfile",), store=store)
    _told(
        folder,
        files,
        store,
        json=json,
        image=name,
        command=f"cd {shlex.quote(str(folder))} && docker build{context} -t {name} .",
    )


def _bake(chosen: list[Session], folder: Path, *, json: bool) -> None:
    from cregraph.export import bake

    stores = sorted({str(session.store.root) for session in chosen})
    if len(stores) > 1:
        raise CregraphError(
            f"these profiles have different stores: {', '.join(stores)}",
            hint="name one for all: CREGRAPH_CACHE=DIR cregraph export …",
        )
    made = [_chain(session, folder) for session in chosen]
    targets = [
        bake.Image(target=session.project.name, name=image_name(chain), chain=chain, context=base.context)
        for session, (chain, base) in zip(chosen, made, strict=True)
    ]
    files = bake.files_of(targets, _described([chain for chain, _ in made], chosen[0].store))
    write_folder(folder, files, fixed=("Dockerfile", bake.FILE), store=chosen[0].store)
    shared = sum(len(chain.stages) for chain, _ in made) - len({stage.name for chain, _ in made for stage in chain.stages})
    talk(f"{counted(len(made), 'image')}; {counted(shared, 'stage')} of {sum(len(c.stages) for c, _ in made)} shared")
    command = f"cd {shlex.quote(str(folder))} && docker buildx bake"
    _told(folder, files, chosen[0].store, json=json, images=[target.name for target in targets], command=command)


def _chain(session: Session, folder: Path) -> tuple[Chain, artifacts.Base]:
    built = make_image(session)
    way = os.path.relpath(session.project.folder.resolve(), folder.resolve())  # so that no path of this machine is written
    named = artifacts.base_of(session.base, session.lock.base.artifact.source, way)
    return artifacts.chain_of(built, session.facts, session.store, named), named


def _described(chains: list[Chain], store: Store) -> list[str]:
    by_key = {task.key: task for chain in chains for task in chain.plan.tasks}
    return [line for task in by_key.values() for line in described(task, store)]


def _runnable(session: Session, chain: Chain) -> tuple[list[str], dict[str, Content]]:
    from cregraph.engines.task_layers import TaskLayers
    from cregraph.export.task_stages import runnable

    store, root = session.store, session.build_root

    def layers(_digest: str) -> Iterator[IO[bytes]]:
        for layer in root.manifest.layers:
            yield blocks_as_file(inflated(root.open_layer(layer), what=f"a layer of {root.name}"))

    with working("the tars that tasks see"):
        return runnable(chain.plan.tasks, store, TaskLayers(store, layers=layers), session.sources.fetch)


def image_name(chain: Chain) -> str:
    """The name for an image that another builder makes."""
    name = chain.plan.lock.identity.image.lower()
    check_repository(name, where="cre.image")
    tag = f"{chain.plan.tag}{artifacts.SUFFIX}"
    check_tag(tag, where="cre.version_label")
    return f"{name}:{tag}"


def _told(folder: Path, files: dict[str, Content], store: Store, *, json: bool, command: str, **more: object) -> None:
    size = sum(len(c) if isinstance(c, bytes) else store.path_of(c).stat().st_size for c in files.values())
    talk(f"{counted(len(files), 'file')}, {megabytes(size)}, in {folder}")
    if json:
        as_json({**more, "folder": str(folder), "files": sorted(files), "bytes": size, "command": command})
    else:
        result(command)
