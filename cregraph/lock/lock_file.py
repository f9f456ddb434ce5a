"""The lock: what an image is made of, to the byte, and which line asked for it.

Goals, in order: complete (a build asks nobody anything), readable in review (one pin a line, one ask a line, an empty line
between them: a bump is a diff of one line and git merges most bumps by itself), the same bytes for the same content, every
version ever written stays readable, staleness decided offline by comparing what was asked with what is asked now.

It holds no time of writing, no host, no path of a machine, no version of the tool, no address of a mirror, no credential.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cregraph.digest import ASSEMBLY, Json, canonical, is_sha256
from cregraph.errors import CregraphError
from cregraph.lock.pins import Artifact, Ask, Pin, Target

__all__ = ["VERSION", "Identity", "Lock", "StageRecord", "dumps", "loads", "sorted_lock"]

VERSION = 1
PLATFORM = "linux/amd64"
_CONFLICT = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
_LIMIT = 64 << 20
_UNDO = "undo the edit (`git checkout -- FILE`), or remove the file and run `cregraph lock`: every pin is then chosen anew"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What the image is called: runtime environment `name`, `image` name, version `label`, `tag` as the profile states it."""

    name: str
    image: str
    label: str
    tag: str
    base_type: str = "CPU"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """A stage as the lock remembers it. `checks` decide no byte; `cregraph test` runs them."""

    name: str
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Json, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """A whole lock. `stages` are in graph order; targets, asks and pins are sorted by identity."""

    identity: Identity
    stages: tuple[StageRecord, ...]
    targets: tuple[Target, ...]
    assembly: int = ASSEMBLY
    platform: str = PLATFORM

    def target(self, target_id: str) -> Target | None:
        """The target of that id."""
        return next((t for t in self.targets if t.id == target_id), None)

    @property
    def base(self) -> Pin:
        """The pin of the base image. loads() refuses a lock without one."""
        target = self.target("image:base")
        assert target is not None
        return target.pins[0]

    @property
    def build_root(self) -> Pin:
        """The pin of the image that tasks run over: its own, or the base."""
        target = self.target("image:build-root")
        return target.pins[0] if target else self.base


def sorted_lock(lock: Lock) -> Lock:
    """`lock` with everything that is a set in its one order, and asks by file and field only.

    A line's number would move with every line above it: two changes that touch nothing of each other would conflict.
    """
    targets = [
        replace(
            t,
            asks=tuple(
                sorted(
                    (replace(a, where=_lasting(a.where)) for a in t.asks),
                    key=lambda a: (json.dumps(a.what, sort_keys=True), a.stage, a.where),
                )
            ),
            pins=tuple(sorted(t.pins, key=lambda p: (p.name, p.version))),
        )
        for t in lock.targets
    ]
    return replace(lock, targets=tuple(sorted(targets, key=lambda t: t.id)))


def _lasting(where: str) -> str:
    """`team.yaml:20: extras.conda_r[0]` as `team.yaml: extras.conda_r`."""
    match = re.fullmatch(r"(.+?):\d+: (.+)", where)
    if match is None:
        return where
    return match.group(1) + ": " + re.sub(r"\[\d+\]", "", match.group(2))


def dumps(lock: Lock) -> str:
    """The lock as text; equal locks give equal text, in whatever order their parts arrived."""
    lock = sorted_lock(lock)
    head = {
        "version": VERSION,
        "assembly": lock.assembly,
        "platform": lock.platform,
        "image": {
            "name": lock.identity.name,
            "image": lock.identity.image,
            "label": lock.identity.label,
            "tag": lock.identity.tag,
            "base_type": lock.identity.base_type,
        },
    }
    out = ["{"]
    out += [f"{json.dumps(key)}: {_line(value)}," for key, value in head.items()]
    out.append('"stages": [')
    out += _lines([_stage_json(stage) for stage in lock.stages])
    out.append("],")
    out.append('"targets": [')
    for number, target in enumerate(lock.targets):
        out.append("")
        out.append(
            "{" + f'"id": {json.dumps(target.id)}, "kind": {json.dumps(target.kind)}, "options": {_line(dict(target.options))},'
        )
        out.append('"asks": [')
        out += _lines([_ask_json(ask) for ask in target.asks])
        out.append("],")
        out.append('"pins": [')
        out += _lines([_pin_json(pin, target.kind) for pin in target.pins])
        out.append("]}" + ("," if number + 1 < len(lock.targets) else ""))
    out += ["", "]", "}", ""]
    return "\n".join(out)


