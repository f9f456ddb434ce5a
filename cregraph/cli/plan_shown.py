"""What `cregraph plan` shows: the answer as lines, and whole for a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cregraph.cli.say import counted, megabytes, seconds
from cregraph.image.media.registry_state import Remote
from cregraph.plan.explain import Explanation, Group, Row, TimeEstimate, grouped
from cregraph.plan.explain.root_cause import Root, told, words
from cregraph.plan.missing_work import MissingWork
from cregraph.plan.planner import Plan
from cregraph.text import printable

__all__ = ["Before", "CacheOffer", "Moves", "as_text", "whole"]

_GROUPS = 12  # causes that the short answer shows
_NAMES = 4  # names of tasks that a cause shows
_DISTRUSTED = "; it is not trusted: only results that the lock's outputs name"
_SUBJECTS = ("task", "segment", "layer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """What is compared with: `what` in words. `plan` is None where it can not be made any more."""

    what: str
    plan: Plan | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Moves:
    """Bytes that a push to `place` would move, as this machine knows: `push` in `layers` of ours, of that `unmade` in layers that
    are not made yet, so about; of the base `mount` and `stream`.

    `base` in `base_layers`: what an image on disk or in an engine would fetch of the base; `root`: what tasks would fetch of
    the image that they run over.
    """

    place: str | None
    push: int
    layers: int
    unmade: int
    mount: int
    stream: int
    base: int
    base_layers: int
    root: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheOffer:
    """What a remote cache would give: counts, bytes, their `keys`; and what is left to do then. `unreachable`: why it is out."""

    name: str
    trusted: bool
    tasks: int
    segments: int
    size: int
    unreachable: str
    keys: frozenset[str]
    left: MissingWork


def as_text(
    plan: Plan,
    view: Explanation,
    moves: Moves,
    before: Before | None,
    remote: Remote | None,
    cached: CacheOffer | None = None,
    *,
    full: bool,
) -> Iterator[str]:
    """The answer as lines: counts and causes; with `full` a line for everything."""
    yield f"{plan.lock.identity.image}:{plan.tag}"
    layers, segments, tasks = (view.count(subject, "fetch", "make") for subject in ("layer", "segment", "task"))
    names = _names([row.name for row in view.rows if row.subject == "task" and row.what == "make"], most=8)
    held = f"or in {cached.name}" if cached and cached.keys else ""
    yield f"  layers    {_of(layers, view.count('layer'), 'to make')}"
    yield f"  segments  {_of(segments, view.count('segment'), 'to make', held)}"
    yield f"  tasks     {_of(tasks, view.count('task'), 'to run', held)}" + (f": {names}" if names else "")
    root = f", and {megabytes(moves.root)} of the image that tasks run over" if moves.root else ""
    files = f"{counted(len(view.fetch), 'file')}, {megabytes(sum(a.size for a in view.fetch))}" if view.fetch else "no file"
    yield f"  fetch     {files}{root}"
    if cached is not None:
        yield f"  cache     {_cache(cached)}"
    yield f"  push      {_push(moves, remote)}"
    if layers or segments or tasks:
        yield f"  time      {_time(view.time)}"
    if moves.base:
        size = f"{megabytes(moves.base)} in {counted(moves.base_layers, 'layer')}"
        yield f"  base      {size}, fetched only for an image on disk or in an engine"
    if remote is not None:
        yield f"  registry  {_remote(remote, plan)}"
    yield from _because(plan, view, before)
    if full:
        yield ""
        yield from (_row(row) for row in view.rows)


def whole(
    plan: Plan, view: Explanation, moves: Moves, before: Before | None, remote: Remote | None, cached: CacheOffer | None = None
) -> dict[str, Any]:
    """The answer for a program; what is not known is null."""

    def named(subject: str) -> list[str]:
        found = [row.name for row in view.rows if row.subject == subject and row.what in ("fetch", "make")]
        return sorted(found) if subject == "segment" else found

    compared = before.plan if before else None
    return {
        "tag": plan.tag,
        "key": plan.key,
        "against": {"what": before.what, "tag": compared.tag, "key": compared.key} if before and compared else None,
        **{f"{subject}s": {"make": named(subject), "all": view.count(subject)} for subject in _SUBJECTS},
        "fetch": {
            "files": sorted(a.file or a.source for a in view.fetch),
            "bytes": sum(a.size for a in view.fetch),
            "base": {"layers": moves.base_layers, "bytes": moves.base},
            "build_root": {"bytes": moves.root},
        },
        "cache": _offer_json(cached) if cached else None,
        "push": _push_json(moves, remote),
        "seconds": {
            "expected": None if view.time.seconds is None else round(view.time.seconds, 3),
            "alone": round(view.time.alone, 3),
            "jobs": view.time.jobs,
            "chain": list(view.time.chain),
            "unknown": view.time.unknown,
        },
        "things": [_row_json(row) for row in view.rows],
        "because": [
            {
                "root": _root_json(group.root) if group.root else None,
                "why": words(group.root) if group.root else group.why,
                "keys": [row.key for row in group.rows],
            }
            for group in grouped(view.rows)
        ],
        "image": [_root_json(root) for root in view.image],
        "gone": [_root_json(root) for root in view.gone],
        "remote": None if remote is None else {**asdict(remote), "place": str(remote.place), "lacking": list(remote.lacking)},
        "stages": dict(plan.stages),
    }


def _of(some: int, every: int, verb: str, elsewhere: str = "") -> str:
    """`2 of 11 to make`, `all 11 to make`, `none to make: all 11 are here`, `none`."""
    if not every:
        return "none"
    if not some:
        return f"none {verb}: all {every} are here" + (f" {elsewhere}" if elsewhere else "")
    return f"{some} of {every} {verb}" if some < every else f"all {every} {verb}"


def _cache(cached: CacheOffer) -> str:
    if cached.unreachable:
        return f"{cached.name} does not answer, and is left out"
    if not cached.keys:
        return f"nothing that is missing here is in {cached.name}" + ("" if cached.trusted else _DISTRUSTED)
    held = f"{counted(cached.tasks, 'task result')} and {counted(cached.segments, 'segment')}, {megabytes(cached.size)}"
    return f"{held} from {cached.name}" + ("" if cached.trusted else _DISTRUSTED)


def _offer_json(cached: CacheOffer) -> dict[str, Any]:
    return {
        "cache": cached.name,
        "trusted": cached.trusted,
        "tasks": cached.tasks,
        "segments": cached.segments,
        "bytes": cached.size,
        "unreachable": cached.unreachable or None,
    }


def _because(plan: Plan, view: Explanation, before: Before | None) -> Iterator[str]:
    groups = grouped(view.rows)
    if not groups and not view.image and not view.gone:
        return
    compared = before.plan if before else None
    if compared is None:
        why = "what changed is not known" if before else "nothing was built of this lock file here before"
        yield f"  because {why}"
        return
    tag = f", {compared.tag}" if compared.key != plan.key else ""
    yield f"  because of what differs from {before.what if before else ''}{tag}:"
    for group in groups[:_GROUPS]:
        yield printable(f"    {words(group.root) if group.root else group.why}: {_things(group)}")
    if len(groups) > _GROUPS:
        yield f"    and {len(groups) - _GROUPS} more causes, which --full shows"
    shown = {group.root for group in groups}
    for root in (*view.image, *view.gone):
        if root not in shown:
            yield printable(f"    {words(root)}" + (": the image's config" if root.what in ("variable", "label") else ""))


def _things(group: Group) -> str:
    """`2 tasks (rlang, dplyr), 2 segments, 1 layer`."""
    parts = []
    for subject in _SUBJECTS:
        rows = [row for row in group.rows if row.subject == subject]
        names = f" ({_names([row.name for row in rows], most=_NAMES)})" if subject == "task" else ""
        kept = sum(row.what in ("reuse", "cache") for row in rows)
        if rows:
            parts.append(counted(len(rows), subject) + names + (f", {kept} of them here already" if kept else ""))
    return ", ".join(parts)


def _row(row: Row) -> str:
    name = " ".join(filter(None, (row.kind if row.subject != "layer" else "", row.name, row.version)))
    why = told(row.cause) if row.cause else row.why
    took = f"  {seconds(row.seconds)}" if row.seconds is not None and row.seconds >= 0.05 else ""
    return printable(f"{row.what:<5}  {row.subject:<7}  {name:<32}  {why}{took}".rstrip())


def _push(moves: Moves, remote: Remote | None) -> str:
    found = _push_json(moves, remote)
    if remote is not None and remote.state == "same":
        return "0 B"
    text = f"{'' if found['exact'] else 'about '}{megabytes(found['bytes'])}"
    if moves.layers and remote is None:
        text += (
            f" in {counted(moves.layers, 'layer')} not known to be there"
            if moves.place
            else f" in {counted(moves.layers, 'layer')}"
        )
    if found["stream"]:
        text += f", and {megabytes(found['stream'])} of the base streamed from its place"
    if found["mount"]:
        text += f"; {megabytes(found['mount'])} mounted within the registry"
    return text


def _push_json(moves: Moves, remote: Remote | None) -> dict[str, Any]:
    """Exact when the registry was asked and all layers are made already."""
    if remote is None:
        exact, size, mount, stream = False, moves.push, moves.mount, moves.stream
    elif remote.state == "same":
        exact, size, mount, stream = True, 0, 0, 0
    elif remote.state == "absent":
        exact, size, mount, stream = moves.unmade == 0, remote.push + moves.unmade, remote.mount, remote.stream
    else:
        exact, size, mount, stream = False, moves.push, moves.mount, moves.stream
    return {"place": moves.place, "bytes": size, "exact": exact, "mount": mount, "stream": stream, "layers": moves.layers}


def _remote(remote: Remote, plan: Plan) -> str:
    if remote.state == "same":
        return f"nothing to do: {remote.place}@{remote.digest} has this key"
    if remote.state == "absent":
        return f"{remote.place} is not there; {megabytes(remote.there)} of its own layers are"
    if remote.state == "differs":
        return (
            f"{remote.place} has this key, and leads to {remote.digest}, which is not what this store made of it: "
            "do not push; `cregraph build --rebuild` says which of the two comes out again"
        )
    whose = f"key {remote.key}" if remote.key else "no key of cregraph"
    alike = " The 12 digits in the tag are the same by chance." if remote.key and remote.key[:12] == plan.key[:12] else ""
    return f"{remote.place} leads to another image, {remote.digest}, with {whose}: a push would be refused.{alike}"


def _time(time: TimeEstimate) -> str:
    if time.seconds is None:
        return "unknown: nothing like it was made here before"
    least = "at least " if time.unknown else "about "
    text = f"{least}{seconds(time.seconds)}" + (f" with {counted(time.jobs, 'job')}" if time.chain else "")
    if time.unknown:
        text += f"; of {counted(time.unknown, 'thing')} nothing is known"
    if len(time.chain) > 1 and time.alone > 1:
        text += f"; the longest way is {' -> '.join(_ends(time.chain))}, {seconds(time.alone)}"
    return text


def _ends(chain: Sequence[str]) -> list[str]:
    return list(chain) if len(chain) <= 5 else [*chain[:2], "…", *chain[-2:]]


def _names(names: Sequence[str], *, most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _row_json(row: Row) -> dict[str, Any]:
    cause = None
    if row.cause is not None:
        cause = {"near": row.cause.near, "roots": [_root_json(root) for root in row.cause.roots], "words": told(row.cause)}
    return {
        "subject": row.subject,
        "what": row.what,
        "kind": row.kind,
        "name": row.name,
        "version": row.version,
        "stage": row.stage,
        "group": row.group,
        "key": row.key,
        "bytes": row.size,
        "seconds": None if row.seconds is None else round(row.seconds, 3),
        "basis": row.basis,
        "cause": cause,
        "why": row.why,
    }


def _root_json(root: Root) -> dict[str, Any]:
    return {**asdict(root), "asked": list(root.asked), "words": words(root)}
