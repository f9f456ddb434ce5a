"""The Dockerfile for a builder that has none of our artifacts, such as Snowflake's in-account Image Builder.

It is one flat folder: the Dockerfile, the installer (one file), a manifest for each stage, and the project's own files. It uses
no feature that only some builders have (build arguments, mounts, `--link`, checksum flags): kaniko and BuildKit read it alike.

    base ── stage ── stage ── … ── image          each stage: COPY its manifest, RUN the installer
              │         ▲
              └─ workshop ┘                       tasks, over the build root, with the environment copied in

Tasks see whole environments (as they are in that stage), not only the packages that they need. So what is compiled here can
differ in bytes from what cregraph compiles itself; see docs/adr/0012-dockerfiles.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cregraph.digest import Json, key_of, sha256
from cregraph.engines import contract
from cregraph.engines.dockerfile import copy, stage_name
from cregraph.errors import CregraphError
from cregraph.export.artifacts import head
from cregraph.export.bundle import OLDEST, bundle
from cregraph.export.docker_text import comment, exec_form, pairs, quoted
from cregraph.export.folder import Content
from cregraph.export.sites import hosts, sites_of
from cregraph.kinds import MODULES, parts
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import Plan
from cregraph.sources.routes import Routes

__all__ = ["SUFFIX", "Bases", "Export", "export"]

#: The end of the tag of an image that such a builder makes.
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
    """The images of the Dockerfile, by digest. `root` is None if tasks run over the base."""

    base: str
    root: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """The files, the hosts that the build reaches, and whether it needs zstd of the base."""

    files: Mapping[str, Content]
    hosts: tuple[str, ...]
    needs_zstd: bool


class _On(NamedTuple):
    """A Docker stage that others stand on."""

    name: str
    key: str


@dataclass(kw_only=True, slots=True)
class _Text:
    plan: Plan
    facts: BaseFacts
    routes: Routes
    bases: Bases
    own: Mapping[str, bytes]  # sha256 of a file of the project, to its bytes
    python: str
    installer: str
    files: dict[str, Content] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)

    def start(self, about: str, source: str, name: str, key: str) -> _On:
        """Begin a stage: a comment, and FROM."""
        on = _On(stage_name(name, key), key)
        self.lines += ["", comment(about), f"FROM {source} AS {on.name}"]
        return on


def export(
    plan: Plan, facts: BaseFacts, *, routes: Routes, bases: Bases, own: Mapping[str, bytes], said: Iterable[str]
) -> Export:
    """Return the folder of `plan`. `own` holds the project's files by sha256; `said` are lines for the head of the Dockerfile."""
    python = facts.python
    if python is None or tuple(int(part) for part in python.version.split(".")[:2]) < OLDEST:
        has = f"Python {python.version}" if python else "no Python"
        raise CregraphError(
            f"the base has {has}, but the installer needs Python {OLDEST[0]}.{OLDEST[1]} or later",
            hint="run `cregraph export dockerfile` without `--flavor image-builder`, which needs no Python in the base",
        )
    program = bundle()
    installer = f"install-{sha256(program)[:12]}.pyz"
    text = _Text(plan=plan, facts=facts, routes=routes, bases=bases, own=own, python=python.executable, installer=installer)
    text.files[installer] = program
    _stages(text)
    reached = tuple(sorted(text.hosts))
    more = [*said, f"Reaches: {', '.join(reached)}, and the hosts that they redirect to."]
    text.files["Dockerfile"] = ("\n".join([*head("dockerfile", more), *text.lines]) + "\n").encode()
    zstd = any(s.artifact and s.artifact.file.endswith(".conda") for s in (*plan.segments.values(), *plan.hidden.values()))
    return Export(files=text.files, hosts=reached, needs_zstd=zstd)