def loads(text: str, *, name: str) -> Lock:
    """The lock in `text`. `name` is the file's, for messages.

    Raises CregraphError with the place for whatever is not as dumps() writes it, both numbers for a newer version,
    and its own message for a merge that was not finished.
    """
    if len(text) > _LIMIT:
        raise CregraphError(f"`{name}` is larger than {_LIMIT >> 20} MiB", hint="this is no lock of cregraph")
    conflict = _CONFLICT.search(text)
    if conflict:
        line = text.count("\n", 0, conflict.start()) + 1
        raise CregraphError(
            f"`{name}`:{line}: git's conflict markers stand in the lock: a merge was not finished",
            hint="take one side (`git checkout --ours -- FILE`), then run `cregraph lock`: it adds what is missing and no more",
        )
    try:
        data = json.loads(text, object_pairs_hook=_no_twins)
    except RecursionError:
        raise CregraphError(f"`{name}`: nested too deeply to be a lock", hint=_UNDO) from None
    except json.JSONDecodeError as error:
        raise CregraphError(
            f"`{name}`:{error.lineno}:{error.colno}: not readable as JSON: {error.msg}",
            hint=_UNDO,
        ) from None
    except ValueError as error:
        raise CregraphError(f"`{name}`: {error}", hint=_UNDO) from None
    try:
        canonical(data)
    except TypeError:
        raise CregraphError(f"`{name}`: a number with a decimal point stands in the lock; it holds whole numbers only") from None
    except UnicodeEncodeError:
        raise CregraphError(f"`{name}`: a text in the lock is half of a character (\\ud800 and the like)") from None
    reader = _Reader(name)
    top = reader.mapping(data, "")
    version = reader.integer(top, "version", "")
    if version > VERSION:
        raise CregraphError(f"`{name}` has lock version {version}; this cregraph reads up to {VERSION}", hint="upgrade cregraph")
    if version < 1:
        raise reader.wrong("version", f"{version} is no version of a lock")
    lock = _read_v1(top, reader)
    if lock.assembly != ASSEMBLY:
        raise CregraphError(
            f"`{name}` is written for assembly {lock.assembly}; this cregraph writes images by assembly {ASSEMBLY}",
            hint="use the cregraph that wrote the lock, or remove the file and run `cregraph lock` (tag and digest will change)",
        )
    return lock


def _read_v1(top: Mapping[str, Json], reader: _Reader) -> Lock:
    reader.only(top, ("version", "assembly", "platform", "image", "stages", "targets"), "")
    image = reader.mapping(top.get("image"), "image")
    reader.only(image, ("name", "image", "label", "tag", "base_type"), "image")
    identity = Identity(**{key: reader.text(image, key, "image") for key in ("name", "image", "label", "tag", "base_type")})
    stages = []
    for where, item in reader.each(top, "stages", ""):
        reader.only(item, ("name", "needs", "env", "checks"), where)
        env = reader.mapping(item.get("env", {}), f"{where}.env")
        stages.append(
            StageRecord(
                name=reader.text(item, "name", where),
                needs=reader.texts(item, "needs", where),
                env={key: reader.text(env, key, f"{where}.env") for key in env},
                checks=tuple(_checks(item, reader, where)),
            )
        )
    known = {stage.name for stage in stages}
    targets: dict[str, Target] = {}
    for where, item in reader.each(top, "targets", ""):
        target = _read_target(item, reader, where, known)
        if target.id in targets:
            raise reader.wrong(f"{where}.id", f"target `{target.id}` stands twice")
        targets[target.id] = target
    if "image:base" not in targets or len(targets["image:base"].pins) != 1:
        raise reader.wrong("targets", "exactly one pin of `image:base` is wanted")
    platform = reader.text(top, "platform", "")
    if platform != PLATFORM:
        raise reader.wrong("platform", f"`{platform}` is not {PLATFORM}")
    return Lock(
        identity=identity,
        stages=tuple(stages),
        targets=tuple(targets.values()),
        assembly=reader.integer(top, "assembly", ""),
        platform=platform,
    )


def _checks(item: Mapping[str, Json], reader: _Reader, where: str) -> Iterator[Json]:
    for place, check in reader.each({"checks": [], **item}, "checks", where):
        reader.only(check, ("kind", "code"), place)
        if reader.text(check, "kind", place) not in ("r", "python", "kernel"):
            raise reader.wrong(f"{place}.kind", "`r`, `python` or `kernel` is wanted")
        reader.texts(check, "code", place)
        yield check


def _read_target(item: Mapping[str, Json], reader: _Reader, where: str, stages: set[str]) -> Target:
    reader.only(item, ("id", "kind", "options", "asks", "pins"), where)
    kind, target_id = reader.text(item, "kind", where), reader.text(item, "id", where)
    if not target_id.startswith(kind + ":"):
        raise reader.wrong(f"{where}.id", f"`{target_id}` is no target of kind `{kind}`")
    options = reader.mapping(item.get("options", {}), f"{where}.options")
    asks = []
    for place, ask in reader.each(item, "asks", where):
        reader.only(ask, ("what", "stage", "where"), place)
        stage = reader.text(ask, "stage", place)
        if stage not in stages:
            raise reader.wrong(f"{place}.stage", f"no stage `{stage}` stands in this lock")
        if not isinstance(ask.get("what"), str | dict):
            raise reader.wrong(f"{place}.what", "a text or an object is wanted")
        asks.append(
            Ask(
                kind=kind,
                target=target_id,
                stage=stage,
                what=ask["what"],
                where=reader.text(ask, "where", place),
                options=options,
            )
        )
    pins: dict[str, Pin] = {}
    for place, pin in reader.each(item, "pins", where):
        read = _read_pin(pin, reader, place, kind)
        if read.name in pins:
            raise reader.wrong(f"{place}.name", f"`{read.name}` is pinned twice in `{target_id}`")
        pins[read.name] = read
    return Target(kind=kind, id=target_id, options=options, asks=tuple(asks), pins=tuple(pins.values()))


