"""The plan of a lock: segments, tasks, layers, keys, the tag. Pure: no I/O, no clock, no environment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cregraph.digest import key_of
from cregraph.errors import CregraphError
from cregraph.kinds import KINDS, file
from cregraph.kinds.base import PlaceContext
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.lock_file import Lock, sorted_lock
from cregraph.lock.pins import BASE, BUILD_ROOT
from cregraph.plan.layer_split import LayerPlan, Planner, split
from cregraph.plan.parts import Placement, Segment, Task
from cregraph.profile.profile_file import LABEL

__all__ = ["EMBEDDED", "Plan", "make_plan", "projection"]

#: Where an image carries the part of its lock that decides bytes.
EMBEDDED = "/opt/cregraph/lock.json"
_LABEL = "org.cregraph"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything that one lock makes. `segments` are in the image, `hidden` ones only in the sandbox. `key` is the image's.

    `stages` maps each stage to its key, which covers the keys of its segments in the image.
    """

    lock: Lock
    key: str
    tag: str
    planner: Planner
    layers: tuple[LayerPlan, ...]
    segments: Mapping[str, Segment]
    hidden: Mapping[str, Segment]
    tasks: tuple[Task, ...]
    env: Mapping[str, str]
    labels: Mapping[str, str]
    stages: Mapping[str, str]


def make_plan(lock: Lock, facts: BaseFacts) -> Plan:
    """Return the plan of `lock` over the base that `facts` describe. Raise CregraphError if the lock contradicts itself."""
    lock = sorted_lock(lock)
    if facts.digest.removeprefix("sha256:") != lock.base.artifact.sha256:
        raise CregraphError(f"the base facts are of {facts.digest}, but the lock pins sha256:{lock.base.artifact.sha256}")
    # What is known of the base decides bytes as much as the base does: directories, config, owners.
    base = key_of({"base": facts.digest, "facts": lock.base.data.get("facts")})
    placed = _placed(lock, facts)
    tasks = [t for placement in placed.values() for t in placement.tasks]
    hidden: dict[str, Segment] = {}
    shown: dict[str, Segment] = {}
    for target in lock.targets:
        into = hidden if target.scope == "sandbox" else shown
        into.update({s.key: s for s in placed[target.id].segments})
    env = lock.env
    labels = _labels(lock)
    stage = lock.stages[-1].name if lock.stages else ""
    embedded = file.written(assembly=lock.assembly, stage=stage, at=EMBEDDED, text=projection(lock, placed, env))
    shown[embedded.key] = embedded
    planner = Planner(assembly=lock.assembly, base=base, owners=_owners(shown, facts), base_layers=len(facts.layers))
    layers = split(tuple(shown.values()), planner, KINDS)
    key = key_of(
        {
            "image": lock.assembly,
            "base": base,
            "layers": [[layer.name, layer.key] for layer in layers],
            "env": dict(env),
            "labels": dict(labels),
        }
    )
    return Plan(
        lock=lock,
        key=key,
        tag=f"{lock.identity.label}-{key[:12]}",
        planner=planner,
        layers=layers,
        segments=shown,
        hidden=hidden,
        tasks=tuple(tasks),
        env=env,
        labels={**labels, f"{_LABEL}.key": key},
        stages=_stage_keys(lock, facts, [s for s in shown.values() if s is not embedded]),
    )


def _placed(lock: Lock, facts: BaseFacts) -> dict[str, Placement]:
    """The placement of each target, by its id, in the order of kinds."""
    rank = list(KINDS)
    ranked = tuple(sorted(lock.targets, key=lambda t: rank.index(t.kind)))
    placed: dict[str, Placement] = {}
    for target in ranked:
        context = PlaceContext(
            assembly=lock.assembly,
            facts=facts,
            build_root="sha256:" + lock.build_root.artifact.sha256,
            targets=ranked,
            order=tuple(stage.name for stage in lock.stages),
            placed=dict(placed),
        )
        placed[target.id] = KINDS[target.kind].place(target, context)
    return placed


def _stage_keys(lock: Lock, facts: BaseFacts, segments: Sequence[Segment]) -> dict[str, str]:
    brought = {a.stage for t in lock.targets if t.place in (BASE, BUILD_ROOT) for a in t.asks}
    return {
        stage.name: key_of(
            {
                "stage": stage.name,
                "env": dict(stage.env),
                "segments": sorted(s.key for s in segments if s.stage == stage.name),
                "base": facts.digest if stage.name in brought else "",
            }
        )
        for stage in lock.stages
    }


def projection(lock: Lock, placed: Mapping[str, Placement], env: Mapping[str, str]) -> str:
    """Return the part of a lock that decides bytes: pins and places, no asks, sources or addresses."""
    targets = {t.id: {"kind": t.kind, **KINDS[t.kind].projection(t, placed[t.id])} for t in lock.targets}
    whole = {"assembly": lock.assembly, "platform": lock.platform, "env": dict(env), "targets": targets}
    return json.dumps(whole, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _owners(segments: Mapping[str, Segment], facts: BaseFacts) -> dict[str, tuple[int, int]]:
    """Return the owners of new directories: a user owns those that the user's files need in the home, root all others."""
    homes = {(uid, gid): home.rstrip("/") for uid, gid, home in facts.users.values() if uid and home.startswith("/")}
    found = {}
    for each in segments.values():
        owner = (each.place.get("uid", 0), each.place.get("gid", 0))
        at, home = str(each.place.get("at", "")), homes.get(owner)
        if home and at.startswith(home + "/") and "/" in at.removeprefix(home + "/"):
            found[home + "/" + at.removeprefix(home + "/").split("/")[0]] = owner
    return dict(sorted(found.items()))


def _labels(lock: Lock) -> dict[str, str]:
    identity = lock.identity
    if not re.fullmatch(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{LABEL - 1}}}", identity.label):
        raise CregraphError(
            f"the version label `{identity.label}` cannot be the beginning of a tag",
            hint=f"use letters, digits, `.`, `_` and `-`, at most {LABEL} of them (cre.version_label or cre.tag)",
        )
    return {
        "org.opencontainers.image.title": identity.image,
        "org.opencontainers.image.version": identity.label,
        "org.opencontainers.image.base.digest": "sha256:" + lock.base.artifact.sha256,
        f"{_LABEL}.name": identity.name,
        f"{_LABEL}.tag": identity.tag,
        f"{_LABEL}.base-type": identity.base_type,
    }
