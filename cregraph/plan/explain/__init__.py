"""Explanation of a plan: is each task, segment and layer reused, fetched or made, why, its bytes and seconds. Pure.

Seconds of a task come from a record of the task, else of another version of the package, else from the size of its source.
Those of segments, layers and downloads come from rates that were measured on this machine. Without a record they are unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
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

#: Why something with an unchanged key is made.
LACKING = "unchanged, but not in the store"
#: Why something is made if there is no earlier plan.
NEVER = "nothing was built here before"

_FETCHES = 6  # downloads at once, as in cregraph.build.build_run


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """Recorded times. `tasks` maps task keys to seconds and their basis: `task`, `package` (another version) or `size`."""

    tasks: Mapping[str, tuple[float, str]]
    rates: Mapping[str, Rate]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One layer, segment or task.

    Attributes:
        what: "reuse"; "cache" if a remote cache has it; "fetch" if it is made of an artifact to download; "make".
        size: Bytes of a segment's artifact, a layer's segments or a task's sources.
        seconds: None if unknown or reused. `basis` names the record: "task", "package", "size" or "rate".
        cause: None if the key is unchanged or there is no earlier plan; then `why` says which.
    """

    subject: Literal["task", "segment", "layer"]
    name: str
    kind: str
    key: str
    what: Literal["reuse", "cache", "fetch", "make"] = "make"
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
    """The time that a build takes.

    Attributes:
        seconds: With `jobs` at a time. None if every time is unknown; a lower bound if `unknown` of them are.
        alone: With any number of jobs.
        chain: Names of the tasks on the critical path.
    """

    seconds: float | None
    alone: float
    jobs: int
    chain: tuple[str, ...] = ()
    unknown: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """A whole plan explained. `fetch` are the artifacts to download, `image` what differs in the config only."""

    rows: tuple[Row, ...]
    fetch: tuple[Artifact, ...]
    time: TimeEstimate
    image: tuple[Root, ...] = ()
    gone: tuple[Root, ...] = ()

    def count(self, subject: str, *whats: str) -> int:
        """Return the number of rows of a subject; only those with one of `whats` if any are given."""
        return sum(1 for row in self.rows if row.subject == subject and (not whats or row.what in whats))


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Rows with one root. If `root` is None, they have the reason `why` instead."""

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
    """Return every task, segment and layer of `plan` with what happens to it.

    Args:
        work: What store and remote cache lack.
        causes: The comparison with an earlier plan; None without an earlier plan.
        everything: Give causes also for rows that differ and need not be made.
        cached: Keys that the remote cache has.
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
    """Makes the rows of one plan and collects what its time consists of."""

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
        size = sum(a.size for a in task.artifacts)
        version = next((self._sources[a.sha256] for a in task.artifacts if a.sha256 in self._sources), "")
        row = Row(subject="task", name=task.name, kind=task.kind, key=task.key, stage=task.stage, version=version, size=size)
        known = self._past.tasks.get(task.key) or self._rated("task", size, basis="size")
        needs = (*task.needs, *task.environment, *(a.sha256 for a in task.artifacts))
        return self._row(row, task.key in self.tasks, lambda causes: causes.of_task(task), known, needs)

    def segment(self, segment: Segment) -> Row:
        needs = [segment.artifact.sha256] if segment.artifact else [segment.task_key] if segment.task_key else []
        row = Row(
            subject="segment",
            what="fetch" if self._lacking.intersection(needs) else "make",
            name=segment.name,
            kind=segment.kind,
            key=segment.key,
            stage=segment.stage,
            group=segment.group,
            version=self._versions.get((segment.group, segment.name), ""),
            size=segment.size,
        )
        known = self._rated("segment", segment.size)
        return self._row(row, segment.key in self.segments, lambda causes: causes.of_segment(segment), known, needs)

    def layer(self, layer: LayerPlan) -> Row:
        size, needs = sum(s.size for s in layer.segments), [s.key for s in layer.segments]
        row = Row(subject="layer", name=layer.name, kind=layer.segments[0].kind, key=layer.key, size=size)
        return self._row(row, layer.key in self.layers, lambda causes: causes.of_layer(layer), self._rated("layer", size), needs)

    def _row(
        self,
        row: Row,
        made: bool,
        cause_of: Callable[[Causes], Cause | None],
        known: tuple[float, str] | None,
        needs: Iterable[str],
    ) -> Row:
        cause = cause_of(self._causes) if self._causes and (made or self._everything) else None
        if not made:
            return replace(row, what="cache" if row.key in self._cached else "reuse", cause=cause)
        seconds, basis = self._timed(row.key, known, needs) or (None, None)
        return replace(row, seconds=seconds, basis=basis, cause=cause, why="" if cause else LACKING if self._causes else NEVER)

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
    """Return the rows that are made or differ, by root. A row with several roots is in each of their groups.

    The root with the most tasks comes first; reasons without a root come last.
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
