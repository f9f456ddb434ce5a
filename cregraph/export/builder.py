"""The Dockerfile for a builder that has none of our artifacts: Snowflake's in-account Image Builder, or any other.

One flat folder: the Dockerfile, the installer (one file), a manifest for each stage, and the project's own files. It uses nothing
that only some builders have (build arguments, mounts, `--link`, checksum flags), so kaniko and BuildKit read it alike.

    base ── stage ── stage ── … ── image          each stage: COPY its manifest, RUN the installer
              │         ▲
              └─ workshop ┘                       tasks, over the build root, with the environment copied in

The environment that tasks see is whole (its prefixes as they are in that stage), not the closure of the task: what is compiled
here can differ in bytes from what cregraph compiles itself. docs/adr/0012-dockerfiles.md says why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cregraph.digest import Json, key_of, sha256
from cregraph.engines import contract
from cregraph.engines.dockerfile import copy
from cregraph.errors import CregraphError
from cregraph.export.artifacts import head
from cregraph.export.bundle import OLDEST, bundle
from cregraph.export.docker_text import comment, exec_form, pairs, quoted, stage_name
from cregraph.export.folder import Content
from cregraph.export.sites import Sites, hosts
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import Plan

__all__ = ["SUFFIX", "Bases", "Export", "export"]

#: What the tag of an image ends in that such a builder makes.
SUFFIX = "-builder"

_FOLDER = "/cregraph/export"
_MADE = "/cregraph/made"
_INPUTS = "/cregraph/inputs"

#: Runs a task and keeps what it made. `$1` output, `$2` folder to keep it in, `$3` working folder, then the command.
_TASK = """\
umask 022
output=$1 keep=$2 cwd=$3; shift 3
rm -rf /cregraph/build /cregraph/home "$output"
mkdir -p /cregraph/build /cregraph/home "$output" "$keep" "$cwd"
(cd "$cwd" && exec "$@")
find "$output" -type f -perm /111 -exec chmod 0755 {} +
find "$output" -type f ! -perm /111 -exec chmod 0644 {} +
find "$output" -type d -exec chmod 0755 {} +
find "$output" -exec touch -h -d @315532800 {} +
cp -a "$output" "$keep/"
rm -rf /cregraph/build /cregraph/home /cregraph/in
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bases:
    """The images that the Dockerfile stands on, as FROM names them: by digest. `root` is None when tasks run over the base."""

    base: str
    root: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """The files, the hosts that the build reaches, and whether it needs zstd of the base."""

    files: Mapping[str, Content]
    hosts: tuple[str, ...]
    needs_zstd: bool


@dataclass(kw_only=True, slots=True)
class _Text:
    plan: Plan
    facts: BaseFacts
    sites: Sites
    bases: Bases
    own: Mapping[str, bytes]  # sha256 of a file of the project, to its bytes
    python: str
    installer: str
    files: dict[str, Content] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)


def export(plan: Plan, facts: BaseFacts, *, sites: Sites, bases: Bases, own: Mapping[str, bytes], said: Iterable[str]) -> Export:
    """The folder of `plan`. `own` holds the project's files by sha256; `said` are lines for the head of the Dockerfile.

    Raises CregraphError for a base without a Python that runs the installer, and for what cannot be fetched elsewhere.
    """
    python = facts.python
    if python is None or tuple(int(part) for part in python.version.split(".")[:2]) < OLDEST:
        has = f"Python {python.version}" if python else "no Python"
        raise CregraphError(
            f"the base has {has}, and what installs packages in another builder needs Python {OLDEST[0]}.{OLDEST[1]} or later",
            hint="`cregraph export dockerfile` without `--flavor image-builder` needs nothing of the base",
        )
    program = bundle()
    installer = f"install-{sha256(program)[:12]}.pyz"
    text = _Text(plan=plan, facts=facts, sites=sites, bases=bases, own=own, python=python.executable, installer=installer)
    text.files[installer] = program
    _stages(text)
    reached = tuple(sorted(text.hosts))
    more = [*said, f"Reaches: {', '.join(reached)}, and whatever these redirect to."]
    text.files["Dockerfile"] = ("\n".join([*head("dockerfile", more), *text.lines]) + "\n").encode()
    zstd = any(s.artifact and s.artifact.file.endswith(".conda") for s in (*plan.segments.values(), *plan.hidden.values()))
    return Export(files=text.files, hosts=reached, needs_zstd=zstd)


