"""The lock: every artifact of an image by sha256, and the line that asked for it.

Goals, in order: (1) complete: a build resolves nothing. (2) Readable in review: each pin and ask has one line, with empty lines
between, so git merges most bumps. (3) Equal content gives equal bytes. (4) Every version ever written stays readable.
(5) Staleness is decided offline, by comparing the recorded asks with the current asks.

It does not contain: time of writing, host, path of a machine, version of the tool, address of a mirror, credential.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from cregraph.digest import ASSEMBLY, Json, canonical, sha256
from cregraph.errors import CregraphError
from cregraph.lock.pins import BASE, BUILD_ROOT, Artifact, Ask, Pin, Target
from cregraph.lock.rules import Kinds
from cregraph.lock.typed_json import Field, parse, spaced

__all__ = ["VERSION", "Identity", "Lock", "StageRecord", "dumps", "loads", "sorted_lock"]

VERSION = 1
PLATFORM = "linux/amd64"
NO_RECIPES = sha256(canonical([]))
_LIMIT = 64 << 20
_UNDO = "undo the edit (`git checkout -- FILE`). Or remove the file and run `cregraph lock`, which chooses every pin again"
_MERGE = "take one side (`git checkout --ours -- FILE`), then run `cregraph lock`, which adds only the missing pins"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Names of the image: runtime environment `name`, `image` name, version `label`, `tag` as the profile states it."""

    name: str
    image: str
    label: str
    tag: str
    base_type: str = "CPU"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """A stage as the lock records it. `cregraph test` runs its `checks`; they do not change the image."""

    name: str
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Json, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """A whole lock. `stages` are in graph order; targets, asks and pins are sorted by identity.

    `recipes` is the sha256 of the set of standard recipes (`session/recipe_sets.py`).
    """

    identity: Identity
    stages: tuple[StageRecord, ...]
    targets: tuple[Target, ...]
    assembly: int = ASSEMBLY
    platform: str = PLATFORM
    recipes: str = NO_RECIPES

    def target(self, target_id: str) -> Target | None:
        return next((t for t in self.targets if t.id == target_id), None)

    @property
    def base(self) -> Pin:
        """Return the pin of the base image. `loads` refuses a lock without one."""
        return next(t for t in self.targets if t.place == BASE).pins[0]

    @property
    def env(self) -> dict[str, str]:
        """Return the variables of the image by name. A later stage wins."""
        merged = {name: value for stage in self.stages for name, value in stage.env.items()}
        return dict(sorted(merged.items()))

    @property
    def build_root(self) -> Pin:
        """Return the pin of the image that tasks run over: the build root, or else the base."""
        target = next((t for t in self.targets if t.place == BUILD_ROOT), None)
        return target.pins[0] if target else self.base


