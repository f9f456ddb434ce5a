"""Process in which rattler solves: reads one line of JSON from stdin and writes one line of JSON to stdout.

It imports no module of cregraph, because its file is run by path in isolated mode. rattler can crash at process exit,
after the answer is written (PyO3/pyo3-async-runtimes#40). The caller therefore ignores the exit status, and this process
exits by `os._exit`. It also exits when its stdin closes, so it never outlives its caller.

The only caller, cregraph/sources/conda.py, documents the request and the answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

#: Time limit of one solve (seconds). One of conda-forge's size takes under 1 s.
SOLVE_LIMIT = 600


class Failure(Exception):
    """Error: a failure with a kind. The caller writes the message."""

    def __init__(self, kind: str, text: str, **more: object) -> None:
        super().__init__(text)
        self.answer: dict[str, object] = {"kind": kind, "text": text, **more}


class Reached(NamedTuple):
    """A channel that answered: its name, the address that answered, and its package names."""

    name: str
    address: str
    names: frozenset[str]


async def solve(request: Mapping[str, Any]) -> dict[str, object]:
    """Return the answer to one request. Raises Failure."""
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
        await _refuse_version(str(error), specs, gateway, reached, platforms)
        raise Failure("solve", _named(str(error), reached)) from error
    except GatewayError as error:
        raise Failure(
            "channel", "", failures=[[c.name, c.address, str(error)] for c in _mentioned(str(error), reached)]
        ) from error
    # Locked records are returned as given: a channel that rewrites its metadata changes no pin.
    given = {_identity(item): item for item in kept}
    answer = [given.get(_identity(record), record) for record in (_record(record, reached) for record in records)]
    return {"records": sorted(answer, key=lambda r: str(r["record"]["name"]))}


def _identity(item: Mapping[str, Any]) -> tuple[str, str, str]:
    return item["channel"], item["record"]["subdir"], item["fn"]


def _shared(specs: list[Any], reached: list[Reached]) -> list[Any]:
    """Return the bare names of asks that several channels have.

    For an asked name, rattler loads only the records that match the ask. It can then take a record of a later channel,
    because it does not see that an earlier channel has the name. The bare name makes rattler load all records.
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
    """Return a gateway, and for each channel the first of its addresses that answers. Raises Failure.

    Each address is asked for sharded repodata, then for plain repodata. Some servers without shards do not answer 404
    to the first request.
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
    # A default gateway has no credentials. This client reads rattler's auth file, netrc and the keyring.
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
                if "(Connect)" in str(error):  # no server: skip further attempts at this address
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
    """Return whether strict priority still lets this record's name come from its channel.

    The solver accepts locked records unchecked, even if an earlier channel now has the name. A record stays if no channel
    has its name any more, because its bytes may still be available.
    """
    if item["channel"] not in [c.name for c in reached]:
        return False
    having = [c.name for c in reached if item["record"]["name"] in c.names]
    return not having or having[0] == item["channel"]


def _locked(item: Mapping[str, Any], reached: list[Reached]) -> Any:
    """Return a locked record as a rattler record. The solver prefers it to listed records."""
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
    """Raise Failure for names that no channel has, with the nearest known name of each."""
    import difflib

    missing = {}
    for i, spec in enumerate(specs):
        name = spec.name.normalized
        if name not in known and not any(name in channel.names for channel in reached):
            near = difflib.get_close_matches(name, sorted(set().union(*(c.names for c in reached))), n=1, cutoff=0.75)
            missing[i] = [name, near[0] if near else None]
    if missing:
        raise Failure("missing", "", missing=[[i, *found] for i, found in missing.items()])


async def _refuse_version(text: str, specs: list[Any], gateway: Any, reached: list[Reached], platforms: list[Any]) -> None:
    """Raise Failure with the versions that exist, if the only reason is that no version answers one spec."""
    match = re.fullmatch(r"(?s)(?:.*because of: )?No candidates were found for (\S+) [^\n]*\n?", text)
    asked = [i for i, spec in enumerate(specs) if match and spec.name.normalized == match[1]]
    if match and len(asked) == 1 and "cutoff" not in text:
        found = await gateway.query([c.address for c in reached], platforms, [match[1]], recursive=False)
        versions = sorted({record.version for records in found for record in records}, reverse=True)
        if versions:
            newest = [*map(str, versions[:5]), *(["…"] if len(versions) > 5 else [])]
            raise Failure("version", "", index=asked[0], versions=newest)


def _record(record: Any, reached: list[Reached]) -> dict[str, Any]:
    """Return a solved record with its channel's name, without address."""
    data = json.loads(record.to_json())
    home = _bare(data.pop("channel", None) or "")
    data.pop("url", None)
    name = next((c.name for c in reached if _bare(c.address) == home), None)
    if name is None:
        raise Failure("internal", f"the record {data.get('fn')} is of no channel that was asked")
    return {"channel": name, "fn": data.pop("fn"), "record": data}


def _bare(address: str) -> str:
    """Return an address without user, password and token."""
    scheme, _, rest = address.rstrip("/").partition("://")
    host, slash, path = rest.partition("/")
    parts = path.split("/")
    if parts[0] == "t" and len(parts) > 2:
        parts = parts[2:]
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{'/'.join(parts)}"


def _named(text: str, reached: list[Reached]) -> str:
    """Return the solver's text with names of channels instead of addresses."""
    for channel in reached:
        for address in (channel.address.rstrip("/"), _bare(channel.address)):
            text = text.replace(f"{address}/'", f"{channel.name}'").replace(address, channel.name)
    return text


def _mentioned(text: str, reached: list[Reached]) -> list[Reached]:
    return [c for c in reached if _bare(c.address) in text or c.address.rstrip("/") in text] or reached


def _follow(stdin: Any) -> None:
    """End this process when its stdin closes."""
    stdin.read()
    os._exit(1)


def main() -> None:
    """Read a request, write the answer, exit without running rattler's destructors."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # other output to stdout must not get into the answer
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