def _read_pin(item: Mapping[str, Json], reader: _Reader, where: str, kind: str) -> Pin:
    reader.only(
        item, ("name", "version", "kind", "source", "file", "sha256", "size", "needs", "provides", "asked", "data"), where
    )
    name = reader.text(item, "name", where)
    where = f"{where} ({name})"
    sha256 = reader.text(item, "sha256", where)
    if not is_sha256(sha256):
        raise reader.wrong(f"{where}.sha256", f"`{sha256[:80]}` is no sha256 (64 lower-case hex digits)")
    size = reader.integer(item, "size", where)
    if size < 0:
        raise reader.wrong(f"{where}.size", f"{size} is no size in bytes")
    file = reader.text(item, "file", where)
    if file.startswith("/") or ".." in file.split("/") or "\\" in file or "\0" in file:
        raise reader.wrong(f"{where}.file", f"`{file}` leads out of its source")
    return Pin(
        name=name,
        version=reader.text(item, "version", where),
        artifact=Artifact(
            kind=reader.text(item, "kind", where) if "kind" in item else kind,
            source=reader.text(item, "source", where),
            file=file,
            sha256=sha256,
            size=size,
        ),
        needs=reader.texts(item, "needs", where),
        provides=reader.texts(item, "provides", where),
        asked=reader.texts(item, "asked", where),
        data=reader.mapping(item.get("data", {}), f"{where}.data"),
    )


class _Reader:
    """Typed fields out of JSON; what is wrong is said with file and place."""

    def __init__(self, name: str) -> None:
        self.name = name

    def wrong(self, place: str, why: str) -> CregraphError:
        return CregraphError(f"`{self.name}`: {place or 'the file'}: {why}", hint=_UNDO)

    def mapping(self, value: Json, place: str) -> Mapping[str, Json]:
        if not isinstance(value, dict):
            raise self.wrong(place, "an object is wanted")
        return value

    def integer(self, item: Mapping[str, Json], key: str, place: str) -> int:
        value = item.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(_dot(place, key), "a whole number is wanted")
        return value

    def text(self, item: Mapping[str, Json], key: str, place: str) -> str:
        value = item.get(key)
        if not isinstance(value, str):
            raise self.wrong(_dot(place, key), "a text is wanted")
        return value

    def texts(self, item: Mapping[str, Json], key: str, place: str) -> tuple[str, ...]:
        value = item.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self.wrong(_dot(place, key), "a list of texts is wanted")
        return tuple(value)

    def each(self, item: Mapping[str, Json], key: str, place: str) -> Iterator[tuple[str, Mapping[str, Json]]]:
        value = item.get(key)
        if not isinstance(value, list):
            raise self.wrong(_dot(place, key), "a list is wanted")
        for number, entry in enumerate(value):
            where = f"{_dot(place, key)}[{number}]"
            yield where, self.mapping(entry, where)

    def only(self, item: Mapping[str, Json], known: Sequence[str], place: str) -> None:
        for key in item:
            if key not in known:
                raise self.wrong(_dot(place, key), "unknown field")


def _dot(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _no_twins(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twins = [key for key, _ in pairs]
        raise ValueError(f"the field `{next(k for k in twins if twins.count(k) > 1)}` stands twice in one object")
    return made


def _line(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _lines(items: Sequence[Mapping[str, Json]]) -> list[str]:
    out = []
    for number, item in enumerate(items):
        out += ["", json.dumps(item, ensure_ascii=False) + ("," if number + 1 < len(items) else "")]
    return [*out, ""]


def _stage_json(stage: StageRecord) -> dict[str, Json]:
    return {
        "name": stage.name,
        "needs": list(stage.needs),
        "env": dict(sorted(stage.env.items())),
        "checks": list(stage.checks),
    }


def _ask_json(ask: Ask) -> dict[str, Json]:
    return {"what": ask.what, "stage": ask.stage, "where": ask.where}


def _pin_json(pin: Pin, kind: str) -> dict[str, Json]:
    made: dict[str, Json] = {"name": pin.name, "version": pin.version}
    if pin.artifact.kind != kind:
        made["kind"] = pin.artifact.kind
    made |= {"source": pin.artifact.source, "file": pin.artifact.file, "sha256": pin.artifact.sha256, "size": pin.artifact.size}
    for key, texts in (("needs", pin.needs), ("provides", pin.provides), ("asked", pin.asked)):
        if texts:
            made[key] = list(texts)
    if pin.data:
        made["data"] = {key: pin.data[key] for key in sorted(pin.data)}
    return made
