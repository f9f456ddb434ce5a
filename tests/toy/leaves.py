"""A kind that exists in the tests only: leaves, that are dried in the sandbox and hung into a folder.

    - toy: {tree: /opt/leaves, index: "https://leaves.invalid/", leaves: [oak, "elm >=2"]}

The index is a text of lines `name version needs`, where `needs` are names, separated by commas, or `-`. A leaf is a text,
`<name>-<version>.leaf`. To dry it, a task sorts its lines and says which dried leaves it lay on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.formats.untrusted_tar import PACKAGE, Reader
from cregraph.image.model.tar_entry import Entry
from cregraph.kinds.base import Input, PinContext, PlaceContext
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.plan.parts import Placement, Segment, Task, segment, task
from cregraph.profile.step import Step
from cregraph.sources.protocol import Sources
from cregraph.sources.routes import Routes
from cregraph.vendor.vendor_files import put_files
from cregraph.verify.installed import InImage, Installed

NAME = "toy"
ECOSYSTEM = NAME
PARTS = {"vendor": __name__, "verify": __name__}
FIELDS: Mapping[str, tuple[str, bool]] = {"tree": ("path", True), "index": ("text", True), "leaves": ("texts", True)}
BUCKETS = 2
STANDS_ON = frozenset({"image"})

_LEAF = re.compile(r"([a-z]+)(?: >=([0-9]+))?")
_FILE = re.compile(r"[a-z.]+/[a-z]+-[0-9]+\.leaf")
_DRY = """\
umask 022
name=$1 version=$2 at=$3
shift 3
{ echo "$name $version"; for under in "$@"; do head -n 1 "$under/leaf"; done; sort /cregraph/in/leaf; } > "$at/leaf"
"""


def ask(step: Step) -> Sequence[Ask]:
    """One ask a leaf. Raises CregraphError with the line of what is no leaf."""
    asks = []
    for number, text in enumerate(step.fields["leaves"]):
        where = step.place_of(f"leaves[{number}]")
        if not _LEAF.fullmatch(text):
            raise CregraphError(f"{where}: `{text}` is not a leaf", hint="write `oak` or `oak >=2`")
        options = {"index": step.fields["index"]}
        asks.append(Ask(kind=NAME, place=step.fields["tree"], stage=step.stage, what=text, where=where, options=options))
    return asks


def pin(target: Target, sources: Sources, context: PinContext) -> Target:
    """The newest leaf of each name that is asked for or needed; a locked one stays while it is new enough."""
    index = str(target.options["index"]).removeprefix("https://")
    text = sources.read(kind=NAME, source=index, file="INDEX").decode()
    listed: dict[str, list[tuple[int, list[str]]]] = {}
    for name, version, needs in (line.split() for line in text.splitlines()):
        listed.setdefault(name, []).append((int(version), needs.split(",") if needs != "-" else []))
    locked = {p.name: int(p.version) for p in context.locked}
    wanted = [(a.what, a) for a in target.asks]
    todo: list[tuple[str, str]] = [(a.what, f"{a.where} asks for") for a in target.asks]
    chosen: dict[str, tuple[int, list[str]]] = {}
    while todo:
        text, who = todo.pop(0)
        name, _, least = text.partition(" >=")
        fitting = [found for found in listed.get(name, ()) if found[0] >= int(least or 0)]
        if not fitting:
            raise CregraphError(f"{who} `{text}`, which {target.options['index']} does not have")
        if name not in chosen:
            chosen[name] = next((found for found in fitting if found[0] == locked.get(name)), max(fitting))
            todo += [(need, f"{name} needs") for need in chosen[name][1]]
    pins = []
    for name, (version, needs) in sorted(chosen.items()):
        artifact, _ = sources.take(kind=NAME, source=index, file=f"{name}-{version}.leaf")
        asked = tuple(sorted(f"{a.stage}: {what}" for what, a in wanted if what.partition(" ")[0] == name))
        made = Pin(name=name, version=str(version), artifact=artifact, needs=tuple(f"toy:{n}" for n in needs), asked=asked)
        pins.append(replace(made, provides=own_tokens(made)))
    return replace(target, pins=tuple(pins))


def own_tokens(pin: Pin) -> tuple[str, ...]:
    """`toy:<name> <version>`."""
    return (f"{NAME}:{pin.name} {pin.version}",)


def locations(artifact: Artifact, routes: Routes) -> tuple[str, ...]:
    """A file next to the index."""
    return routes.of_url(f"https://{artifact.source}{artifact.file}")


def place(target: Target, context: PlaceContext) -> Placement:
    """A task that dries each leaf over those that it needs, and a segment of what it gives."""
    stages = context.stage_of(target)
    pins = {f"toy:{p.name}": p for p in target.pins}
    tasks: dict[str, Task] = {}

    def dry(p: Pin) -> Task:
        if p.name not in tasks:
            under = [dry(pins[need]) for need in p.needs]
            at = f"{target.place}/{p.name}"
            tasks[p.name] = task(
                assembly=context.assembly,
                kind=NAME,
                stage=stages[p.name],
                name=p.name,
                root=context.build_root,
                argv=("/bin/sh", "-euc", _DRY, "dry", p.name, p.version, at, *(t.output for t in under)),
                env={},
                output=at,
                inputs={"leaf": p.artifact},
                results={t.key: t.output for t in under},
            )
        return tasks[p.name]

    segments = {
        p.name: segment(
            context.assembly, target, stage=stages[p.name], name=p.name, place={"at": dry(p).output}, source=dry(p), size=1
        )
        for p in target.pins
    }
    return Placement(
        segments=tuple(segments.values()), tasks=tuple(tasks.values()), of={name: made.key for name, made in segments.items()}
    )


def entries(segment: Segment, source: Input) -> Iterator[Entry]:
    """The files that the task left."""
    at = str(segment.place["at"]).strip("/")
    with source.path().open("rb") as file:
        tar = Reader(file, what=segment.name, policy=PACKAGE)
        for member in tar:
            if member.type == "file":
                data = tar.read()
                yield Entry(path=f"{at}/{member.path}", mode=0o644, size=len(data), chunks=lambda data=data: (data,))


# -- vendor

FOLDERS = {"leaves": ("INDEX",)}
put = put_files


def vendor_path(artifact: Artifact) -> str:
    """`leaves/<host>/<file>`."""
    if not _FILE.fullmatch(f"{artifact.source}{artifact.file}"):
        raise CregraphError(f"`{artifact.source}{artifact.file}` is not a leaf")
    return f"leaves/{artifact.source}{artifact.file}"


def write_index(folder: Path, pins: Sequence[Pin]) -> None:
    """An index of the pinned leaves, next to them."""
    for source in {p.artifact.source for p in pins}:
        rows = [(p.name, p.version, ",".join(n.removeprefix("toy:") for n in p.needs) or "-") for p in pins]
        (folder / "leaves" / source / "INDEX").write_text("".join(" ".join(row) + "\n" for row in rows))


def sources(folder: Path) -> Mapping[str, Json]:
    """Where each index lies."""
    return {"url": {f"https://{path.name}/": f"./leaves/{path.name}/" for path in sorted((folder / "leaves").iterdir())}}


# -- verify


def is_record(path: str) -> bool:
    """A dried leaf says what it is."""
    return path.endswith("/leaf")


def installed(target: Target, pins: Mapping[str, Pin], image: InImage) -> Iterable[Installed]:
    """The leaves in the target's folder."""
    for name in image.names(image.resolved(target.place)):
        record = f"{image.resolved(target.place)}/{name}/leaf"
        held = image.contents.file(record)
        if held is not None and held.data is not None:
            called, _, version = held.data.decode().splitlines()[0].partition(" ")
            yield Installed(name=called, version=version, record=record, files={record: None})
