"""`--cache` and `--cache-write`: what a build takes from a remote cache and gives to one, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cregraph.cli.say import counted, megabytes, talk, working
from cregraph.errors import Refused
from cregraph.lock.outputs import Outputs
from cregraph.plan.planner import Plan
from cregraph.sources.routes import Routes
from cregraph.store import Store

__all__ = ["Caches"]


@dataclass(kw_only=True, slots=True)
class Caches:
    """The caches that a command names: `read` and `write`, empty for none. `answer` is what was done, for `--json`."""

    read: str = ""
    write: str = ""
    answer: dict[str, Any] = field(default_factory=dict)

    def take(self, plan: Plan, store: Store, routes: Routes, outputs: Outputs) -> None:
        """Bring what the store lacks, saying in a line what came, and in one each what was refused.

        Raises CregraphError for a name that is none, of the cache to write to as well: not after an hour of compiling.
        """
        if not self.read and not self.write:
            return
        from cregraph.remote_cache.cache_name import cache_named
        from cregraph.remote_cache.cache_transfer import bring

        if self.write:
            cache_named(self.write, routes, option="--cache-write")
        if not self.read:
            return
        cache = cache_named(self.read, routes)
        with working(f"asking the cache {cache.name}"):
            came = bring(plan, store, cache, outputs.expected(), {key: one.size for key, one in outputs.tasks.items()})
        for why in came.refused:
            talk(f"refused, and made here instead: {why}")
        if came.unreachable:
            talk(f"the cache {cache.name} is left out: {came.unreachable}")
        talk(
            f"from the cache: {counted(came.tasks, 'task result')}, {counted(came.segments, 'segment')}, {megabytes(came.bytes)}"
            + ("" if cache.trusted else "; it is not trusted: only results that the lock's outputs name")
        )
        self.answer["read"] = {
            "cache": cache.name,
            "trusted": cache.trusted,
            "tasks": came.tasks,
            "segments": came.segments,
            "bytes": came.bytes,
            "refused": came.refused,
            "unreachable": came.unreachable or None,
        }

    def compared(self, plan: Plan, store: Store, routes: Routes, outputs: Outputs) -> None:
        """Bring what `outputs` record and the store contradicts, so that it can be said what differs."""
        if self.read:
            from cregraph.remote_cache.cache_name import cache_named
            from cregraph.remote_cache.cache_transfer import disputed

            disputed(plan, store, cache_named(self.read, routes), outputs)

    def leave(self, plan: Plan, store: Store, routes: Routes) -> None:
        """Give what was made. Raises Refused when the cache holds something else for a key of ours."""
        if not self.write:
            return
        from cregraph.remote_cache.cache_name import cache_named
        from cregraph.remote_cache.cache_transfer import give

        cache = cache_named(self.write, routes, option="--cache-write")
        with working(f"writing to the cache {cache.name}"):
            given = give(plan, store, cache)
        if given.unreachable:
            talk(f"the cache {cache.name} was not written to the end: {given.unreachable}")
        talk(
            f"to the cache: {counted(given.tasks, 'task result')}, {counted(given.segments, 'segment')}, "
            f"{megabytes(given.bytes)}; {given.there} there before"
        )
        self.answer["write"] = {
            "cache": cache.name,
            "tasks": given.tasks,
            "segments": given.segments,
            "bytes": given.bytes,
            "there": given.there,
            "unreachable": given.unreachable or None,
        }
        if given.incidents:
            listed = "".join(f"\n  {one}\n    ours is kept at the tag {one.beside}" for one in given.incidents)
            raise Refused(
                f"the cache {cache.name} holds other results for keys of this lock; nothing of it was overwritten:{listed}",
                hint="one of the two is wrong: `cregraph build --rebuild` says whether ours comes out again. "
                "Remove the wrong tag at the registry",
            )
