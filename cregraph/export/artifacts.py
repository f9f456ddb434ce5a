"""The Dockerfile over cregraph's own layers: the base by digest, and `ADD --link` of the tar of each layer.

`ADD --link` unpacks a tar into its own layer and keeps modes, owners and links. `COPY --link` is not used, because it creates
parent directories with owner 0:0 and mode 0755 (docs/adr/0012-dockerfiles.md).

An image is a chain of Docker stages, one for each stage of the graph. A layer has segments of several stages (it is a bucket of
an environment), so the last of these in graph order adds it. The name of a Docker stage follows from the stage below it and its
layers. So stages of several profiles can be in one file, and the cache of a builder cannot confuse them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cregraph.build.image_build import Built
from cregraph.digest import key_of
from cregraph.engines.dockerfile import stage_name
from cregraph.errors import CregraphError
from cregraph.export.docker_text import comment, pairs
from cregraph.export.folder import MARK, Content
from cregraph.image.bases.base_image import BaseImage
from cregraph.image.model import layer as layers_of
from cregraph.image.model.layer import LayerRecord
from cregraph.image.model.reference import LayoutName, parse, parse_reference
from cregraph.image.model.segment_files import stored
from cregraph.lock.base_facts import BaseFacts
from cregraph.plan.planner import Plan
from cregraph.store import Store

__all__ = ["SUFFIX", "Base", "Chain", "DockerStage", "base_of", "chain_of", "files_of", "head", "text_of"]

#: The end of the tag of an image that another builder assembles, because its digest is not the lock's.
SUFFIX = "-docker"


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """The name of the base in a Dockerfile: the text after FROM, and for a layout on disk the value of `--build-context`."""

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
                f"the path of the base, `{project}/{name.folder}`, has a character that "
                "`docker build --build-context` cannot read",
                hint="rename the folder without @ : , and =",
            )
        called = stage_name("locked", digest.removeprefix("sha256:"))
        return Base(reference=called, context=f"{called}=oci-layout://{project}/{name.folder}@{digest}")
    raise CregraphError(
        f"{base.name} is an image of a Docker engine, which a Dockerfile cannot name by digest",
        hint="push it to a registry, or write it to an OCI layout (`skopeo copy docker-daemon:NAME oci:DIR`), "
        "and lock the new reference",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DockerStage:
    """A stage of a Dockerfile. `layers` are pairs of a name for people and a record; `key` is that of the graph's stage."""

    name: str
    on: str
    stage: str
    key: str
    layers: tuple[tuple[str, LayerRecord], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """All Docker stages of an image, lowest first. `base` is the text after its FROM, `last` the name of the image's stage."""

    plan: Plan
    base: str
    base_stage: str
    stages: tuple[DockerStage, ...]
    last: str


def layer_file(record: LayerRecord) -> str:
    return f"layers/{record.object}.tar.gz"


def chain_of(built: Built, facts: BaseFacts, store: Store, base: Base) -> Chain:
    """Return the stages of a built image."""
    plan = built.plan
    records = {key: stored(store, key, segment.name) for key, segment in plan.segments.items()}
    settled = layers_of.settle(plan.layers, records, plan.planner, store)
    rank = {stage.name: number for number, stage in enumerate(plan.lock.stages)}
    last = max(rank.values(), default=0)
    of: dict[int, list[tuple[str, LayerRecord]]] = {}
    for layer, record in zip(settled, built.layers, strict=True):
        place = max((rank.get(segment.stage, last) for segment in layer.segments), default=last)
        of.setdefault(place, []).append((layer.name, record))
    on_key = facts.digest.removeprefix("sha256:")
    base_stage = on = stage_name("base", on_key)
    stages = []
    for stage in plan.lock.stages:
        added = tuple(of.get(rank[stage.name], ()))
        key = key_of({"docker-stage": stage.name, "on": on_key, "layers": [record.digest for _, record in added]})
        made = DockerStage(name=stage_name(stage.name, key), on=on, stage=stage.name, key=plan.stages[stage.name], layers=added)
        stages.append(made)
        on, on_key = made.name, key
    # The image's own key covers the variables and labels, which the last stage alone sets.
    return Chain(
        plan=plan,
        base=base.reference,
        base_stage=base_stage,
        stages=tuple(stages),
        last=stage_name(plan.lock.identity.image, plan.key),
    )


def head(command: str, said: Iterable[str]) -> list[str]:
    """Return the first lines of the Dockerfile that `command` writes."""
    return [f"{MARK} {command}`: generated from a lock. Do not edit.", *map(comment, said)]


def text_of(chains: Sequence[Chain], lines: Iterable[str], tasks: Sequence[str] = ()) -> str:
    """Return the Dockerfile of images. Stages that they share are in it once. `lines` are its head, `tasks` text on tasks."""
    stages: dict[str, list[str]] = {}
    for one in chains:
        pin = one.plan.lock.base
        about = f"the base{f' {pin.version}' if pin.version else ''}, sha256:{pin.artifact.sha256}"
        stages.setdefault(one.base_stage, [comment(about), f"FROM {one.base} AS {one.base_stage}"])
        for stage in one.stages:
            added = [line for name, record in stage.layers for line in (comment(name), f"ADD --link {layer_file(record)} /")]
            about = f"stage {stage.stage}, key {stage.key}"
            stages.setdefault(stage.name, [comment(about), f"FROM {stage.on} AS {stage.name}", *added])
    for one in chains:
        plan, on = one.plan, one.stages[-1].name if one.stages else one.base_stage
        about = f"{plan.lock.identity.image}:{plan.tag}, key {plan.key}"
        config = [*pairs("ENV", plan.env), *pairs("LABEL", plan.labels)]
        stages.setdefault(one.last, [comment(about), f"FROM {on} AS {one.last}", *config])
    parts = [*([tasks] if tasks else []), *stages.values()]
    return "\n".join([*lines, *(line for part in parts for line in ("", *part))]) + "\n"


def files_of(chains: Sequence[Chain]) -> dict[str, Content]:
    return {layer_file(record): record.object for one in chains for stage in one.stages for _, record in stage.layers}
