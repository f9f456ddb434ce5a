"""Build: what a plan names, made. Fetches by digest only, runs tasks without network, chooses nothing.

What is made is left in the store by key, so an interrupted build goes on where it stopped. An image whose record is there and
whose layers are whole is not made again.
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
from cregraph.plan.missing_work import Event, MissingWork
from cregraph.plan.parts import Task
from cregraph.plan.planner import Plan
from cregraph.store import Store

if TYPE_CHECKING:
    from cregraph.engines.contract import Engine

__all__ = ["Built", "Event", "MissingWork", "build", "finished", "gave", "pending"]

_COUNTED = ("artifacts", "segments", "tasks", "layers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """An image whose layers are in the store. `made` counts what was not there before."""

    plan: Plan
    image: Image
    layers: tuple[LayerRecord, ...]
    made: dict[str, int] = field(default_factory=dict)


def pending(plan: Plan, store: Store) -> MissingWork:
    """What the store lacks of `plan`."""
    from cregraph.engines.run import kept

    if _finished(plan, store) is not None:
        return MissingWork()
    missing_layers = tuple(layer for layer in plan.layers if layers_of.read(store, layer.key) is None)
    segments = [s for s in plan.segments.values() if segments_of.read(store, s.key) is None]
    by_key = {task.key: task for task in plan.tasks}
    wanted: dict[str, Task] = {}
    todo = [s.task_key for s in segments if s.task_key]
    while todo:
        key = todo.pop()
        if key in wanted:
            continue
        if kept(store, key) is None:
            wanted[key] = by_key[key]
            todo.extend(by_key[key].needs)
    everything = {**plan.segments, **plan.hidden}
    beneath = {key for task in wanted.values() for key in task.environment}
    beneath -= {segment.key for segment in segments}
    segments += [everything[key] for key in sorted(beneath) if segments_of.read(store, key) is None]
    artifacts = {s.artifact.sha256: s.artifact for s in segments if s.artifact}
    artifacts |= {a.sha256: a for task in wanted.values() for a in task.artifacts}
    lacking = tuple(a for a in artifacts.values() if not store.has(a.sha256))
    ordered = tuple(task for task in plan.tasks if task.key in wanted)
    return MissingWork(layers=missing_layers, segments=tuple(segments), tasks=ordered, artifacts=lacking)


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
) -> Built:
    """The image of `plan`, its own layers in the store.

    `fetch` gives an artifact's verified file; `engine` is asked for only when a task must run. Events come from the calling
    thread. `recorded` is the sha256 that tasks gave elsewhere, by key (`Outputs.expected`): another result is Refused.
    Raises CregraphError; what is complete is kept.
    """
    from cregraph.build.build_run import Making

    before = finished(plan, facts, store)
    if before is not None:
        return before
    work = pending(plan, store)
    making = Making(
        plan=plan, facts=facts, work=work, store=store, fetch=fetch, engine=engine, on_event=on_event, recorded=recorded or {}
    )
    making.run(jobs=jobs, keep_going=keep_going)
    layers = [(each.name, making.layers[each.key]) for each in making.settled]
    image = _image(plan, facts, layers)
    known = _digest_before(plan, store)
    if known not in (None, image.digest):
        raise CregraphError(
            f"the image of key {plan.key[:12]} was {known} before and is {image.digest} now; nothing is published",
            hint="a task gave other bytes than before: please report it; with another store ($CREGRAPH_CACHE) all is made anew",
        )
    record = {"digest": image.digest, "layers": [[name, layer.key] for name, layer in layers]}
    store.put_record("images", plan.key, record)
    on_event(Event(what="made", subject="image", name=image.digest))
    counts = (len(work.artifacts), len(work.segments), len(work.tasks), len(making.fresh))
    return Built(plan=plan, image=image, layers=_records(layers), made=dict(zip(_COUNTED, counts, strict=True)))


def finished(plan: Plan, facts: BaseFacts, store: Store) -> Built | None:
    """The image of `plan` where it was made before and its layers are in the store: then there is nothing to do."""
    layers = _finished(plan, store)
    if layers is None:
        return None
    image = _image(plan, facts, layers)
    if image.digest != _digest_before(plan, store):
        return None
    return Built(plan=plan, image=image, layers=_records(layers), made=dict.fromkeys(_COUNTED, 0))


def gave(plan: Plan, store: Store) -> dict[str, tuple[str, int]]:
    """What each task of `plan` gave, as far as `store` knows: sha256 and size of the result by key. The bytes are not read."""
    found = {}
    for task in plan.tasks:
        record = store.record("tasks", task.key)
        if isinstance(record, dict) and is_sha256(record.get("sha256")) and type(record.get("size")) is int:
            found[task.key] = (record["sha256"], record["size"])
    return found


def _image(plan: Plan, facts: BaseFacts, layers: Sequence[tuple[str, LayerRecord]]) -> Image:
    return compose(facts, layers, env=plan.env, labels=plan.labels)


def _records(layers: Sequence[tuple[str, LayerRecord]]) -> tuple[LayerRecord, ...]:
    return tuple(record for _, record in layers)


def _finished(plan: Plan, store: Store) -> list[tuple[str, LayerRecord]] | None:
    """The layers of the image with their names, when it was made before and all of them are here."""
    record = store.record("images", plan.key)
    listed = record.get("layers") if isinstance(record, dict) else None
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


def _digest_before(plan: Plan, store: Store) -> str | None:
    """The digest that the image had; None when it was not made here."""
    record = store.record("images", plan.key)
    found = record.get("digest") if isinstance(record, dict) else None
    return found if isinstance(found, str) and is_sha256(found.removeprefix("sha256:")) else None
