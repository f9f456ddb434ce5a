"""The process in which rattler solves: one line of JSON in on stdin, one line of JSON out on stdout.

It stands alone (standard library and rattler, nothing of cregraph) because it is started by its file's path in isolated
mode. rattler can crash when its process ends, after the answer is out (PyO3/pyo3-async-runtimes#40): so the exit status
means nothing, and this process leaves by `os._exit`. It ends as soon as its stdin does, so it never outlives who asked.

The request and the answer are documented in cregraph/sources/conda.py, the only caller.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

#: Seconds that one solve may take; a conda-forge-sized one takes less than one.
SOLVE_LIMIT = 600


class Failure(Exception):
    """A failure with a kind that the caller turns into words."""

    def __init__(self, kind: str, text: str, **more: object) -> None:
        super().__init__(text)
        self.answer: dict[str, object] = {"kind": kind, "text": text, **more}


class Reached(NamedTuple):
    """A channel as it answered: its name, the address that did, and the package names that it has."""

    name: str
    address: str
    names: frozenset[str]


async def solve(request: Mapping[str, Any]) -> dict[str, object]:
    """The answer to one request. Raises Failure."""
    import datetime

    import rattler
    from rattler.exceptions import GatewayError, SolverError

    specs = [_spec(text, i) for i, text in enumerate(request["specs"])]
    platforms: list[Any] = [request["platform"], "noarch"]
    gateway, reached = await _reach(request, platforms)
    kept = [item for item in request["locked"] if _still_first(item, reached)]
    locked = [_locked(item, reached) for item in kept]
    _names_exist(request, specs, reached, {record.name.normalized for record in locked})
    newest = request["exclude_newer"]
    try:
        records = await rattler.solve(
            [rattler.Channel(channel.address) for channel in reached],
            specs + _shared(specs, reached),
            gateway=gateway,
            platforms=platforms,
            virtual_packages=[
                rattler.GenericVirtualPackage(rattler.PackageName(n), rattler.Version(v), rattler.BuildString(b))
                for n, v, b in request["virtual"]
            ],
            locked_packages=locked,
            constraints=list(request["constraints"]),
            channel_priority=rattler.ChannelPriority.Strict,
            channel_relations="disabled",
            exclude_newer=datetime.datetime.fromisoformat(newest) if newest else None,
            timestamp_policy="allow-missing",
            timeout=datetime.timedelta(seconds=SOLVE_LIMIT),
        )
    except SolverError as error:
        raise Failure("solve", _named(str(error), reached)) from error
    except GatewayError as error:
        raise Failure(
            "channel", "", failures=[[c.name, c.address, str(error)] for c in _mentioned(str(error), reached)]
        ) from error
    # What was locked is answered as it was given: a channel that rewrites its metadata moves no pin.
    given = {_identity(item): item for item in kept}
    answer = [given.get(_identity(record), record) for record in (_record(record, reached) for record in records)]
    return {"records": sorted(answer, key=lambda r: str(r["record"]["name"]))}


def _identity(item: Mapping[str, Any]) -> tuple[str, str, str]:
    return item["channel"], item["record"]["subdir"], item["fn"]


def _shared(specs: list[Any], reached: list[Reached]) -> list[Any]:
    """The bare names of asks that several channels have.

    For a name that is asked for directly rattler loads only the records that match the ask, and then takes one of a later
    channel, because it never saw that an earlier one has the name. The bare name makes it load them all.
    """
    import rattler

    names = {spec.name.normalized for spec in specs}
    return [rattler.MatchSpec(name) for name in sorted(names) if sum(name in channel.names for channel in reached) > 1]


def _spec(text: str, index: int) -> Any:
    import rattler

    try:
        return rattler.MatchSpec(text)
    except Exception as error:
        raise Failure("spec", str(error), index=index) from error


async def _reach(request: Mapping[str, Any], platforms: list[Any]) -> tuple[Any, list[Reached]]:
    """A gateway, and for each channel the first of its addresses that answers.

    Sharded repodata is tried first and plain repodata at the same address after it: some servers answer the question
    for shards with anything but 404.
    """
    import rattler
    from rattler.exceptions import FetchRepoDataError, GatewayError
    from rattler.networking import AuthenticationMiddleware, Client, OciMiddleware, RetryMiddleware

    ways = [
        [(address, sharded) for address in channel["addresses"] for sharded in _shards(address)]
        for channel in request["channels"]
    ]
    step = [0] * len(ways)
    failures: list[list[list[str]]] = [[] for _ in ways]
    # A default gateway has no credentials: the client is what reads rattler's auth file, netrc and keyring.
    client = Client([RetryMiddleware(), AuthenticationMiddleware(), OciMiddleware()])
    while True:
        chosen = [way[at] for way, at in zip(ways, step, strict=True)]
        action: Any = "force-cache-only" if request["offline"] else "no-cache"
        gateway = rattler.Gateway(
            cache_dir=request["cache"],
            client=client,
            per_channel_config={
                address: rattler.SourceConfig(sharded_enabled=sharded, cache_action=action) for address, sharded in chosen
            },
        )
        reached = []
        for i, (address, _) in enumerate(chosen):
            name = request["channels"][i]["name"]
            try:
                found = await gateway.names([rattler.Channel(address)], platforms, channel_relations="disabled")
            except (GatewayError, FetchRepoDataError) as error:
                failures[i].append([name, address, str(error)])
                step[i] += 1
                if "(Connect)" in str(error):  # nobody is there: do not wait for nobody a second time
                    while step[i] < len(ways[i]) and ways[i][step[i]][0] == address:
                        step[i] += 1
                if step[i] == len(ways[i]):
                    raise Failure("channel", "", failures=failures[i]) from error
                break
            reached.append(Reached(name, address, frozenset(n.normalized for n in found)))
        if len(reached) == len(chosen):
            return gateway, reached


def _shards(address: str) -> tuple[bool, ...]:
    return (True, False) if address.startswith(("http://", "https://")) else (False,)


def _still_first(item: Mapping[str, Any], reached: list[Reached]) -> bool:
    """Whether strict priority still lets this record's name come from its channel.

    The solver takes locked records as they are: it would keep one of a channel that a new one in front now shadows. A name
    that no channel has any more stays: its bytes may still be there.
    """
    if item["channel"] not in [c.name for c in reached]:
        return False
    having = [c.name for c in reached if item["record"]["name"] in c.names]
    return not having or having[0] == item["channel"]


def _locked(item: Mapping[str, Any], reached: list[Reached]) -> Any:
    """A record of an old lock as rattler's; the solver prefers it to what the channel lists."""
    import datetime

    import rattler

    data = dict(item["record"])
    stamp = data.pop("timestamp", None)
    for name in ("md5", "sha256"):
        data[name] = bytes.fromhex(data[name]) if data.get(name) else None
    tracked = data.pop("track_features", None)
    package = rattler.PackageRecord(
        data.pop("name"),
        data.pop("version"),
        rattler.BuildString(data.pop("build")),
        data.pop("build_number"),
        data.pop("subdir"),
        **data,
    )
    if tracked:
        package.track_features = tracked.split() if isinstance(tracked, str) else tracked
    if stamp is not None:
        package.timestamp = datetime.datetime.fromtimestamp(stamp // 1000, datetime.UTC) + datetime.timedelta(
            milliseconds=stamp % 1000
        )
    address = next(c.address for c in reached if c.name == item["channel"]).rstrip("/")
    return rattler.RepoDataRecord(package, item["fn"], f"{address}/{package.subdir}/{item['fn']}", f"{address}/")


