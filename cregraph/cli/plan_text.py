"""The output of `cregraph plan` for people: counts, bytes, seconds and causes, one fact per line."""

from __future__ import annotations

from collections.abc import Iterator

from cregraph.cli.plan_answer import SUBJECTS, CacheOffer, PlanAnswer
from cregraph.cli.plan_causes_text import causes, row_line
from cregraph.cli.terminal_output import counted, megabytes, seconds
from cregraph.image.media.registry_state import Remote
from cregraph.plan.explain import TimeEstimate
from cregraph.plan.planner import Plan
from cregraph.session.transfers import Transfers
from cregraph.text import few

__all__ = ["as_text"]

_DISTRUSTED = "; not trusted: only results that the outputs of the lock name"


def as_text(answer: PlanAnswer, *, full: bool) -> Iterator[str]:
    """Yield the answer as lines: counts and causes, and with `full` a line for each task, segment and layer."""
    plan, view, transfers = answer.plan, answer.view, answer.transfers
    yield f"{plan.lock.identity.image}:{plan.tag}"
    yield from _work(answer)
    files = f"{counted(len(view.fetch), 'file')}, {megabytes(sum(a.size for a in view.fetch))}" if view.fetch else "no file"
    yield f"  fetch     {files}" + (f", and {megabytes(transfers.root)} of the build root" if transfers.root else "")
    if answer.cache is not None:
        yield f"  cache     {_cache(answer.cache)}"
    yield f"  push      {_push(transfers, answer.remote)}"
    if any(view.count(subject, "fetch", "make") for subject in SUBJECTS):
        yield f"  time      {_time(view.time)}"
    if transfers.base:
        size = f"{megabytes(transfers.base)} in {counted(transfers.base_layers, 'layer')}"
        yield f"  base      {size}, downloaded only for an image on disk or in Docker"
    if answer.remote is not None:
        yield f"  registry  {_remote(answer.remote, plan)}"
    yield from causes(answer)
    if full:
        yield ""
        yield from (row_line(row) for row in view.rows)


def _work(answer: PlanAnswer) -> Iterator[str]:
    view, cache = answer.view, answer.cache
    names = few((row.name for row in view.rows if row.subject == "task" and row.what == "make"), 8)
    held = f"or in {cache[0].name}" if cache and (cache[1].tasks or cache[1].segments) else ""
    rows = (("layer", "to make", "", ""), ("segment", "to make", held, ""), ("task", "to run", held, names))
    for subject, verb, elsewhere, listed in rows:
        text = _of(view.count(subject, "fetch", "make"), view.count(subject), verb, elsewhere)
        yield f"  {subject + 's':<9} {text}" + (f": {listed}" if listed else "")


def _of(some: int, every: int, verb: str, elsewhere: str = "") -> str:
    """Return `2 of 11 to make`, `all 11 to make`, `none to make: all 11 are here` or `none`."""
    if not every:
        return "none"
    if not some:
        return f"none {verb}: all {every} are here" + (f" {elsewhere}" if elsewhere else "")
    return f"{some} of {every} {verb}" if some < every else f"all {every} {verb}"


def _cache(found: CacheOffer) -> str:
    cache, offer = found
    if offer.unreachable:
        return f"{cache.name} does not respond: skipped"
    trust = "" if cache.trusted else _DISTRUSTED
    if not offer.tasks and not offer.segments:
        return f"{cache.name} has nothing that is missing here{trust}"
    size = megabytes(sum((*offer.tasks.values(), *offer.segments.values())))
    count = f"{counted(len(offer.tasks), 'task result')} and {counted(len(offer.segments), 'segment')}"
    return f"{count}, {size} from {cache.name}{trust}"


def _push(transfers: Transfers, remote: Remote | None) -> str:
    push = transfers.push
    if remote is not None and remote.state == "same":
        return "0 B"
    text = f"{'' if push.exact else 'about '}{megabytes(push.bytes)}"
    if push.layers and remote is None:
        text += f" in {counted(push.layers, 'layer')}" + (" that may be missing there" if push.place else "")
    if push.stream:
        text += f", and {megabytes(push.stream)} streamed from the base"
    if push.mount:
        text += f"; {megabytes(push.mount)} mounted within the registry"
    return text


def _remote(remote: Remote, plan: Plan) -> str:
    if remote.state == "same":
        return f"nothing to do: {remote.place}@{remote.digest} has this key"
    if remote.state == "absent":
        return f"{remote.place} does not exist; the registry has {megabytes(remote.there)} of its layers"
    if remote.state == "differs":
        return (
            f"{remote.place} has this key, but its digest {remote.digest} differs from the build in this store. "
            "Do not push. Run `cregraph build --rebuild` to find the right digest"
        )
    whose = f"key {remote.key}" if remote.key else "no key of cregraph"
    alike = " The 12 digits in the tag are the same by chance." if remote.key and remote.key[:12] == plan.key[:12] else ""
    return f"{remote.place} is another image, {remote.digest}, with {whose}. cregraph would refuse to push.{alike}"


def _time(time: TimeEstimate) -> str:
    if time.seconds is None:
        return "unknown: this store has no earlier build like it"
    least = "at least " if time.unknown else "about "
    text = f"{least}{seconds(time.seconds)}" + (f" with {counted(time.jobs, 'job')}" if time.chain else "")
    if time.unknown:
        text += f"; {counted(time.unknown, 'thing')} without an estimate"
    if len(time.chain) > 1 and time.alone > 1:
        ends = time.chain if len(time.chain) <= 5 else [*time.chain[:2], "…", *time.chain[-2:]]
        text += f"; the critical path is {' -> '.join(ends)}, {seconds(time.alone)}"
    return text
