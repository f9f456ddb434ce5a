"""`--cache` and `--cache-write`: copy results from a remote cache and to one, with a line on each."""

from __future__ import annotations

from typing import Any

from cregraph.cli.terminal_output import counted, megabytes, talk, working
from cregraph.errors import CregraphError, Refused
from cregraph.session.session import Session

__all__ = ["RemoteCacheUse"]

_WITHOUT = "build without `--cache-write` if nothing must be written now"


class RemoteCacheUse:
    """The remote caches that a command names. `answer` is what was taken and given, for `--json`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.answer: dict[str, Any] = {}

    def check(self) -> None:
        """Raise CregraphError if a name is invalid, or the cache to write to cannot take results. Call it before a download."""
        from cregraph.remote_cache.cache_name import cache_named

        session, options = self._session, self._session.options
        if options.cache:
            cache_named(options.cache, session.routes)
        if options.cache_write:
            cache = cache_named(options.cache_write, session.routes, option="--cache-write")
            try:
                cache.ping_to_write()
            except CregraphError as error:
                hint = f"{error.hint}\n" if error.hint else ""
                raise CregraphError(f"`--cache-write {options.cache_write}`: {error.message}", f"{hint}{_WITHOUT}") from None

    def take(self) -> None:
        """Copy missing results from the cache. Print one line for all of them and one for each refused result."""
        session, options = self._session, self._session.options
        if not options.cache:
            return
        from cregraph.remote_cache.cache_name import cache_named
        from cregraph.remote_cache.cache_transfer import download

        cache = cache_named(options.cache, session.routes)
        outputs = session.outputs
        with working(f"asking the cache {cache.name}"):
            came = download(
                session.plan, session.store, cache, outputs.expected(), {key: one.size for key, one in outputs.tasks.items()}
            )
        for why in came.refused:
            talk(f"refused, so built here: {why}")
        if came.unreachable:
            talk(f"skipped the cache {cache.name}: {came.unreachable}")
        talk(
            f"from the cache: {counted(came.tasks, 'task result')}, {counted(came.segments, 'segment')}, {megabytes(came.bytes)}"
            + ("" if cache.trusted else "; not trusted: only results that the outputs of the lock name")
        )
        counts = {"tasks": came.tasks, "segments": came.segments, "bytes": came.bytes, "refused": came.refused}
        self.answer["read"] = {"cache": cache.name, "trusted": cache.trusted, **counts, "unreachable": came.unreachable or None}

    def take_disputed(self) -> None:
        """Copy the recorded results that the store contradicts, so that the report can name what differs."""
        session, name = self._session, self._session.options.cache
        if name:
            from cregraph.remote_cache.cache_name import cache_named
            from cregraph.remote_cache.cache_transfer import download_disputed

            download_disputed(session.plan, session.store, cache_named(name, session.routes), session.outputs)

    def give(self) -> None:
        """Write what was made to the cache. Raises Refused when the cache holds another result for a key of this lock."""
        session, name = self._session, self._session.options.cache_write
        if not name:
            return
        from cregraph.remote_cache.cache_name import cache_named
        from cregraph.remote_cache.cache_transfer import upload

        cache = cache_named(name, session.routes, option="--cache-write")
        with working(f"writing to the cache {cache.name}"):
            given = upload(session.plan, session.store, cache)
        if given.unreachable:
            talk(f"the cache {cache.name} does not have all results: {given.unreachable}")
        talk(
            f"to the cache: {counted(given.tasks, 'task result')}, {counted(given.segments, 'segment')}, "
            f"{megabytes(given.bytes)}; {given.there} existed already"
        )
        counts = {"tasks": given.tasks, "segments": given.segments, "bytes": given.bytes, "there": given.there}
        self.answer["write"] = {"cache": cache.name, **counts, "unreachable": given.unreachable or None}
        if given.conflicts:
            listed = "".join(f"\n  {one}\n    our result has the tag {one.tag}" for one in given.conflicts)
            raise Refused(
                f"the cache {cache.name} has other results for keys of this lock. cregraph overwrote none of them:{listed}",
                hint="run `cregraph build --rebuild` to find the right result, then delete the wrong tag in the registry",
            )
