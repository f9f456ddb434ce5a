"""The image that a profile extends (the base), and the build root that tasks run over.

    - image: {reference: $(image), registry: snowflake, folder: a/b, repositories: [c/cpu, d/old], tag: "2.7.2", cuda: "12.8",
              build_root: registry.example/debian:12, user: jovyan, home: /home/jovyan}

`reference` (a registry's reference, `oci:DIR[:tag]` relative to the project, `docker:NAME`) goes before the list. If it is null,
the first of `repositories` below `folder` in the named `registry` that has `tag` is pinned. `build_root` is such a reference;
null or `base` means the base itself. `user` must be a user of the base, and `home` the home folder of that user. The manifest's
digest for linux/amd64 is pinned. An image becomes no segment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.image.model.reference import DockerName, LayoutName, check_repository, check_tag, parse
from cregraph.image.model.tar_entry import Entry
from cregraph.kinds import defaults
from cregraph.kinds.base import Input, PinContext, PlaceContext
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import BASE, BUILD_ROOT, Ask, Pin, Scope, Target
from cregraph.lock.rules import Offers
from cregraph.plan.parts import Placement, Segment
from cregraph.profile.step import Step
from cregraph.sources.protocol import Sources

__all__ = ["FIELDS", "NAME", "ask", "check_glibc", "entries", "pin", "place"]

NAME = "image"
ECOSYSTEM = "base"
PARTS = {"vendor": "vendor_images"}
FIELDS: Mapping[str, tuple[str, bool]] = {
    "reference": ("text", False),
    "registry": ("text", False),
    "folder": ("text", False),
    "repositories": ("texts", False),
    "tag": ("text", False),
    "cuda": ("text", False),
    "build_root": ("text", False),
    "user": ("text", False),
    "home": ("text", False),
}
GIVES_BASE = True
READS_PROJECT = True


def scope(place: str) -> Scope:
    """Return "sandbox" for the build root, else "image"."""
    return "sandbox" if place == BUILD_ROOT else "image"


def ask(step: Step) -> Sequence[Ask]:
    """Return the ask of `image:base`, and of `image:build-root` if a build root is named.

    Raises CregraphError with the line of the field that is wrong.
    """
    what: dict[str, Json]
    reference, where = step.fields.get("reference"), step.place_of("reference")
    if reference:
        what = {"reference": _normal(reference, where)}
    else:
        what, where = _listed(step), step.place_of("tag")
    cuda = step.fields.get("cuda")
    if cuda:
        if not re.fullmatch(r"[0-9]+(?:\.[0-9]+){0,2}", cuda):
            raise CregraphError(
                f"{step.place_of('cuda')}: `{cuda}` is not a CUDA version", 'write a text such as "12.8", or null'
            )
        what["cuda"] = cuda
    options = {name: text for name in ("user", "home") if (text := step.fields.get(name))}
    asks = [Ask(kind=NAME, place=BASE, stage=step.stage, what=what, where=where, options=options)]
    root = step.fields.get("build_root")
    if root and root != "base":
        where = step.place_of("build_root")
        asks.append(Ask(kind=NAME, place=BUILD_ROOT, stage=step.stage, what={"reference": _normal(root, where)}, where=where))
    return asks


def ask_text(what: Json) -> str:
    """Return what is asked as one text: equal texts, equal asks."""
    if not isinstance(what, Mapping):
        return ""
    cuda = f" cuda={what['cuda']}" if what.get("cuda") else ""
    if "reference" in what:
        return f"{what['reference']}{cuda}"
    places = ",".join(map(str, what.get("repositories") or ()))
    return f"{what.get('registry')}:{what.get('folder')}/{{{places}}}:{what.get('tag')}{cuda}"


def shown(what: Json) -> str:
    """Return the reference, or the tag that is looked for."""
    what = defaults.fields(what)
    return str(what.get("reference") or what.get("tag"))


def shown_name(pin: Pin) -> str:
    """Return the last part of the repository that the image was taken from."""
    place = pin.artifact.file or pin.artifact.source
    return place.rpartition("/")[2].partition(":")[0].partition("@")[0] or pin.name


def problems(target: Target, offers: Offers) -> list[str]:
    missing = target.asks if not target.pins else ()
    return [f"{ask.where}: the lock has no pin for `{target.id}`" for ask in missing[:1]]


def projection(target: Target, placement: Placement) -> Mapping[str, Json]:
    """Return the digests: an image by a tag, or from a folder, is the same base."""
    return {"pins": [{"sha256": p.artifact.sha256} for p in target.pins]}


def pin(target: Target, sources: Sources, context: PinContext) -> Target:
    """Return `target` with one pin: the locked one if it answers the ask, else the image that the place has now.

    Raises CregraphError when stages ask for different images, and when a build root's glibc is newer than the base's.
    """
    from cregraph.sources import images

    if not target.asks:
        return replace(target, pins=())
    first = target.asks[0]
    for other in target.asks[1:]:
        if other.what != first.what:
            raise CregraphError(
                f"{other.where}: asks for {ask_text(other.what)}, but {first.where} for {ask_text(first.what)}",
                hint="use one base: an image cannot have two",
            )
    what: Mapping[str, Json] = first.what
    asked = tuple(sorted({f"{one.stage}: {ask_text(what)}" for one in target.asks}))
    asking = cast(images.ImageSources, sources)
    for locked in context.locked:
        if _answers(locked, what):
            if target.place == BUILD_ROOT and context.facts is not None:
                check_glibc(context.facts.glibc, locked.data.get("glibc"))
            known = images.facts_for(locked.artifact, asking, context.project, pinned=locked.data.get("facts"))
            check_user(target.options, known, first.where)
            kept = replace(locked, asked=asked, data={**locked.data, "facts": images.facts_digest(known)})
            return replace(target, pins=(kept,))
    if "reference" in what:
        name = parse(what["reference"], where=first.where)
        artifact, image = images.named(name, asking, context.project)
        version = "" if isinstance(name, DockerName) else name.tag
    else:
        repositories = [f"{what['folder']}/{one}" if what["folder"] else one for one in what["repositories"]]
        artifact, image = images.first_with_tag(what["registry"], repositories, what["tag"], asking, context.project)
        version = what["tag"]
    facts = images.facts_for(artifact, asking, context.project, image=image)
    check_user(target.options, facts, first.where)
    data: dict[str, Json] = {"glibc": facts.glibc, "facts": images.facts_digest(facts)}
    if target.place == BASE:
        data["cuda"] = what.get("cuda")
    elif context.facts is not None:
        check_glibc(context.facts.glibc, facts.glibc)
    made = Pin(name=target.place, version=version, artifact=artifact, asked=asked, data=data)
    return replace(target, pins=(made,))


def place(target: Target, context: PlaceContext) -> Placement:
    """Return nothing: the layers of a base are referenced, and a build root is not part of the image."""
    return Placement()


def entries(segment: Segment, source: Input) -> Iterator[Entry]:
    return iter(())


def check_glibc(base: str | None, root: str | None) -> None:
    """Raise CregraphError if programs that are compiled over `root` could not start on `base`; both are versions of glibc.

    A program linked against a glibc asks for its symbol versions, which an older glibc does not have.
    """
    if base is None or root is None:
        lacking = "base" if base is None else "build root"
        raise CregraphError(
            f"the {lacking} has no glibc, so programs compiled over the build root cannot start on the base",
            "name an image with glibc (Debian, Ubuntu, Red Hat), or remove `build_root` to compile over the base itself",
        )
    if _numbers(root) > _numbers(base):
        raise CregraphError(
            f"the build root has glibc {root}, the base has {base}, so compiled programs cannot start on the base",
            f"name a build root with glibc {base} or older, or remove `build_root` to compile over the base itself",
        )


def check_user(options: Mapping[str, Json], facts: BaseFacts, where: str) -> None:
    """Raise CregraphError unless the base has the `user` of `options`, and that user the `home` of `options`."""
    user, home = options.get("user"), options.get("home")
    if user is not None and facts.users.get(user, (0, 0, None))[2] != home:
        known = ", ".join(
            f"`{name}` ({there})" for name, (uid, _, there) in sorted(facts.users.items()) if uid == 0 or uid >= 1000
        )
        message = f"{where}: the base image has no user `{user}` with the home folder `{home}`"
        raise CregraphError(message, hint=f"state `user` and `home` of a user that it has: {known}")


def _normal(text: str, where: str) -> str:
    name = parse(text, where=where)
    if isinstance(name, LayoutName) and (name.folder.startswith(("/", "~")) or "\\" in name.folder):
        raise CregraphError(
            f"{where}: `{text}` is a local path, which a lock must not contain",
            "write the folder relative to the project, such as `oci:bases/image`, or make a link to it in the project",
        )
    return str(name)


def _listed(step: Step) -> dict[str, Json]:
    for field in ("registry", "tag", "repositories"):
        if not step.fields.get(field):
            raise CregraphError(
                f"{step.place_of('')}: `{field}` is missing", "state `reference`, or `registry`, `repositories` and `tag`"
            )
    registry, tag, repositories = (step.fields[field] for field in ("registry", "tag", "repositories"))
    folder = (step.fields.get("folder") or "").strip("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", registry):
        raise CregraphError(
            f"{step.place_of('registry')}: `{registry}` is not the name of a registry",
            "write a name, and its host under `registry` in sources.yaml, so that the lock does not contain the host",
        )
    check_tag(tag, where=step.place_of("tag"))
    for i, one in enumerate(repositories):
        check_repository(f"{folder}/{one}" if folder else one, where=step.place_of(f"repositories[{i}]"))
    return {"registry": registry, "folder": folder, "repositories": list(repositories), "tag": tag}


def _answers(pin: Pin, what: Mapping[str, Json]) -> bool:
    return any(text.partition(": ")[2] == ask_text(what) for text in pin.asked)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
