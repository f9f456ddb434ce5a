"""Comparison of what two stores hold of one plan, for `cregraph build --rebuild`.

Equal keys must give equal bytes: of a task's result, a segment's object and index, a layer, the image. A difference that follows
from a differing input only names that input.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from cregraph.build.compare.finding import Finding, shown
from cregraph.build.compare.task_results import compare_results
from cregraph.build.image_build import image_digest
from cregraph.errors import CregraphError
from cregraph.image.model import layer as layers_of
from cregraph.image.model import segment as segments_of
from cregraph.image.model.segment import SegmentRecord
from cregraph.lock.diff import differing
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import Plan
from cregraph.store import Store
from cregraph.store.atomic_file import place_file
from cregraph.store.task_records import recorded_result

__all__ = ["Compared", "Difference", "compare", "seed"]

_SHOWN = 20  # paths of a segment that are listed

What = Literal["task", "segment", "layer", "image", "recorded"]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A result that differs. `one` and `two` are the digests of the first and the second build.

    Attributes:
        because: Names of the inputs that differ. If there are any, `findings` is empty.
        kept: Folder that holds both results, if they were compared.
    """

    what: What
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
    """The numbers of compared results, and the differences. Only results that both stores hold are compared."""

    counts: dict[str, int] = field(default_factory=lambda: {"tasks": 0, "segments": 0, "layers": 0, "images": 0})
    differences: list[Difference] = field(default_factory=list)


def compare(plan: Plan, first: Store, second: Store, recorded: Mapping[str, str], *, keep: Path) -> Compared:
    """Return the differences between two stores' results of `plan`, and between `first` and the `recorded` outputs.

    Both results of a task that differs are copied into a folder below `keep`.
    """
    comparison = _Comparison(plan, first, second, keep)
    comparison.compare_tasks(recorded)
    comparison.compare_segments()
    comparison.compare_layers()
    comparison.compare_images()
    return comparison.found


def seed(store: Store, into: Store, objects: Iterable[str]) -> None:
    """Copy those of `objects` that `store` holds to `into`, verified, by hard links where the file system allows."""
    for sha256 in objects:
        if not store.has(sha256) or into.has(sha256):
            continue
        with contextlib.suppress(CregraphError):  # damaged: the build that needs it downloads it again
            place_file(store.verified(sha256), into.path_of(sha256), sha256)


class _Comparison:
    """`_differing` and `_changed` are the names of tasks and segments that differ, by key."""

    def __init__(self, plan: Plan, first: Store, second: Store, keep: Path) -> None:
        self.found = Compared()
        self._plan, self._first, self._second, self._keep = plan, first, second, keep
        self._differing: dict[str, str] = {}
        self._changed: dict[str, str] = {}

    def _both(self, what: str, things: Iterable[T], read: Callable[[Store, T], R | None]) -> Iterator[tuple[T, R, R]]:
        """Yield the things whose results both stores hold, with the results, and count them."""
        for thing in things:
            one, two = read(self._first, thing), read(self._second, thing)
            if one is not None and two is not None:
                self.found.counts[what] += 1
                yield thing, one, two

    def compare_tasks(self, recorded: Mapping[str, str]) -> None:
        # A plan lists each task after those that it needs.
        for task, (one, _), (two, _) in self._both("tasks", self._plan.tasks, lambda store, t: recorded_result(store, t.key)):
            what, files = f"the result of task {task.name}", {}
            wanted = recorded.get(task.key, one)
            if wanted != one:
                if self._first.has(wanted):  # else the difference cannot be looked into
                    recorded_file = self._first.verified(wanted, "the recorded result")
                    files = {"recorded.tar": recorded_file, "here.tar": self._first.verified(one, what)}
                self._add_result("recorded", task, wanted, one, files)
            if one != two:
                because = tuple(self._differing[key] for key in task.needs if key in self._differing)
                self._differing[task.key] = task.name
                files = {"first.tar": self._first.verified(one, what), "again.tar": self._second.verified(two, what)}
                self._add_result("task", task, one, two, {} if because else files, because)

    def _add_result(
        self, what: What, task: Task, one: str, two: str, files: Mapping[str, Path], because: tuple[str, ...] = ()
    ) -> None:
        """Add a difference. The two `files`, if any, are compared, and copied into a folder by their names."""
        folder = self._keep / f"{re.sub(r'[^A-Za-z0-9._+-]', '_', task.name)[:80]}-{task.key[:12]}"
        for name, path in files.items():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).unlink(missing_ok=True)
            shutil.copyfile(path, folder / name)
        self.found.differences.append(
            Difference(
                what=what, name=task.name, key=task.key, stage=task.stage, one=one, two=two, because=because,
                findings=tuple(compare_results(*files.values())) if files else (), kept=folder if files else None,
            )
        )  # fmt: skip

    def compare_segments(self) -> None:
        segments = {**self._plan.segments, **self._plan.hidden}.values()
        for segment, one, two in self._both("segments", segments, lambda store, s: segments_of.read(store, s.key)):
            if (one.object, one.index) != (two.object, two.index):
                self._changed[segment.key] = segment.name
                if segment.task_key not in self._differing:
                    self.found.differences.append(self._segment(segment, one, two))

    def _segment(self, segment: Segment, one: SegmentRecord, two: SegmentRecord) -> Difference:
        first = {row.path: row for row in segments_of.index(self._first, one)}
        second = {row.path: row for row in segments_of.index(self._second, two)}
        findings = []
        for path, *rows in differing(first, second):
            a, b = ("is missing" if row is None else shown(repr(row)) for row in rows)
            findings.append(Finding(path=path, cause="unknown", one=a, two=b))
        return Difference(
            what="segment", name=segment.name, key=segment.key, stage=segment.stage,
            one=one.object, two=two.object, findings=tuple(findings[:_SHOWN]),
        )  # fmt: skip

    def compare_layers(self) -> None:
        for layer, one, two in self._both("layers", self._plan.layers, lambda store, each: layers_of.read(store, each.key)):
            if one.digest != two.digest and not any(segment.key in self._changed for segment in layer.segments):
                self.found.differences.append(
                    Difference(what="layer", name=layer.name, key=layer.key, one=one.digest, two=two.digest)
                )

    def compare_images(self) -> None:
        for plan, one, two in self._both("images", [self._plan], lambda store, plan: image_digest(plan, store)):
            if one != two:
                because = tuple(sorted(set(self._differing.values())))
                self.found.differences.append(
                    Difference(what="image", name=plan.tag, key=plan.key, one=one, two=two, because=because)
                )