def sorted_lock(lock: Lock) -> Lock:
    """Return `lock` with all sets sorted, and with the places of asks by file and field only.

    Line numbers are left out because a change above a line would move its number. Unrelated changes would then conflict.
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
    """Return `team.yaml:20: extras.conda_r[0]` as `team.yaml: extras.conda_r`."""
    match = re.fullmatch(r"(.+?):\d+: (.+)", where)
    return match[1] + ": " + re.sub(r"\[\d+\]", "", match[2]) if match else where


def dumps(lock: Lock) -> str:
    """Return the lock as text. Equal locks give equal text; the order of their parts does not matter."""
    lock = sorted_lock(lock)
    head = {
        "version": VERSION,
        "assembly": lock.assembly,
        "platform": lock.platform,
        "recipes": lock.recipes,
        "image": asdict(lock.identity),
    }
    out = ["{"]
    out += [f"{json.dumps(key)}: {_line(value)}," for key, value in head.items()]
    out.append('"stages": [')
    out += spaced([{**asdict(stage), "env": dict(sorted(stage.env.items()))} for stage in lock.stages])
    out.append("],")
    out.append('"targets": [')
    for number, target in enumerate(lock.targets):
        out.append("")
        out.append(
            "{" + f'"id": {json.dumps(target.id)}, "kind": {json.dumps(target.kind)}, "options": {_line(dict(target.options))},'
        )
        out.append('"asks": [')
        out += spaced([{"what": ask.what, "stage": ask.stage, "where": ask.where} for ask in target.asks])
        out.append("],")
        out.append('"pins": [')
        out += spaced([_pin_json(pin, target.kind) for pin in target.pins])
        out.append("]}" + ("," if number + 1 < len(lock.targets) else ""))
    out += ["", "]", "}", ""]
    return "\n".join(out)


def loads(text: str, *, name: str, kinds: Kinds) -> Lock:
    """Return the lock in `text`. `name` is the file's, for messages.

    Raises:
        CregraphError: The text is not as `dumps` writes it (with the place), is of a newer version or another assembly, or
            is an unfinished merge.
    """
    top = parse(text, name=name, what="lock", version=VERSION, limit=_LIMIT, hint=_UNDO, merge=_MERGE)
    if re.search(r"\\u[dD]", text):
        try:
            canonical(top.value)
        except UnicodeEncodeError:
            raise CregraphError(f"{name}: a text in the lock contains an unpaired surrogate (\\ud800 or similar)") from None
    lock = _read_v1(top, kinds)
    if lock.assembly != ASSEMBLY:
        raise CregraphError(
            f"{name}: assembly {lock.assembly} (expected {ASSEMBLY}, which this version of cregraph writes)",
            hint=(
                "use the version of cregraph that wrote the lock, or remove the file and run "
                "`cregraph lock` (tag and digest will change)"
            ),
        )
    return lock


def _read_v1(top: Field, kinds: Kinds) -> Lock:
    fields = top.fields("version", "assembly", "platform", "recipes", "image", "stages", "targets")
    image = fields["image"].fields("name", "image", "label", "tag", "base_type")
    stages = tuple(_read_stage(item.fields("name", needs=[], env={}, checks=[])) for item in fields["stages"].items())
    known = {stage.name for stage in stages}
    targets: dict[str, Target] = {}
    for item in fields["targets"].items():
        parts = item.fields("id", "kind", "asks", "pins", options={})
        target = _read_target(parts, known, kinds)
        if target.id in targets:
            raise parts["id"].wrong(f"target `{target.id}` is listed twice")
        targets[target.id] = target
    if [len(target.pins) for target in targets.values() if target.place == BASE] != [1]:
        raise fields["targets"].wrong("expected exactly one pin of `image:base`")
    platform = fields["platform"].text()
    if platform != PLATFORM:
        raise fields["platform"].wrong(f"`{platform}` is not {PLATFORM}")
    return Lock(
        identity=Identity(**{key: each.text() for key, each in image.items()}),
        stages=stages,
        targets=tuple(targets.values()),
        assembly=fields["assembly"].number(),
        platform=platform,
        recipes=fields["recipes"].sha256(),
    )


def _read_stage(stage: Mapping[str, Field]) -> StageRecord:
    return StageRecord(
        name=stage["name"].text(),
        needs=stage["needs"].texts(),
        env={key: each.text() for key, each in stage["env"].entries()},
        checks=tuple(_read_check(item) for item in stage["checks"].items()),
    )


def _read_check(item: Field) -> Json:
    check = item.fields("kind", code=[])
    if check["kind"].text() not in ("r", "python", "kernel"):
        raise check["kind"].wrong("expected `r`, `python` or `kernel`")
    check["code"].texts()
    return item.value


def _read_target(parts: Mapping[str, Field], stages: set[str], kinds: Kinds) -> Target:
    kind, target_id = parts["kind"].text(), parts["id"].text()
    try:
        rules = kinds[kind]
    except KeyError:
        raise parts["kind"].wrong(f"unknown kind `{kind}`") from None
    named, colon, place = target_id.partition(":")
    if named + colon != f"{kind}:":
        raise parts["id"].wrong(f"`{target_id}` is not a target of kind `{kind}`")
    options = parts["options"].mapping()
    asks = []
    for item in parts["asks"].items():
        ask = item.fields("what", "stage", "where")
        stage, what = ask["stage"].text(), ask["what"].value
        if stage not in stages:
            raise ask["stage"].wrong(f"no stage `{stage}` is in this lock")
        if not isinstance(what, str | dict):
            raise ask["what"].wrong("expected a text or an object")
        asks.append(Ask(kind=kind, place=place, stage=stage, what=what, where=ask["where"].text(), options=options))
    pins: dict[str, Pin] = {}
    for item in parts["pins"].items():
        pin = _read_pin(item, kind)
        if pin.name in pins:
            raise item.wrong(f"`{pin.name}` is pinned twice in `{target_id}`")
        pins[pin.name] = pin
    return Target(kind=kind, place=place, scope=rules.scope(place), options=options, asks=tuple(asks), pins=tuple(pins.values()))


def _read_pin(item: Field, kind: str) -> Pin:
    name = item.mapping().get("name")
    if isinstance(name, str):
        item = item.called(name)
    pin = item.fields("name", "version", "source", "file", "sha256", "size", kind=kind, needs=[], provides=[], asked=[], data={})
    file = pin["file"].text()
    if file.startswith("/") or ".." in file.split("/") or "\\" in file or "\0" in file:
        raise pin["file"].wrong(f"`{file}` leads out of its source")
    return Pin(
        name=pin["name"].text(),
        version=pin["version"].text(),
        artifact=Artifact(
            kind=pin["kind"].text(),
            source=pin["source"].text(),
            file=file,
            sha256=pin["sha256"].sha256(),
            size=pin["size"].number(),
        ),
        needs=pin["needs"].texts(),
        provides=pin["provides"].texts(),
        asked=pin["asked"].texts(),
        data=pin["data"].mapping(),
    )


def _line(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


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
