"""What a build would do, thing by thing: reused, fetched or made, why, how many bytes, how many seconds. Pure.

Seconds are what was recorded: of a task itself, else of the same package at another version, else by the weight of its source;
segments, layers and downloads by what this machine was measured to do. What nothing is known of is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

from cregraph.lock.pins import Artifact
from cregraph.plan.explain.causes import Causes
from cregraph.plan.explain.forecast import Forecast, Piece, forecast
from cregraph.plan.explain.root_cause import CARRIED, Cause, Root
from cregraph.plan.layer_split import LayerPlan
from cregraph.plan.missing_work import MissingWork
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import Plan
from cregraph.store.throughput import Rate

__all__ = ["LACKING", "NEVER", "Explanation", "Group", "History", "Row", "TimeEstimate", "explain", "grouped"]

#: Why something is made that has the key it had.
LACKING = "as before, and not in the store"
#: Why, where there is nothing to compare with.
NEVER = "nothing was built here before"

_FETCHES = 6  # downloads at once, as in cregraph.build.build_run


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What is recorded. `tasks` maps keys to seconds and what they are of: `task`, `package` (another version) or `size`."""

    tasks: Mapping[str, tuple[float, str]]
    rates: Mapping[str, Rate]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One layer, segment or task.

    `what`: `reuse`; `cache`: a remote cache has it; `fetch`: made of an artifact that must be fetched first; `make`. `size` is in
    bytes: of the artifact, for a layer of what it is made of, for a task of its sources. `seconds` is None where nothing is
    known, and for what is reused; `basis` says what they are taken from (`task`, `package`, `size`, `rate`). `cause` is None
    where the key is what it was, and where there is nothing to compare with; `why` says which.
    """

    subject: Literal["task", "segment", "layer"]
    what: Literal["reuse", "cache", "fetch", "make"]
    name: str
    kind: str
    key: str
    stage: str = ""
    group: str = ""
    version: str = ""
    size: int = 0
    seconds: float | None = None
    basis: str | None = None
    cause: Cause | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeEstimate:
    """`seconds` expected with so many `jobs`, `alone` with any number. `chain` names the tasks of the longest way.

    `unknown` counts what nothing is known of; where all is unknown, `seconds` is None, else it is the least that it takes.
    """

    seconds: float | None
    alone: float
    jobs: int
    chain: tuple[str, ...] = ()
    unknown: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """All of a plan. `fetch` are the artifacts that the store lacks; `image` what differs in the config alone."""

    rows: tuple[Row, ...]
    fetch: tuple[Artifact, ...]
    time: TimeEstimate
    image: tuple[Root, ...] = ()
    gone: tuple[Root, ...] = ()

    def count(self, subject: str, *whats: str) -> int:
        """How many rows of a subject there are, of `whats` if any are named."""
        return sum(1 for row in self.rows if row.subject == subject and (not whats or row.what in whats))


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """What has one root: or, where `root` is None, one reason in words, `why`."""

    root: Root | None
    why: str
    rows: tuple[Row, ...]


def explain(
    plan: Plan,
    work: MissingWork,
    *,
    causes: Causes | None,
    past: History,
    jobs: int,
    everything: bool = False,
    cached: Set[str] = frozenset(),
) -> Explanation:
    """Every task, segment and layer of `plan`, of which the store lacks `work`. Without `causes` nothing was there before.

    Causes are given for what must be made; with `everything` also for what differs and is in the store. `cached` are keys that
    a remote cache has; `work` is what is left then.
    """
    view = _View(plan, work, causes, past, everything, cached)
    rows = [view.task(task) for task in plan.tasks]
    hidden = [s for s in plan.hidden.values() if s.key in view.segments]  # the others: nobody knows whether they will be wanted
    rows += [view.segment(each) for each in (*plan.segments.values(), *hidden)]
    rows += [view.layer(layer) for layer in plan.layers]
    found = forecast(view.pieces, {"work": jobs, "fetch": _FETCHES})
    return Explanation(
        rows=tuple(rows),
        fetch=work.artifacts,
        time=_time(found, plan.tasks, jobs=jobs, unknown=view.unknown, known=len(view.pieces) - view.unknown),
        image=causes.of_image() if causes else (),
        gone=causes.gone() if causes else (),
    )


class _View:
    """One plan and what is lacking of it; collects the pieces of its time while rows are made."""

    def __init__(
        self, plan: Plan, work: MissingWork, causes: Causes | None, past: History, everything: bool, cached: Set[str]
    ) -> None:
        self._causes, self._past, self._everything, self._cached = causes, past, everything, cached
        self._lacking = {artifact.sha256 for artifact in work.artifacts}
        self._versions = {(t.id, p.name): p.version for t in plan.lock.targets for p in t.pins}
        self._sources = {p.artifact.sha256: p.version for t in plan.lock.targets for p in t.pins}
        self.tasks = {each.key for each in work.tasks}
        self.segments = {each.key for each in work.segments}
        self.layers = {each.key for each in work.layers}
        self.pieces: list[Piece] = []
        self.unknown = 0
        for artifact in work.artifacts:
            self._timed(artifact.sha256, self._rated("artifact", artifact.size), (), "fetch")

    def task(self, task: Task) -> Row:
        """A task's row."""
        made = task.key in self.tasks
        size = sum(a.size for a in task.artifacts)
        row = Row(
            subject="task",
            what="make" if made else self._kept(task.key),
            name=task.name,
            kind=task.kind,
            key=task.key,
            stage=task.stage,
            version=next((self._sources[a.sha256] for a in task.artifacts if a.sha256 in self._sources), ""),
            size=size,
        )
        cause = self._causes.of_task(task) if self._causes and (made or self._everything) else None
        if not made:
            return replace(row, cause=cause)
        known = self._past.tasks.get(task.key) or self._rated("task", size, basis="size")
        seconds = self._timed(task.key, known, (*task.needs, *task.environment, *(a.sha256 for a in task.artifacts)))
        return self._made(row, seconds, cause)

    def segment(self, segment: Segment) -> Row:
        """A segment's row."""
        made = segment.key in self.segments
        lacking = segment.artifact is not None and segment.artifact.sha256 in self._lacking
        row = Row(
            subject="segment",
            what=self._kept(segment.key) if not made else "fetch" if lacking else "make",
            name=segment.name,
            kind=segment.kind,
            key=segment.key,
            stage=segment.stage,
            group=segment.group,
            version=self._versions.get((segment.group, segment.name), ""),
            size=segment.size,
        )
        cause = self._causes.of_segment(segment) if self._causes and (made or self._everything) else None
        if not made:
            return replace(row, cause=cause)
        needs = [segment.artifact.sha256] if segment.artifact else [segment.task_key] if segment.task_key else []
        seconds = self._timed(segment.key, self._rated("segment", segment.size), needs)
        return self._made(row, seconds, cause)

    def layer(self, layer: LayerPlan) -> Row:
        """A layer's row."""
        made = layer.key in self.layers
        size = sum(s.size for s in layer.segments)
        row = Row(
            subject="layer",
            what="make" if made else "reuse",
            name=layer.name,
            kind=layer.segments[0].kind,
            key=layer.key,
            size=size,
        )
        cause = self._causes.of_layer(layer) if self._causes and (made or self._everything) else None
        if not made:
            return replace(row, cause=cause)
        seconds = self._timed(layer.key, self._rated("layer", size), [s.key for s in layer.segments])
        return self._made(row, seconds, cause)

    def _kept(self, key: str) -> Literal["reuse", "cache"]:
        return "cache" if key in self._cached else "reuse"

    def _made(self, row: Row, known: tuple[float, str] | None, cause: Cause | None) -> Row:
        why = "" if cause else LACKING if self._causes else NEVER
        seconds, basis = known or (None, None)
        return replace(row, seconds=seconds, basis=basis, cause=cause, why=why)

    def _timed(
        self, key: str, known: tuple[float, str] | None, needs: Iterable[str], pool: str = "work"
    ) -> tuple[float, str] | None:
        self.unknown += known is None
        self.pieces.append(Piece(id=key, seconds=known[0] if known else 0.0, needs=tuple(needs), pool=pool))
        return known

    def _rated(self, subject: str, size: int, *, basis: str = "rate") -> tuple[float, str] | None:
        rate = self._past.rates.get(subject)
        return None if rate is None else (rate.seconds(size), basis)


