"""The parts of a plan: segments, tasks and layers, each with its key.

The plan is a pure function of a lock and base facts: no I/O, no clock, no environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cregraph.digest import Json, key_of
from cregraph.lock.pins import Artifact, Target

__all__ = ["LayerRules", "Placement", "Segment", "Task", "segment", "task"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """The tar entries that one artifact becomes at its place in the image.

    `kind` names the kind whose `entries` makes them, from `artifact` or from the result of the task `task_key`
    (a tar, see `Task`), or from `place` alone. `place` is JSON: everything besides the input that decides bytes.
    `group` says which segments may share a layer (`conda:/home/…`); `size` is the artifact's size in bytes (an estimate
    of weight for splitting; for a task its source's size).
    """

    key: str
    kind: str
    stage: str
    name: str
    group: str
    place: Mapping[str, Json]
    artifact: Artifact | None = None
    task_key: str | None = None
    size: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A command that makes an artifact, in the sandbox.

    It sees: the build root `root` (digest of its image manifest), the files of the segments `environment` at their
    final paths, the results of the tasks `needs` each unpacked at `results[key]` (an absolute folder), and each of `artifacts`
    as `/cregraph/in/<name>`, by the names in `inputs`, one for each in the same order; all read-only. `argv` runs in `cwd`
    (`/cregraph/build`, empty and writable, by default) with `env` added to the sandbox's fixed environment. `output` is the
    absolute folder that it must fill: empty when it starts, captured when it ends as a normalised tar whose paths are relative
    to that folder.
    """

    key: str
    kind: str
    stage: str
    name: str
    root: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    output: str
    artifacts: tuple[Artifact, ...] = ()
    inputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    results: Mapping[str, str] = field(default_factory=dict)
    environment: tuple[str, ...] = ()
    cwd: str = "/cregraph/build"


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """The segments and tasks of one target's pins. `of` maps a pin's name to its segment's key."""

    segments: tuple[Segment, ...] = ()
    tasks: tuple[Task, ...] = ()
    of: Mapping[str, str] = field(default_factory=dict)


class LayerRules(Protocol):
    """The part of a kind that layer_split.py uses."""

    #: The number of layers over which the small segments of a group are distributed.
    BUCKETS: int


def segment(
    assembly: int,
    target: Target,
    *,
    stage: str,
    name: str,
    place: Mapping[str, Json],
    source: Artifact | Task | None = None,
    size: int = 0,
) -> Segment:
    """Return a segment of `target`, made from an artifact, from the result of a task, or from `place` alone.

    Its key covers the artifact's sha256 or the task's key, the place and the assembly, and nothing else.
    """
    artifact = source if isinstance(source, Artifact) else None
    made = source.key if isinstance(source, Task) else None
    sha256 = artifact.sha256 if artifact else None
    return Segment(
        key=key_of({"segment": target.kind, "assembly": assembly, "sha256": sha256, "task": made, "place": dict(place)}),
        kind=target.kind,
        stage=stage,
        name=name,
        group=target.id,
        place=place,
        artifact=artifact,
        task_key=made,
        size=size or (artifact.size if artifact else 0),
    )


def task(
    *,
    assembly: int,
    kind: str,
    stage: str,
    name: str,
    root: str,
    argv: tuple[str, ...],
    env: Mapping[str, str],
    output: str,
    inputs: Mapping[str, Artifact] | None = None,
    results: Mapping[str, str] | None = None,
    environment: tuple[str, ...] = (),
    cwd: str = "/cregraph/build",
) -> Task:
    """Return a task with its key: over all that it sees, by digest and key, and the command; not over where anything came from.

    `inputs` maps names below /cregraph/in to artifacts; an artifact's name at its source is in no key. `results` maps the key
    of each task that this one needs to the folder where that task's result lies.
    """
    inputs = dict(sorted((inputs or {}).items()))
    results = dict(sorted((results or {}).items()))
    environment = tuple(sorted(environment))
    key = key_of(
        {
            "task": kind,
            "assembly": assembly,
            "root": root,
            "argv": list(argv),
            "env": dict(env),
            "output": output,
            "inputs": {called: artifact.sha256 for called, artifact in inputs.items()},
            "results": results,
            "environment": list(environment),
            "cwd": cwd,
        }
    )
    return Task(
        key=key,
        kind=kind,
        stage=stage,
        name=name,
        root=root,
        argv=argv,
        env=env,
        output=output,
        artifacts=tuple(inputs.values()),
        inputs=tuple(inputs),
        needs=tuple(results),
        results=results,
        environment=environment,
        cwd=cwd,
    )
