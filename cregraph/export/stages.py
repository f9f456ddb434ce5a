"""An image as a chain of Docker stages, one for each stage of the graph. Each adds layers that exist already.

A layer has segments of several stages (it is a bucket of an environment), so the last of these in graph order adds it. The name
of a Docker stage follows from the stage below it and its layers. So stages of several profiles can be in one file, and the cache
of a builder cannot confuse them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cregraph.digest import key_of
from cregraph.export.docker_text import comment, pairs, stage_name
from cregraph.image.model.layer import LayerRecord
from cregraph.lock.base_facts import BaseFacts
from cregraph.plan.layer_split import LayerPlan
from cregraph.plan.planner import Plan

__all__ = ["Chain", "DockerStage", "chain", "layer_file", "render_base", "render_image", "render_stage"]


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
    """Return the path of a layer in the folder of the Dockerfile."""
    return f"layers/{record.object}.tar.gz"


def chain(plan: Plan, layers: Sequence[tuple[LayerPlan, LayerRecord]], facts: BaseFacts, *, base: str) -> Chain:
    """Return the stages of the image of `plan`. `layers` are its settled layers and their records; `base` follows FROM."""
    rank = {stage.name: number for number, stage in enumerate(plan.lock.stages)}
    last = max(rank.values(), default=0)
    of: dict[int, list[tuple[str, LayerRecord]]] = {}
    for layer, record in layers:
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
        base=base,
        base_stage=base_stage,
        stages=tuple(stages),
        last=stage_name(plan.lock.identity.image, plan.key),
    )


def render_base(chain: Chain) -> list[str]:
    """Return the lines of the base."""
    pin = chain.plan.lock.base
    version = f" {pin.version}" if pin.version else ""
    return [comment(f"the base{version}, sha256:{pin.artifact.sha256}"), f"FROM {chain.base} AS {chain.base_stage}"]


def render_stage(stage: DockerStage) -> list[str]:
    """Return the lines of a stage."""
    lines = [comment(f"stage {stage.stage}, key {stage.key}"), f"FROM {stage.on} AS {stage.name}"]
    for name, record in stage.layers:
        lines += [comment(name), f"ADD --link {layer_file(record)} /"]
    return lines


def render_image(chain: Chain, *, labels: Mapping[str, str] | None = None) -> list[str]:
    """Return the lines of the image: variables and labels."""
    on = chain.stages[-1].name if chain.stages else chain.base_stage
    plan = chain.plan
    return [
        comment(f"{plan.lock.identity.image}:{plan.tag}, key {plan.key}"),
        f"FROM {on} AS {chain.last}",
        *pairs("ENV", plan.env),
        *pairs("LABEL", labels or plan.labels),
    ]