def _stages(text: _Text) -> None:
    plan, facts = text.plan, text.facts
    user = str((facts.config.get("config") or {}).get("User") or "")
    is_root = user.partition(":")[0] in ("", "root", "0")
    base = on = text.start(f"the base, {facts.digest}", text.bases.base, "base", facts.digest.removeprefix("sha256:"))
    text.lines += [] if is_root else ["USER 0:0"]
    rank = {stage.name: number for number, stage in enumerate(plan.lock.stages)}
    last = max(rank.values(), default=0)
    # Tasks begin when what they see is installed. What they made is taken in after the last of their own stages.
    seen = {key for task in plan.tasks for key in task.environment}
    seen_after = max((rank.get(s.stage, last) for s in plan.segments.values() if s.key in seen), default=0)
    made_after = max([seen_after, *(rank.get(task.stage, last) for task in plan.tasks)])
    shown = on
    for number, stage in enumerate(plan.lock.stages):
        segments = [s for s in plan.segments.values() if s.task_key is None and rank.get(s.stage, last) == number]
        if segments:
            items = [_item(text, s) for s in _in_order(segments)]
            on = _install(text, stage.name, items, on, about=f"stage {stage.name}, key {plan.stages[stage.name]}")
        if number == seen_after:
            shown = on
        if plan.tasks and number == made_after:
            on = _take_in(text, _workshop(text, base, shown), on, stage.name)
    text.start(f"{plan.lock.identity.image}:{plan.tag}, key {plan.key}", on.name, plan.lock.identity.image, plan.key)
    text.lines += [] if is_root else [f"USER {quoted(user, what='USER')}"]
    text.lines += [*pairs("ENV", plan.env), *pairs("LABEL", plan.labels)]


def _in_order(segments: Iterable[Segment]) -> list[Segment]:
    """Return segments in the order of kinds: an environment is installed before what points into it."""
    return sorted(segments, key=lambda s: (tuple(MODULES).index(s.kind), s.group, s.name, s.key))


def _item(text: _Text, segment: Segment) -> dict[str, Json]:
    entries = parts("entries").get(segment.kind)
    if entries is None:
        raise CregraphError(
            f"{segment.name} has kind `{segment.kind}`, which the installer does not support",
            hint="run `cregraph export dockerfile` without `--flavor image-builder`, which supports every kind",
        )
    item: dict[str, Json] = {"entries": entries.__name__, "name": segment.name, "place": dict(segment.place)}
    if segment.artifact is not None:
        item["artifact"] = _artifact(text, segment.artifact)
        if "://" in segment.artifact.source:
            item["name"] = segment.artifact.source
    return item


def _artifact(text: _Text, artifact: Artifact) -> dict[str, Json]:
    data = text.own.get(artifact.sha256)
    if artifact.kind == "path" and data is not None:
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", artifact.source.rsplit("/", 1)[-1])[:60] or "own"
        file = f"{name}-{artifact.sha256[:12]}.file"
        text.files[file] = data
        return {"name": name, "sha256": artifact.sha256, "size": artifact.size, "file": file}
    told = sites_of(artifact, text.routes)
    text.hosts |= hosts(told)
    return told


def _manifest(text: _Text, name: str, manifest: Mapping[str, Json]) -> tuple[str, list[str]]:
    """Write a manifest. Return the name of its file, and all files that its stage copies in."""
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


def _install(text: _Text, stage: str, items: Sequence[Json], on: _On, *, about: str, before: Sequence[str] = ()) -> _On:
    """Write a stage that installs `items`, after the lines `before`."""
    owners = {path: list(owner) for path, owner in text.plan.planner.owners.items()}
    file, copied = _manifest(text, stage, {"segments": list(items), "owners": owners})
    key = key_of({"builder-stage": stage, "on": on.key, "files": copied, "before": list(before)})
    made = text.start(about, on.name, stage, key)
    text.lines += [*before, *_run(text, file, copied)]
    return made


