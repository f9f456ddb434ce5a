"""The build of the image of a plan: it downloads by digest only, runs tasks without network, and chooses nothing.

Every result stays in the store by key, so an interrupted build continues where it stopped. An image is not built again if the
store holds its record and its layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cregraph.digest import is_sha256
from cregraph.errors import CregraphError
from cregraph.image.model import layer as layers_of
from cregraph.image.model import segment as segments_of
from cregraph.image.model.config import Image, compose
from cregraph.image.model.layer import LayerRecord
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact
from cregraph.plan.missing_work import Inventory, MissingWork, work_for
from cregraph.plan.parts import Task
from cregraph.plan.planner import Plan
from cregraph.store import Store
from cregraph.store.task_records import verified_result

if TYPE_CHECKING:
    from cregraph.build.build_run import Event
    from cregraph.build.failure_report import Origin
    from cregraph.engines.contract import Engine

__all__ = ["Built", "build", "finished", "image_digest", "inventory", "missing_work"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """An image whose layers are in the store. `made` counts new artifacts, segments, tasks and layers."""

    plan: Plan
    image: Image
    layers: tuple[LayerRecord, ...]
    made: dict[str, int] = field(default_factory=dict)


def missing_work(plan: Plan, store: Store) -> MissingWork:
    """Return what `store` lacks of the image of `plan`; nothing if the image was built and its layers are there."""
    if _finished(plan, store) is not None:
        return MissingWork()
    layers = [layer for layer in plan.layers if layers_of.read(store, layer.key) is None]
    return work_for(plan, inventory(store), layers=layers, segments=plan.segments.values())


def inventory(store: Store) -> Inventory:
    """Return what `store` holds. Results of tasks are verified; segments and artifacts are only looked up."""
    return Inventory(
        segment=lambda key: segments_of.read(store, key) is not None,
        result=lambda key: verified_result(store, key) is not None,
        artifact=store.has,
    )


def build(
    plan: Plan,
    facts: BaseFacts,
    *,
    store: Store,
    fetch: Callable[[Artifact], Path],
    engine: Callable[[], Engine],
    jobs: int = 2,
    keep_going: bool = False,
    on_event: Callable[[Event], None] = lambda _event: None,
    recorded: Mapping[str, str] | None = None,
    origin: Callable[[Task], Origin] | None = None,
) -> Built:
    """Build the image of `plan` and return it. Its own layers are then in `store`; see `BuildRun` for the arguments.

    Raises:
        CregraphError: A job failed, or the image has another digest than before for its key. Complete results are kept.
        Refused: A task gave another result than `recorded` names.
    """
    from cregraph.build.build_run import BuildRun, Event

    before = finished(plan, facts, store)
    if before is not None:
        return before
    work = missing_work(plan, store)
    run = BuildRun(
        plan=plan, facts=facts, work=work, store=store, fetch=fetch, engine=engine, on_event=on_event, recorded=recorded or {}
    )
    run.origin = origin or run.origin
    run.run(jobs=jobs, keep_going=keep_going)
    layers = [(each.name, run.layers[each.key]) for each in run.settled]
    work_done = {"artifacts": work.artifacts, "segments": work.segments, "tasks": work.tasks, "layers": run.fresh}
    built = _built(plan, facts, layers, {what: len(done) for what, done in work_done.items()})
    image = built.image
    known = image_digest(plan, store)
    if known not in (None, image.digest):
        raise CregraphError(
            f"the image of key {plan.key[:12]} was {known} before and is {image.digest} now; cregraph does not publish it",
            hint="report it: a task gave other bytes than before. Another store ($CREGRAPH_CACHE) makes everything again",
        )
    record = {"digest": image.digest, "layers": [[name, layer.key] for name, layer in layers]}
    store.put_record("images", plan.key, record)
    on_event(Event(what="made", subject="image", name=image.digest))
    return built


def finished(plan: Plan, facts: BaseFacts, store: Store) -> Built | None:
    """Return the image of `plan` if it was built before and its layers are in the store, else None."""
    layers = _finished(plan, store)
    built = (
        None if layers is None else _built(plan, facts, layers, dict.fromkeys(("artifacts", "segments", "tasks", "layers"), 0))
    )
    return built if built is not None and built.image.digest == image_digest(plan, store) else None


def image_digest(plan: Plan, store: Store) -> str | None:
    """Return the digest (`sha256:…`) that `store` records for the image key of `plan`, or None."""
    found = store.fields("images", plan.key).get("digest")
    return found if isinstance(found, str) and is_sha256(found.removeprefix("sha256:")) else None


def _built(plan: Plan, facts: BaseFacts, layers: Sequence[tuple[str, LayerRecord]], made: dict[str, int]) -> Built:
    image = compose(facts, layers, env=plan.env, labels=plan.labels)
    return Built(plan=plan, image=image, layers=tuple(record for _, record in layers), made=made)


def _finished(plan: Plan, store: Store) -> list[tuple[str, LayerRecord]] | None:
    """Return the layers of the image with their names, if it was built before and all of them are in the store."""
    listed = store.fields("images", plan.key).get("layers")
    if not isinstance(listed, list):
        return None
    found = []
    for item in listed:
        named = isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and is_sha256(item[1])
        layer = layers_of.read(store, item[1]) if named else None
        if layer is None:
            return None
        found.append((item[0], layer))
    return found