def _stages(text: _Text) -> None:
    plan, facts = text.plan, text.facts
    rank = {stage.name: number for number, stage in enumerate(plan.lock.stages)}
    last = max(rank.values(), default=0)
    user = str((facts.config.get("config") or {}).get("User") or "")
    on_key = facts.digest.removeprefix("sha256:")
    base = on = stage_name("base", on_key)
    text.lines += ["", comment(f"the base, {facts.digest}"), f"FROM {text.bases.base} AS {base}"]
    if user.partition(":")[0] not in ("", "root", "0"):
        text.lines.append("USER 0:0")
    tasks = list(plan.tasks)
    seen = {key for task in tasks for key in task.environment}
    # Tasks begin once what they see is installed; what they made is taken in after the last of their own stages.
    seen_after = max((rank.get(s.stage, last) for s in plan.segments.values() if s.key in seen), default=0)
    made_after = max([seen_after, *(rank.get(task.stage, last) for task in tasks)])
    shown = (on, on_key)
    for stage in plan.lock.stages:
        number = rank[stage.name]
        items = [
            _item(text, s)
            for s in _in_order(plan.segments.values())
            if s.task_key is None and min(rank.get(s.stage, last), last) == number
        ]
        if items:
            on, on_key = _install(text, stage.name, items, on, on_key)
        if number == seen_after:
            shown = (on, on_key)
        if tasks and number == made_after:
            workshop = _workshop(text, base, *shown)
            on, on_key = _take_in(text, workshop, on, on_key, stage.name)
    text.lines += ["", comment(f"{plan.lock.identity.image}:{plan.tag}, key {plan.key}")]
    text.lines.append(f"FROM {on} AS {stage_name(plan.lock.identity.image, plan.key)}")
    if user.partition(":")[0] not in ("", "root", "0"):
        text.lines.append(f"USER {quoted(user, what='USER')}")
    text.lines += [*pairs("ENV", plan.env), *pairs("LABEL", plan.labels)]


def _in_order(segments: Iterable[Segment]) -> list[Segment]:
    """conda first: what lies in an environment is installed before what points into it."""
    return sorted(segments, key=lambda s: (s.kind != "conda", s.group, s.name, s.key))


def _item(text: _Text, segment: Segment) -> dict[str, Json]:
    if segment.kind not in ("conda", "r", "python", "archive", "file"):
        raise CregraphError(
            f"{segment.name} is a part of kind `{segment.kind}` that the installer of another builder does not know",
            hint="`cregraph export dockerfile` without `--flavor image-builder` takes every kind",
        )
    item: dict[str, Json] = {"kind": segment.kind, "name": _called(segment), "place": dict(segment.place)}
    if segment.artifact is not None:
        item["artifact"] = _artifact(text, segment.artifact)
    return item


def _called(segment: Segment) -> str:
    """The name that messages have: for a conda package as its reader calls it."""
    record = segment.place.get("record")
    if isinstance(record, Mapping):
        return f"{record.get('channel')}/{record.get('subdir')}/{record.get('fn')}"
    return segment.artifact.source if segment.kind == "archive" and segment.artifact else segment.name


def _artifact(text: _Text, artifact: Artifact) -> dict[str, Json]:
    data = text.own.get(artifact.sha256)
    if artifact.kind == "path" and data is not None:
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", artifact.source.rsplit("/", 1)[-1])[:60] or "own"
        file = f"{name}-{artifact.sha256[:12]}.file"
        text.files[file] = data
        return {"name": name, "sha256": artifact.sha256, "size": artifact.size, "file": file}
    told = text.sites.artifact(artifact)
    text.hosts |= hosts(told)
    return told


