"""Two stores that should hold the same of one plan: what differs, and why. `cregraph build --rebuild` asks it.

Keys name what must be equal: a task's result, a segment's object and index, a layer, the image. Something that differs because an
input of it differs is named once, with that input.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cregraph.build.compare.finding import Finding, shown
from cregraph.build.compare.task_results import differing_tars
from cregraph.errors import CregraphError
from cregraph.image.model import layer as layers_of
from cregraph.image.model import segment as segments_of
from cregraph.image.model.segment import SegmentRecord
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import Plan
from cregraph.store import Store
from cregraph.store.task_records import task_results

__all__ = ["Compared", "Difference", "compare", "seed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One thing that came out differently. `one` and `two` are digests: before, and made again.

    `because` names what else differs and is an input of it: then there are no `findings`. `kept` is a folder with both results.
    """

    what: Literal["task", "segment", "layer", "image", "recorded"]
    name: str
    key: str
    one: str
    two: str
    stage: str = ""
    because: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    kept: Path | None = None


@dataclass(kw_only=True, slots=True)
class Compared:
    """How many of each were compared, and what differs. A thing that only one of the stores holds is not compared."""

    counts: dict[str, int] = field(default_factory=lambda: {"tasks": 0, "segments": 0, "layers": 0, "images": 0})
    differences: list[Difference] = field(default_factory=list)


def compare(plan: Plan, first: Store, second: Store, recorded: Mapping[str, str], *, keep: Path) -> Compared:
    """What differs between what `first` and `second` hold of `plan`; and between `first` and the `recorded` outputs.

    Both results of a task that differs are copied into a folder below `keep`.
    """
    found = Compared()
    before, again = task_results(plan.tasks, first), task_results(plan.tasks, second)
    differing: dict[str, str] = {}
    for task in _ordered(plan.tasks):
        if task.key not in before or task.key not in again:
            continue
        found.counts["tasks"] += 1
        one, two = before[task.key][0], again[task.key][0]
        wanted = recorded.get(task.key, one)
        if wanted != one:
            found.differences.append(_recorded(task, wanted, one, first, keep))
        if one != two:
            because = tuple(differing[key] for key in task.needs if key in differing)
            differing[task.key] = task.name
            found.differences.append(_task(task, one, two, first, second, because, keep))
    objects = {differing[key] for key in differing}
    changed: dict[str, str] = {}
    for segment in {**plan.segments, **plan.hidden}.values():
        mine, theirs = segments_of.read(first, segment.key), segments_of.read(second, segment.key)
        if mine is None or theirs is None:
            continue
        found.counts["segments"] += 1
        if (mine.object, mine.index) != (theirs.object, theirs.index):
            changed[segment.key] = segment.name
            if segment.task_key not in differing:
                found.differences.append(_segment(segment, mine, theirs, first, second))
    for layer in plan.layers:
        mine_, theirs_ = layers_of.read(first, layer.key), layers_of.read(second, layer.key)
        if mine_ is None or theirs_ is None:
            continue
        found.counts["layers"] += 1
        if mine_.digest != theirs_.digest and not any(each.key in changed for each in layer.segments):
            found.differences.append(
                Difference(what="layer", name=layer.name, key=layer.key, one=mine_.digest, two=theirs_.digest)
            )
    images = [_image(store, plan.key) for store in (first, second)]
    if images[0] and images[1]:
        found.counts["images"] += 1
        if images[0] != images[1]:
            found.differences.append(
                Difference(
                    what="image", name=plan.tag, key=plan.key, one=images[0], two=images[1], because=tuple(sorted(objects))
                )
            )
    return found


def seed(store: Store, into: Store, objects: Iterable[str]) -> None:
    """Give `into` those of `objects` that `store` has, verified, without copying where the file system allows."""
    for sha256 in objects:
        if not store.has(sha256) or into.has(sha256):
            continue
        try:
            source, place = store.verified(sha256), into.path_of(sha256)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, place)
            except OSError:
                shutil.copyfile(source, place)
        except CregraphError:
            continue  # damaged: fetched anew by whoever needs it


def _ordered(tasks: Iterable[Task]) -> list[Task]:
    """Each after what it needs."""
    import graphlib

    by_key = {task.key: task for task in tasks}
    order = graphlib.TopologicalSorter({key: [n for n in task.needs if n in by_key] for key, task in by_key.items()})
    return [by_key[key] for key in order.static_order()]


def _task(task: Task, one: str, two: str, first: Store, second: Store, because: tuple[str, ...], keep: Path) -> Difference:
    findings: tuple[Finding, ...] = ()
    folder = None
    if not because:
        paths = first.verified(one, f"the result of task {task.name}"), second.verified(two, f"the result of task {task.name}")
        findings = tuple(differing_tars(*paths))
        folder = _both(task, {"first.tar": paths[0], "again.tar": paths[1]}, keep)
    return Difference(
        what="task",
        name=task.name,
        key=task.key,
        stage=task.stage,
        one=one,
        two=two,
        because=because,
        findings=findings,
        kept=folder,
    )


def _recorded(task: Task, wanted: str, found: str, store: Store, keep: Path) -> Difference:
    """What is recorded against what this store holds: looked into where the recorded result is at hand."""
    findings: tuple[Finding, ...] = ()
    folder = None
    if store.has(wanted):
        paths = store.verified(wanted, "the recorded result"), store.verified(found, f"the result of task {task.name}")
        findings = tuple(differing_tars(*paths))
        folder = _both(task, {"recorded.tar": paths[0], "here.tar": paths[1]}, keep)
    return Difference(
        what="recorded", name=task.name, key=task.key, stage=task.stage, one=wanted, two=found, findings=findings, kept=folder
    )


def _both(task: Task, files: Mapping[str, Path], keep: Path) -> Path:
    folder = keep / f"{re.sub(r'[^A-Za-z0-9._+-]', '_', task.name)[:80]}-{task.key[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        place = folder / name
        place.unlink(missing_ok=True)
        shutil.copyfile(path, place)
    return folder


def _segment(segment: Segment, one: SegmentRecord, two: SegmentRecord, first: Store, second: Store) -> Difference:
    rows = [{row.path: row for row in segments_of.index(store, record)} for store, record in ((first, one), (second, two))]
    findings = []
    for path in sorted(rows[0].keys() | rows[1].keys()):
        mine, theirs = rows[0].get(path), rows[1].get(path)
        if mine != theirs:
            a, b = ("is not there" if row is None else shown(repr(row)) for row in (mine, theirs))
            findings.append(Finding(path=path, cause="unknown", one=a, two=b))
    return Difference(
        what="segment",
        name=segment.name,
        key=segment.key,
        stage=segment.stage,
        one=one.object,
        two=two.object,
        findings=tuple(findings[:20]),
    )


def _image(store: Store, key: str) -> str | None:
    record = store.record("images", key)
    found = record.get("digest") if isinstance(record, dict) else None
    return found if isinstance(found, str) else None
