"""Files and links of a team: shipped with a recipe, next to the profile, or written in the recipe.

    - file: {at: /opt/sfnb/CRE_VERSION, text: "v1\\n"}
    - file: {at: [/home/jupyter/x.py, /root/x.py], from: ./x.py, mode: "0755", owner: jupyter}
    - file: {at: /opt/sfnb/helpers, from: ./helpers}            # a folder: all that is in it
    - file: {at: /root/micromamba, link: /home/jupyter/micromamba}

The sha256 of each file is pinned. `owner` is a user of the base; the default is 0:0.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.formats.inflate import part_of
from cregraph.image.model.tar_entry import Entry, from_bytes
from cregraph.kinds import defaults
from cregraph.kinds.base import Input, PinContext, PlaceContext
from cregraph.kinds.image_paths import absolute, places_asked, places_of, shown_at
from cregraph.lock.pins import Ask, Pin, Target
from cregraph.lock.rules import Offers
from cregraph.plan.parts import Placement, Segment, segment
from cregraph.profile.step import Step
from cregraph.sources.protocol import Sources

NAME = "file"
ECOSYSTEM = NAME
PARTS = {"entries": "file"}
FIELDS: Mapping[str, tuple[str, bool]] = {
    "at": ("paths", True),
    "from": ("path", False),
    "text": ("text", False),
    "link": ("text", False),
    "mode": ("text", False),
    "owner": ("text", False),
}

READS_PROJECT = True
projection = defaults.places


def ask(step: Step) -> Sequence[Ask]:
    """Return one ask, none for a link to itself. Raise CregraphError unless exactly one of from, text and link is given."""
    fields = step.fields
    stated = [key for key in ("from", "text", "link") if fields.get(key) is not None]
    if len(stated) != 1:
        raise CregraphError(
            f"{step.place_of('')}: a file step needs one of `from`, `text` and `link`, not {' and '.join(stated) or 'none'}"
        )
    what = {**places_asked(step), stated[0]: fields[stated[0]]}
    what["at"] = [at for at in what["at"] if at != what.get("link")]
    where = step.place_of("from" if "from" in what else "at")  # which file it is may be the profile's to say
    return (Ask(kind=NAME, place="", stage=step.stage, what=what, where=where),) if what["at"] else ()


def ask_text(what: Json) -> str:
    """Return the `from` of an ask, as pins repeat it."""
    return defaults.ask_text(what.get("from") if isinstance(what, Mapping) else what)


def shown(what: Json) -> str:
    """Return what is put where; with several places, the first."""
    what = defaults.fields(what)
    return shown_at(str(what.get("from") or what.get("link") or "text"), what)


def folder(ask: Ask) -> str | None:
    """Return the file or folder of the project that is asked for, if there is one."""
    return ask_text(ask.what) or None


def problems(target: Target, offers: Offers) -> list[str]:
    """Return a sentence for each file or folder that has no pin."""

    def name_of(what: Json) -> str | None:
        return ask_text(what) or None

    return defaults.unanswered(target, name_of, lambda name: any(p.name.startswith(f"{name}/") for p in target.pins))


def written(*, assembly: int, stage: str, at: str, text: str) -> Segment:
    """Return the segment of a file that cregraph itself writes into the image."""
    place = {"at": at, "text": text, "uid": 0, "gid": 0}
    return segment(assembly, Target(kind=NAME, place=""), stage=stage, name=at, place=place, size=1)


def pin(target: Target, sources: Sources, context: PinContext) -> Target:
    """Return one pin for each file that `from` names. Only the project's own files are read."""
    from cregraph.sources.project_files import Local

    local = Local(project=context.project, shipped=context.shipped)
    pins: dict[str, Pin] = {}
    for ask in target.asks:
        source = ask.what.get("from")
        if source is None:
            continue
        try:
            files = local.files(source)
        except CregraphError as error:
            raise CregraphError(f"{ask.where}: {error.message}", error.hint) from None
        for file in files:
            artifact, _ = sources.take(kind="path", source=file, file="")
            text = f"{ask.stage}: {source}"
            old = pins.get(file)
            asked = tuple(sorted({text, *(old.asked if old else ())}))
            pins[file] = Pin(name=file, version="", artifact=artifact, asked=asked)
    return replace(target, pins=tuple(pins.values()))


def place(target: Target, context: PlaceContext) -> Placement:
    """Return a segment for each place of each file. Raise CregraphError for an owner that the base does not have."""
    segments: list[Segment] = []
    pins = {p.name: p for p in target.pins}
    for ask in target.asks:
        what = _what(ask)
        for at, where in places_of(ask, context.facts):
            if "from" not in what:
                kept = {key: what[key] for key in ("text", "link") if key in what}
                segments.append(_segment(context, target, ask, at, {**where, **kept}))
                continue
            below = what["from"].rstrip("/") + "/"
            chosen = {name: p for name, p in pins.items() if name == what["from"] or name.startswith(below)}
            if not chosen:
                raise CregraphError(
                    f"the lock has no pin of `{what['from']}`, but {ask.where} asks for it", hint="run `cregraph lock`"
                )
            for name, found in sorted(chosen.items()):
                end = "" if name == what["from"] else "/" + name.removeprefix(below)
                segments.append(_segment(context, target, ask, at + end, {**where, "at": where["at"] + end}, found))
    return Placement(segments=tuple({one.key: one for one in segments}.values()))  # two stages may ask for the same file


def entries(segment: Segment, source: Input) -> Iterator[Entry]:
    place = segment.place
    path, uid, gid = place["at"].lstrip("/"), place["uid"], place["gid"]
    if "link" in place:
        yield Entry(path=path, type="symlink", mode=0o777, uid=uid, gid=gid, link=place["link"])
        return
    mode = place.get("mode", 0o644)
    if "text" in place:
        yield from_bytes(path, place["text"].encode(), mode=mode, uid=uid, gid=gid)
    elif segment.artifact is not None:  # verified bytes, so size and sha256 are known without reading them
        known = segment.artifact
        chunks = functools.partial(part_of, source.path(), 0, known.size)
        yield Entry(path=path, mode=mode, uid=uid, gid=gid, size=known.size, sha256=known.sha256, chunks=chunks)


def _what(ask: Ask) -> Mapping[str, Json]:
    """Return what a lock asks for. Raises CregraphError for a form that `ask` does not write: a lock edited by hand."""
    what = ask.what if isinstance(ask.what, Mapping) else {}
    places, mode = what.get("at"), what.get("mode", 0)
    texts = [what[key] for key in ("from", "text", "link", "owner") if key in what]
    if (
        not (isinstance(places, list) and places and all(isinstance(at, str) for at in places))
        or not all(isinstance(text, str) for text in texts)
        or sum(key in what for key in ("from", "text", "link")) != 1
        or not (type(mode) is int and 0 <= mode <= 0o7777)
    ):
        raise CregraphError(
            f"{ask.where}: the lock has an unknown form for this file",
            hint="undo the edit (`git checkout -- FILE`), or remove the lock and run `cregraph lock`",
        )
    for at in places:
        absolute(at, ask.where)
    return what


def _segment(
    context: PlaceContext, target: Target, ask: Ask, name: str, place: Mapping[str, Json], pin: Pin | None = None
) -> Segment:
    source = pin.artifact if pin else None
    size = source.size if source else len(str(place.get("text", "")))
    return segment(context.assembly, target, stage=ask.stage, name=name, place=place, source=source, size=size)
