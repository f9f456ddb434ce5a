"""Places in the image as kinds state them: a path, a mode, an owner."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Ask
from cregraph.profile.step import Step

__all__ = ["absolute", "owner_of", "places_asked", "places_of", "real_path", "shown_at"]


def absolute(path: str, where: str) -> str:
    """Return `path`. Raise CregraphError unless it is an absolute, normal path that a layer can hold."""
    if not path.startswith("/") or path.endswith("/") or re.search(r"//|/\.\.?(/|$)|[\0-\x1f]", path):
        raise CregraphError(
            f"{where}: `{path}` is not an absolute path of a file in the image", hint="write it as /opt/team/file"
        )
    return path


def real_path(path: str, facts: BaseFacts, where: str) -> str:
    """Return `path` with the base's symbolic links followed, as `BaseFacts.resolve`. Raise CregraphError for a loop of links."""
    try:
        return facts.resolve(path)
    except ValueError as error:
        raise CregraphError(f"{where}: {error} in the base image", hint="choose another place") from None


def places_asked(step: Step) -> dict[str, Json]:
    """Return the fields `at`, `mode` and `owner` of a step in one form. Raises CregraphError with the line of a wrong one."""
    at = step.fields["at"]
    what: dict[str, Json] = {"at": sorted([at] if isinstance(at, str) else list(at))}
    for place in what["at"]:
        absolute(place, step.place_of("at"))
    if step.fields.get("mode") is not None:
        what["mode"] = mode_of(step.fields["mode"], step.place_of("mode"))
    if step.fields.get("owner") is not None:
        what["owner"] = step.fields["owner"]
    return what


def places_of(ask: Ask, facts: BaseFacts) -> Iterator[tuple[str, dict[str, Json]]]:
    """Yield each path that an ask names, with the place of its segment: the resolved path, the owner and the mode."""
    what = ask.what
    uid, gid = owner_of(what.get("owner"), facts, ask.where)
    mode = {"mode": what["mode"]} if "mode" in what else {}
    for at in what["at"]:
        yield at, {"at": real_path(at, facts, ask.where), "uid": uid, "gid": gid, **mode}


def shown_at(text: str, what: Mapping[str, Json]) -> str:
    """Return `text at <first place>` for what an ask puts at `what["at"]`."""
    at = what.get("at")
    return f"{text} at {at[0]}" if isinstance(at, list) and at else text


def mode_of(text: str, where: str) -> int:
    """Return the permission bits of a text such as `0755`."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise CregraphError(f"{where}: mode: `{text}` is not a file mode", hint='write it as "0644" or "0755", in quotes')
    return int(text, 8)


def owner_of(name: str | None, facts: BaseFacts, where: str) -> tuple[int, int]:
    """Return the uid and gid of a user of the base; 0, 0 for None."""
    if name is None:
        return 0, 0
    if name not in facts.users:
        known = ", ".join(sorted(facts.users)[:8])
        raise CregraphError(f"{where}: owner: the base has no user `{name}`", hint=f"use one of its users: {known}, …")
    uid, gid, _home = facts.users[name]
    return uid, gid
