"""Adapter around py-rattler, which solves conda environments. Only this module and its worker use py-rattler.

rattler runs in a separate process (`conda_worker`), one for each solve. The request is one line of JSON:

    {"path": [...], "channels": [{"name", "addresses"}], "platform", "specs": [text], "virtual": [[name, version, build]],
     "locked": [{"channel", "fn", "record"}], "constraints": [text], "exclude_newer": ISO time in UTC or null,
     "cache": folder, "offline": bool}

The answer is one of:

    {"records": [{"channel", "fn", "record"}]}              `record` is as in repodata, with `name`
    {"error": {"kind", "text", ...}}                        spec, missing, solve, channel, panic, internal

Records contain the channel's name, never its address. Messages contain addresses without credentials.
rattler reads credentials itself (its auth file, netrc, the keyring). `user:password@` in an address also works.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from cregraph.digest import Json
from cregraph.errors import CregraphError, Several
from cregraph.lock.pins import Ask, Pin
from cregraph.text import redacted_text

__all__ = ["Record", "Request", "solve"]

_WORKER = Path(__file__).with_name("conda_worker.py")
#: Fields of a record that cregraph keeps, because a solve, a conda-meta record or another lock format needs them.
#: `indexed_timestamp` (when the channel was indexed) is not kept. `arch` and `platform` follow from `subdir`.
_KEPT = (
    *("build", "build_number", "subdir", "noarch", "depends", "constrains", "extra_depends", "flags", "features"),
    *("track_features", "license", "license_family", "python_site_packages_path", "timestamp", "md5"),
)
_NAME = re.compile(r"[a-z0-9_][a-z0-9_.+-]*")
_VERSION = re.compile(r"[A-Za-z0-9_.!+-]+")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.!+=-]*\.(?:conda|tar\.bz2)")
_HEX = {"sha256": re.compile(r"[0-9a-f]{64}"), "md5": re.compile(r"[0-9a-f]{32}")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A package file as its channel describes it. `sha256` is hexadecimal, `size` is in bytes; both may be None."""

    name: str
    version: str
    channel: str
    file: str  # <subdir>/<file name>
    sha256: str | None
    size: int | None
    data: Mapping[str, Json]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A question to the solver.

    `about` names the environment in messages. `channels` are in order of strict priority, each with its addresses; the first
    address that answers is used. `wanted` are asks for match specs. `virtual` lists all virtual packages (name, version, build).
    `locked` pins move only if the other asks require it. Records newer than `exclude_newer` are excluded; records without a
    time are not. `cache` keeps repodata for `offline`, which opens no socket.
    """

    about: str
    channels: Mapping[str, Sequence[str]]
    wanted: Sequence[Ask]
    virtual: Sequence[tuple[str, str, str]]
    locked: Sequence[Pin] = ()
    constraints: Sequence[str] = ()
    exclude_newer: datetime | None = None
    cache: Path | None = None
    offline: bool = False
    platform: str = "linux-64"

    @property
    def specs(self) -> tuple[str, ...]:
        return tuple(sorted({ask.what for ask in self.wanted}))


def solve(request: Request) -> list[Record]:
    """Return one record for each package of the environment, sorted by name. Each call asks the channels.

    Raises CregraphError for an invalid spec, an unknown package, asks that contradict each other, an unreadable channel, or
    a solver without an answer. Raises ValueError if `exclude_newer` has no time zone.
    """
    newest = request.exclude_newer
    if newest is not None and newest.tzinfo is None:
        raise ValueError("exclude_newer needs a time zone")
    with _cache(request) as cache:
        answer = _ask(
            {
                "path": [p for p in sys.path if Path(p).is_absolute()],
                "channels": [{"name": name, "addresses": list(found)} for name, found in request.channels.items()],
                "platform": request.platform,
                "specs": list(request.specs),
                "virtual": [list(v) for v in request.virtual],
                "locked": [_to_json(pin) for pin in request.locked],
                "constraints": list(request.constraints),
                # rattler reads the digits of a time as UTC and ignores its zone
                "exclude_newer": newest.astimezone(UTC).isoformat() if newest else None,
                "cache": str(cache),
                "offline": request.offline,
            }
        )
    if "error" in answer:
        _refuse(request, answer["error"])
    return [_from_json(item, request) for item in answer["records"]]


@contextlib.contextmanager
def _cache(request: Request) -> Iterator[Path]:
    """Yield the folder for repodata. rattler writes addresses into it, so addresses with credentials get a temporary folder."""
    secret = any("@" in urlsplit(a).netloc or "/t/" in urlsplit(a).path for found in request.channels.values() for a in found)
    if request.cache is not None and not secret:
        request.cache.mkdir(parents=True, exist_ok=True)
        yield request.cache
    else:
        with tempfile.TemporaryDirectory(prefix="cregraph-repodata-") as folder:
            yield Path(folder)


def _ask(request: Mapping[str, Json]) -> dict[str, Json]:
    """Return the worker's answer. The exit status of the worker is ignored. The worker ends with this call."""
    with tempfile.TemporaryFile() as talk:
        worker = subprocess.Popen(
            [sys.executable, "-I", str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=talk, close_fds=True
        )
        assert worker.stdin and worker.stdout
        try:
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.write(json.dumps(request).encode() + b"\n")
                worker.stdin.flush()
            # stdin stays open until the answer arrives: the worker exits when it closes
            line = worker.stdout.readline()
        finally:
            worker.kill()
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.close()
            worker.stdout.close()
            worker.wait()
        if not line.endswith(b"\n"):
            talk.seek(max(0, talk.seek(0, 2) - 2000))
            return {"error": {"kind": "stopped", "text": talk.read().decode(errors="replace").strip()}}
    return dict(json.loads(line))


def _to_json(pin: Pin) -> dict[str, Json]:
    kept = {key: value for key, value in pin.data.items() if key in _KEPT}
    known = {"name": pin.name, "version": pin.version, "sha256": pin.artifact.sha256, "size": pin.artifact.size}
    return {"channel": pin.artifact.source, "fn": pin.artifact.file.partition("/")[2], "record": {**kept, **known}}


def _from_json(item: Mapping[str, Json], request: Request) -> Record:
    """Return a record with valid names and digests, safe to use in a path. Raises CregraphError."""
    data = item["record"]
    name, version, build, subdir = (str(data[key]) for key in ("name", "version", "build", "subdir"))
    file = str(item["fn"])
    label = f"channel {item['channel']!r}: {subdir}/{file}"
    well = {
        "name": _NAME.fullmatch(name),
        "version": _VERSION.fullmatch(version),
        "build": _VERSION.fullmatch(build),
        "subdir": subdir in (request.platform, "noarch"),
        "file name": _FILE.fullmatch(file),
    }
    for field_name, right in well.items():
        if not right:
            raise CregraphError(f"{label}: the channel's {field_name} for it is not one that conda allows", hint=_ASK_OWNER)
    for digest, form in _HEX.items():
        if data.get(digest) and not form.fullmatch(str(data[digest])):
            raise CregraphError(f"{label}: the channel's {digest} for it is not one", hint=_ASK_OWNER)
    return Record(
        name=name,
        version=version,
        channel=item["channel"],
        file=f"{subdir}/{file}",
        sha256=data.get("sha256") or None,
        size=data.get("size"),
        data={key: data[key] for key in _KEPT if data.get(key) is not None and (data[key] != [] or key == "depends")},
    )


_ASK_OWNER = "ask the operator of the channel: its index is damaged or hostile"


def _refuse(request: Request, error: Mapping[str, Json]) -> NoReturn:
    match error["kind"]:
        case "spec":
            spec = request.specs[error["index"]]
            raise CregraphError(
                f"{_lines(request, spec)}: `{spec}` is not a valid conda spec: {error['text']}",
                hint="write `name`, `name =1.2`, `name >=1.2,<2` or `name 1.2 build`",
            )
        case "missing":
            channels = ", ".join(request.channels)
            problems = []
            for i, name, near in error["missing"]:
                said = f"{_lines(request, request.specs[i])}: no package `{name}` in {channels} for {request.platform}"
                meant = f"write `{near}` instead of `{name}`" if near else "check the spelling, or add the channel that has it"
                problems.append(CregraphError(said, meant))
            raise Several(problems)
        case "version":
            spec = request.specs[error["index"]]
            raise CregraphError(
                f"{_lines(request, spec)}: no version answers `{spec}` (the channels have {', '.join(error['versions'])})",
                hint=f"ask for a version that exists, such as {error['versions'][0]}",
            )
        case "solve":
            raise CregraphError(
                f"{request.about}: no set of packages satisfies all asks\n{_tree(error['text'])}",
                hint=_meeting(request, error["text"]),
            )
        case "channel":
            raise _unreadable(request, error["failures"])
        case "stopped" | "panic" | "internal":
            raise CregraphError(
                f"{request.about}: the conda solver stopped without an answer\n{redacted_text(error['text'])}".rstrip(),
                hint="run the command again. If the error stays, report it with this text",
            )
    raise AssertionError(error["kind"])


def _lines(request: Request, spec: str) -> str:
    return ", ".join(sorted({ask.where for ask in request.wanted if ask.what == spec}))


def _tree(text: str) -> str:
    text = text.partition("because of: ")[2] or text
    return "\n".join(f"  {line}".rstrip() for line in redacted_text(text).splitlines() if line.strip())


def _meeting(request: Request, text: str) -> str:
    """Return a hint with the asks that the solver's tree names."""
    said = set(re.split(r"[\s',|()]+", text))
    found = [spec for spec in request.specs if re.split(r"[ =<>!~]", spec)[0] in said] or list(request.specs)
    lines = [f"  {spec}  ({_lines(request, spec)})" for spec in found]
    advice = "loosen or remove one of these asks:"
    if "cutoff" in text and request.exclude_newer is not None:
        until = f"{request.exclude_newer.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        advice = f"choose a later date (packages after {until} are ignored), or change these asks:"
    return "\n".join([advice, *lines])


def _unreadable(request: Request, failures: Sequence[Sequence[str]]) -> CregraphError:
    """Return the error for an unreadable channel, with one line for each address."""
    name = failures[0][0]
    reasons: dict[str, str] = {}
    for _, address, text in failures:
        reasons[redacted_text(address)] = _reason(text)  # the last attempt at an address is plain repodata
    lines = "\n".join(f"  {address}: {reason}" for address, reason in reasons.items())
    texts = " ".join(reasons.values())
    if request.offline:
        hint = "lock once without --offline: this machine has no copy of the index"
    elif re.search(r"\b40[137]\b", texts):
        hint = "store its credentials where conda tools keep them: `RATTLER_AUTH_FILE`, ~/.netrc or the keyring"
    else:
        hint = f"check the channel's name, or its address in sources.yaml: `conda: {{{name}: …}}` in sources.yaml"
    return CregraphError(f"channel {name!r} cannot be read\n{lines}", hint=hint)


def _reason(text: str) -> str:
    """Return the innermost cause of rattler's message, on one line."""
    if status := re.search(r"status [a-z ]*error \((\d{3})\b", text):
        known = status[1] in {str(s.value) for s in HTTPStatus}
        return f"{status[1]} {HTTPStatus(int(status[1])).phrase}" if known else f"status {status[1]}"
    if "could not find subdir" in text:
        return "there is no repodata.json for this platform"
    cause = text.strip().splitlines()[-1].removeprefix("Caused by:").strip()
    return re.sub(r" \(os error \d+\)$", "", redacted_text(cause))