def grouped(rows: Sequence[Row]) -> list[Group]:
    """What must be made, and what differs, by what it comes from.

    The roots that most comes from stand first, reasons without a root last. A thing with several roots stands with each of them.
    """
    by_root: dict[Root, list[Row]] = {}
    by_reason: dict[str, list[Row]] = {}
    for row in rows:
        if row.what in ("reuse", "cache") and row.cause is None:
            continue
        for root in row.cause.roots if row.cause else ():
            by_root.setdefault(root, []).append(row)
        if row.cause is None or not row.cause.roots:
            by_reason.setdefault(row.cause.near if row.cause else row.why, []).append(row)
    groups = [Group(root=root, why="", rows=tuple(listed)) for root, listed in by_root.items()]
    groups.sort(key=lambda g: (-sum(r.subject == "task" for r in g.rows), -len(g.rows), g.root.name if g.root else ""))
    last = sorted(by_reason.items(), key=lambda item: (item[0] == CARRIED, item[0]))
    return groups + [Group(root=None, why=why, rows=tuple(listed)) for why, listed in last]


def _time(found: Forecast, tasks: Sequence[Task], *, jobs: int, unknown: int, known: int) -> TimeEstimate:
    names = {task.key: task.name for task in tasks}
    chain = tuple(names[one] for one in found.chain if one in names)
    if unknown and not known:
        return TimeEstimate(seconds=None, alone=0.0, jobs=jobs, unknown=unknown)
    return TimeEstimate(seconds=found.seconds, alone=found.alone, jobs=jobs, chain=chain, unknown=unknown)