def _names_exist(request: Mapping[str, Any], specs: list[Any], reached: list[Reached], known: set[str]) -> None:
    """A name that no channel has is said before solving, with the one that was probably meant."""
    import difflib

    missing = {}
    for i, spec in enumerate(specs):
        name = spec.name.normalized
        if name not in known and not any(name in channel.names for channel in reached):
            near = difflib.get_close_matches(name, sorted(set().union(*(c.names for c in reached))), n=1, cutoff=0.75)
            missing[i] = [name, near[0] if near else None]
    if missing:
        raise Failure("missing", "", missing=[[i, *found] for i, found in missing.items()])


def _record(record: Any, reached: list[Reached]) -> dict[str, Any]:
    """A solved record without an address: the channel's name instead."""
    data = json.loads(record.to_json())
    home = _bare(data.pop("channel", None) or "")
    data.pop("url", None)
    name = next((c.name for c in reached if _bare(c.address) == home), None)
    if name is None:
        raise Failure("internal", f"the record {data.get('fn')} is of no channel that was asked")
    return {"channel": name, "fn": data.pop("fn"), "record": data}


def _bare(address: str) -> str:
    """An address without user, password and token, to compare by."""
    scheme, _, rest = address.rstrip("/").partition("://")
    host, slash, path = rest.partition("/")
    parts = path.split("/")
    if parts[0] == "t" and len(parts) > 2:
        parts = parts[2:]
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{'/'.join(parts)}"


def _named(text: str, reached: list[Reached]) -> str:
    """The solver's text with channels called by their names."""
    for channel in reached:
        for address in (channel.address.rstrip("/"), _bare(channel.address)):
            text = text.replace(f"{address}/'", f"{channel.name}'").replace(address, channel.name)
    return text


def _mentioned(text: str, reached: list[Reached]) -> list[Reached]:
    return [c for c in reached if _bare(c.address) in text or c.address.rstrip("/") in text] or reached


def _follow(stdin: Any) -> None:
    """Ends this process when the one that asked is gone."""
    stdin.read()
    os._exit(1)


def main() -> None:
    """Reads a request, answers it, and leaves without running rattler's destructors."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else writes to stdout must not get into the answer
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_follow, args=(sys.stdin.buffer,), daemon=True).start()
    sys.path.extend(p for p in request["path"] if p not in sys.path)
    try:
        answer = asyncio.run(solve(request))
    except Failure as failure:
        answer = {"error": failure.answer}
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException as error:  # a panic in rattler is a BaseException
        kind = "panic" if type(error).__name__ == "PanicException" else "internal"
        answer = {"error": {"kind": kind, "text": f"{type(error).__name__}: {error}"}}
    out.write(json.dumps(answer) + "\n")
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