def _manifest(text: _Text, name: str, manifest: Mapping[str, Json]) -> tuple[str, list[str]]:
    """Write a manifest; its file's name, and every file of the folder that its stage copies in."""
    items = [*manifest["segments"], *manifest.get("inputs", ())]
    own = sorted({item["artifact"]["file"] for item in items if item.get("artifact", {}).get("file")})
    data = (json.dumps(manifest, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()
    plain = re.sub(r"[^a-z0-9_.+-]+", "-", name.lower())
    file = f"{plain}-{sha256(data)[:12]}.json"
    text.files[file] = data
    return file, [text.installer, file, *own]


def _run(text: _Text, file: str, copied: Sequence[str]) -> list[str]:
    return [
        # A line of a Dockerfile may have 64 KiB.
        *(f"COPY {exec_form([*copied[at : at + 200], f'{_FOLDER}/'])}" for at in range(0, len(copied), 200)),
        f"RUN {exec_form([text.python, '-I', '-B', f'{_FOLDER}/{text.installer}', f'{_FOLDER}/{file}'])}",
    ]


def _install(
    text: _Text, stage: str, items: Sequence[Json], on: str, on_key: str, *, before: Sequence[str] = (), about: str = ""
) -> tuple[str, str]:
    """A stage that installs `items`; its name and key."""
    owners = {path: list(owner) for path, owner in text.plan.planner.owners.items()}
    file, copied = _manifest(text, stage, {"segments": list(items), "owners": owners})
    key = key_of({"builder-stage": stage, "on": on_key, "files": copied, "before": list(before)})
    name = stage_name(stage, key)
    text.lines += ["", comment(about or f"stage {stage}, key {text.plan.stages[stage]}"), f"FROM {on} AS {name}"]
    text.lines += [*before, *_run(text, file, copied)]
    return name, key


def _workshop(text: _Text, base: str, on: str, on_key: str) -> tuple[str, str]:
    """The stages that run tasks, which see what stage `on` holds; the name and key of the last."""
    plan = text.plan
    hidden_keys = {key for task in plan.tasks for key in task.environment} & plan.hidden.keys()
    hidden = _in_order(plan.hidden[key] for key in hidden_keys)
    inputs = [
        {"name": called, "artifact": _artifact(text, artifact), "to": f"{_INPUTS}/{task.key[:12]}/{called}"}
        for task in plan.tasks
        for called, artifact in zip(task.inputs, task.artifacts, strict=True)
    ]
    manifest = {"segments": [_item(text, s) for s in hidden], "inputs": inputs, "owners": {}}
    file, copied = _manifest(text, "inputs", manifest)
    inputs_key = key_of({"builder-stage": "inputs", "on": text.facts.digest, "files": copied})
    inputs_stage = stage_name("inputs", inputs_key)
    text.lines += ["", comment("what tasks read: sources, and tools that only they see"), f"FROM {base} AS {inputs_stage}"]
    text.lines += _run(text, file, copied)
    root = text.bases.root
    key = key_of({"builder-stage": "workshop", "on": [on_key, inputs_key, root], "tasks": [task.key for task in plan.tasks]})
    workshop = stage_name("workshop", key)
    text.lines += ["", comment(f"tasks, over the build root, sha256:{plan.lock.build_root.artifact.sha256}")]
    text.lines.append(f"FROM {root or on} AS {workshop}")
    if root is not None:
        seen = {key for task in plan.tasks for key in task.environment} & plan.segments.keys()
        # What else tasks see, built R packages, lies in the environment.
        prefixes = sorted({str(plan.segments[key].place["prefix"]) for key in seen if plan.segments[key].kind == "conda"})
        text.lines += ["USER 0:0", *(copy(f"{prefix}/", f"{prefix}/", stage=on) for prefix in prefixes)]
    text.lines += [
        copy(f"{prefix}/", f"{prefix}/", stage=inputs_stage) for prefix in sorted({str(s.place["prefix"]) for s in hidden})
    ]
    for task in plan.tasks:
        text.lines += _task(task, inputs_stage)
    return workshop, key


def _take_in(text: _Text, workshop: tuple[str, str], on: str, on_key: str, stage: str) -> tuple[str, str]:
    """The stage that takes in what tasks made; its name and key."""
    plan = text.plan
    kept = sorted({_kept(task) for task in plan.tasks if task.kind != "python"})
    before = [copy(f"{folder}/", f"{at}/", stage=workshop[0]) for folder, at in kept]
    made = {s.task_key: s for s in plan.segments.values() if s.task_key is not None}
    wheels = []
    for task in plan.tasks:
        if task.kind == "python":
            segment = made[task.key]
            before.append(copy(f"{_MADE}/{task.key[:12]}/", f"{_FOLDER}/{task.key[:12]}/", stage=workshop[0]))
            wheels.append({"kind": "python", "name": segment.name, "place": dict(segment.place), "made": task.key[:12]})
    about = f"what tasks made, after stage {stage}"
    if wheels:
        return _install(text, f"{stage}-made", wheels, on, on_key, before=before, about=about)
    key = key_of({"builder-stage": f"{stage}-made", "on": [on_key, workshop[1]]})
    name = stage_name(f"{stage}-made", key)
    text.lines += ["", comment(about), f"FROM {on} AS {name}", *before]
    return name, key


def _kept(task: Task) -> tuple[str, str]:
    """Where the results of tasks for one library are gathered, and the library."""
    library = task.output.rpartition("/")[0]
    return f"{_MADE}/{sha256(library.encode())[:12]}", library


def _task(task: Task, inputs: str) -> list[str]:
    """A task as text: its inputs, and its command in the environment of the sandbox's contract."""
    keep = f"{_MADE}/{task.key[:12]}" if task.kind == "python" else _kept(task)[0]
    env = {**contract.ENVIRONMENT, **task.env}
    argv = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in sorted(env.items()))]
    argv += ["/bin/sh", "-euc", _TASK, "cregraph-task", task.output, keep, task.cwd, *task.argv]
    return [
        comment(f"task {task.name}, key {task.key}"),
        copy(f"{_INPUTS}/{task.key[:12]}/", f"{contract.INPUTS}/", stage=inputs),
        f"RUN {exec_form(argv)}",
    ]
