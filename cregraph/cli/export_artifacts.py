"""`cregraph export`: an image as text for builders that take finished artifacts (`--flavor artifacts`)."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from cregraph.cli.make_image import make_image
from cregraph.cli.terminal_output import as_json, counted, megabytes, result, talk, working
from cregraph.errors import CregraphError
from cregraph.export import artifacts
from cregraph.export.artifacts import Chain
from cregraph.export.folder import Content, write_folder
from cregraph.export.task_stages import described
from cregraph.image.model.reference import check_repository, check_tag
from cregraph.session.session import Session
from cregraph.store import Store

__all__ = ["export_bake", "export_dockerfile"]


def export_dockerfile(session: Session, folder: Path, *, tasks: bool, json: bool) -> None:
    """Write a Dockerfile and its context into `folder`. With `tasks` the stages of tasks can be run."""
    chain, base = _chain(session, folder)
    name = _image_name(chain)
    context = f" --build-context {shlex.quote(base.context)}" if base.context else ""
    said = [
        f"{session.project.profile.name}: {name.removesuffix(artifacts.SUFFIX)}, key {chain.plan.key}",
        f"docker build{context} -t {name} .",
        "Another builder assembles this image, so its digest differs. Never give it the tag of the lock.",
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


def export_bake(chosen: list[Session], folder: Path, *, json: bool) -> None:
    """Write a bake file, one Dockerfile and its context for several images into `folder`."""
    from cregraph.export import bake

    stores = sorted({str(session.store.root) for session in chosen})
    if len(stores) > 1:
        raise CregraphError(
            f"these profiles have different stores: {', '.join(stores)}",
            hint="set one store for all: CREGRAPH_CACHE=DIR cregraph export …",
        )
    made = [_chain(session, folder) for session in chosen]
    targets = [
        bake.Image(target=session.project.name, name=_image_name(chain), chain=chain, context=base.context)
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
    from cregraph.engines.choice import open_layers
    from cregraph.engines.task_layers import TaskLayers
    from cregraph.export.task_stages import runnable

    root = session.build_root
    layers = TaskLayers(session.store, layers=lambda _digest: open_layers(root))
    with working("writing the inputs of tasks"):
        return runnable(chain.plan.tasks, session.store, layers, session.sources.fetch)


def _image_name(chain: Chain) -> str:
    """Return the name for an image that another builder makes."""
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
