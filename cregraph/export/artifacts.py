"""The Dockerfile over cregraph's own layers: the base by digest, and `ADD --link` of the tar of each layer.

`ADD --link` unpacks a tar into its own layer and keeps modes, owners and links. `COPY --link` is not used, because it creates
parent directories with owner 0:0 and mode 0755 (docs/adr/0012-dockerfiles.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cregraph.build.image_build import Built
from cregraph.errors import CregraphError
from cregraph.export.docker_text import comment, stage_name
from cregraph.export.folder import MARK, Content
from cregraph.export.stages import Chain, chain, layer_file, render_base, render_image, render_stage
from cregraph.image.bases.base_image import BaseImage
from cregraph.image.model import layer as layers_of
from cregraph.image.model.reference import LayoutName, parse, parse_reference
from cregraph.image.model.segment_files import stored
from cregraph.lock.base_facts import BaseFacts
from cregraph.store import Store

__all__ = ["SUFFIX", "Base", "base_of", "chain_of", "files_of", "head", "text_of"]

#: End of the tag of an image that another builder assembles, because its digest is not the lock's.
SUFFIX = "-docker"


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """How a Dockerfile names the base: the text after FROM, and for a layout on disk the value of `--build-context`."""

    reference: str
    context: str | None = None


def base_of(base: BaseImage, source: str, project: str) -> Base:
    """Return how to name `base`, from `source`, by its digest. `project` is the path of its folder, seen from the export.

    Raise CregraphError for an image that only a Docker engine has, because no builder finds it by digest.
    """
    digest = base.manifest.digest
    if base.home is not None:
        host, repository = base.home
        return Base(reference=str(parse_reference(f"{host}/{repository}@{digest}")))
    if source.startswith("oci:"):
        name = parse(source)
        assert isinstance(name, LayoutName)
        if set(name.folder + project) & set("@:,=") or not (name.folder + project).isprintable():
            raise CregraphError(
                f"the way to the base, `{project}/{name.folder}`, has a character that "
                "`docker build --build-context` reads otherwise",
                hint="rename the folder: no @ : , or = in it",
            )
        called = stage_name("locked", digest.removeprefix("sha256:"))
        return Base(reference=called, context=f"{called}=oci-layout://{project}/{name.folder}@{digest}")
    raise CregraphError(
        f"{base.name} is an image of a Docker engine, and a Dockerfile cannot name such a one by its digest",
        hint="push it to a registry, or write it to an OCI layout (`skopeo copy docker-daemon:NAME oci:DIR`), and lock that",
    )


def chain_of(built: Built, facts: BaseFacts, store: Store, base: Base) -> Chain:
    """Return the Docker stages of a built image."""
    plan = built.plan
    records = {key: stored(store, key, segment.name) for key, segment in plan.segments.items()}
    settled = layers_of.settle(plan.layers, records, plan.planner, store)
    return chain(plan, list(zip(settled, built.layers, strict=True)), facts, base=base.reference)


def head(command: str, said: Iterable[str]) -> list[str]:
    """Return the first lines of the Dockerfile that `command` writes."""
    return [f"{MARK} {command}`: generated, and only as good as the lock that it was generated from.", *map(comment, said)]


def text_of(chains: Sequence[Chain], lines: Iterable[str], tasks: Sequence[str] = ()) -> str:
    """Return the Dockerfile of images. Stages that they share are in it once. `lines` are its head, `tasks` text on tasks."""
    out = [*lines, *(["", *tasks] if tasks else [])]
    seen: set[str] = set()
    for one in chains:
        if one.base_stage not in seen:
            seen.add(one.base_stage)
            out += ["", *render_base(one)]
        for stage in one.stages:
            if stage.name not in seen:
                seen.add(stage.name)
                out += ["", *render_stage(stage)]
    for one in chains:
        if one.last not in seen:
            seen.add(one.last)
            out += ["", *render_image(one)]
    return "\n".join(out) + "\n"


def files_of(chains: Sequence[Chain]) -> dict[str, Content]:
    """Return the layers of images, by their names in the folder."""
    return {layer_file(record): record.object for one in chains for stage in one.stages for _, record in stage.layers}