def _workshop(text: _Text, base: _On, on: _On) -> _On:
    """Write the stages that run tasks. Tasks see what stage `on` holds."""
    plan = text.plan
    seen = {key for task in plan.tasks for key in task.environment}
    hidden = _in_order(plan.hidden[key] for key in seen & plan.hidden.keys())
    inputs = _inputs(text, hidden, base)
    root = text.bases.root
    key = key_of({"builder-stage": "workshop", "on": [on.key, inputs.key, root], "tasks": [task.key for task in plan.tasks]})
    about = f"tasks, over the build root, sha256:{plan.lock.build_root.artifact.sha256}"
    workshop = text.start(about, root or on.name, "workshop", key)
    if root is not None:
        folders = _folders(plan.segments[key] for key in seen & plan.segments.keys())
        text.lines += ["USER 0:0", *(copy(f"{folder}/", f"{folder}/", stage=on.name) for folder in folders)]
    text.lines += [copy(f"{folder}/", f"{folder}/", stage=inputs.name) for folder in _folders(hidden)]
    in_place = _in_place(plan)
    for task in plan.tasks:
        text.lines += _task(task, inputs.name, keep=_kept(task) if task.key in in_place else f"{_MADE}/{task.key[:12]}")
    return workshop


def _inputs(text: _Text, hidden: Sequence[Segment], base: _On) -> _On:
    """Write the stage that holds what only tasks read."""
    inputs = [
        {"name": name, "artifact": _artifact(text, artifact), "to": f"{_INPUTS}/{task.key[:12]}/{name}"}
        for task in text.plan.tasks
        for name, artifact in zip(task.inputs, task.artifacts, strict=True)
    ]
    manifest = {"segments": [_item(text, s) for s in hidden], "inputs": inputs, "owners": {}}
    file, copied = _manifest(text, "inputs", manifest)
    key = key_of({"builder-stage": "inputs", "on": text.facts.digest, "files": copied})
    made = text.start("what tasks read: sources, and tools that only they see", base.name, "inputs", key)
    text.lines += _run(text, file, copied)
    return made


def _folders(segments: Iterable[Segment]) -> list[str]:
    found = {str(s.place.get("prefix") or s.place["at"]) for s in segments}
    return sorted(folder for folder in found if not any(folder.startswith(f"{other}/") for other in found))


def _in_place(plan: Plan) -> set[str]:
    """Return the keys of tasks whose result is its segment: the output folder is the segment's own place."""
    at = {s.task_key: s.place.get("at") for s in plan.segments.values()}
    return {task.key for task in plan.tasks if at.get(task.key) == task.output}


def _take_in(text: _Text, workshop: _On, on: _On, stage: str) -> _On:
    """Write the stage that takes in the results of tasks: copied if they are in place, else installed."""
    plan, in_place = text.plan, _in_place(text.plan)
    kept = sorted({(_kept(task), task.output.rpartition("/")[0]) for task in plan.tasks if task.key in in_place})
    before = [copy(f"{folder}/", f"{at}/", stage=workshop.name) for folder, at in kept]
    made = {s.task_key: s for s in plan.segments.values() if s.task_key is not None}
    items = []
    for task in plan.tasks:
        if task.key not in in_place:
            before.append(copy(f"{_MADE}/{task.key[:12]}/", f"{_FOLDER}/{task.key[:12]}/", stage=workshop.name))
            items.append({**_item(text, made[task.key]), "made": task.key[:12]})
    about = f"what tasks made, after stage {stage}"
    if items:
        return _install(text, f"{stage}-made", items, on, before=before, about=about)
    key = key_of({"builder-stage": f"{stage}-made", "on": [on.key, workshop.key]})
    taken = text.start(about, on.name, f"{stage}-made", key)
    text.lines += before
    return taken


def _kept(task: Task) -> str:
    """Return the folder where the results of all tasks for one library are kept."""
    return f"{_MADE}/{sha256(task.output.rpartition('/')[0].encode())[:12]}"


def _task(task: Task, inputs: str, *, keep: str) -> list[str]:
    """Return a task as text: its inputs, and its command in the environment of the sandbox's contract."""
    env = {**contract.ENVIRONMENT, **task.env}
    argv = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in sorted(env.items()))]
    argv += ["/bin/sh", "-euc", _TASK, "cregraph-task", task.output, keep, task.cwd, *task.argv]
    return [
        comment(f"task {task.name}, key {task.key}"),
        copy(f"{_INPUTS}/{task.key[:12]}/", f"{contract.INPUTS}/", stage=inputs),
        f"RUN {exec_form(argv)}",
    ]
