"""Names of `Kind` that most kinds share. A kind states only those that differ, and `KINDS` gives it the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from cregraph.digest import Json, canonical
from cregraph.errors import CregraphError
from cregraph.lock.pins import Artifact, Ask, Pin, Scope, Target
from cregraph.lock.rules import Offers
from cregraph.plan.parts import Placement
from cregraph.sources.routes import Routes

#: The names of `Kind` that a kind need not state.
__all__ = [
    *("BUCKETS", "GIVES_BASE", "INDEXED", "READS_PROJECT", "SNAPSHOTS", "STANDS_ON"),
    *("ask_text", "base_has", "folder", "hidden", "locations", "own_tokens", "problems", "projection"),
    *("scope", "shown", "shown_name", "tools"),
]

#: What lies below this folder exists in the sandbox only.
SANDBOX = "/cregraph/"

GIVES_BASE = False
STANDS_ON: frozenset[str] = frozenset()
READS_PROJECT = False
SNAPSHOTS = False
BUCKETS = 1
INDEXED = False

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def scope(place: str) -> Scope:
    """Return "sandbox" for a place below SANDBOX, else "image"."""
    return "sandbox" if place.startswith(SANDBOX) else "image"


def ask_text(what: Json) -> str:
    """Return a text as it is, and nothing for what is not a text."""
    return what if isinstance(what, str) else ""


def fields(what: Json) -> Mapping[str, Json]:
    """Return an ask that is an object; nothing for what a hand edit left in its place."""
    return what if isinstance(what, Mapping) else {}


def shown(what: Json) -> str:
    """Return a text as it is, and the beginning of other JSON."""
    return what if isinstance(what, str) else canonical(what).decode()[:120]


def shown_name(pin: Pin) -> str:
    """Return the pin's own name."""
    return pin.name


def _no(*_: object) -> bool:
    return False


def _none(*_: object) -> tuple[str, ...]:
    return ()


#: Pins are as visible as their target, and a base has no packages of the kind.
hidden = base_has = _no
#: No pin needs a target of the sandbox, and pins need not provide a token.
tools = own_tokens = _none


def asked_name(what: Json) -> str | None:
    """Return the name that a text begins with, such as `r-base` of `r-base =4.5.2`."""
    match = _NAME.match(what) if isinstance(what, str) else None
    return match.group() if match else None


def unanswered(
    target: Target, name_of: Callable[[Any], str | None], answered: Callable[[str], bool] = lambda name: False
) -> list[str]:
    """Return a sentence for each ask whose name (`name_of`) no pin has and that is not `answered` elsewhere."""
    names = {p.name for p in target.pins}
    asked = [(ask, name_of(ask.what)) for ask in target.asks]
    return [
        f"{ask.where}: `{name}` is asked for, but the lock has no pin for it"
        for ask, name in asked
        if name is not None and name not in names and not answered(name)
    ]


def problems(target: Target, offers: Offers) -> list[str]:
    """Return a sentence for each ask that begins with a name that no pin has."""
    return unanswered(target, asked_name)


def edited(problem: str) -> CregraphError:
    """Return the error for a lock that was edited by hand."""
    return CregraphError(problem, hint="run `cregraph lock`: the lock was edited by hand")


def check_edited(what: str, package: str, right: Mapping[str, object]) -> None:
    """Raise CregraphError for the first field of a pin that is not `right`, because texts of pins become parts of paths."""
    for field, good in right.items():
        if not good:
            raise CregraphError(
                f"{what} {package}: the lock's `{field}` is missing or invalid",
                hint=f"run `cregraph lock --upgrade-package {package}`",
            )


def folder(ask: Ask) -> str | None:
    """Return None: asks take no folder of the project."""
    return None


def locations(artifact: Artifact, routes: Routes) -> tuple[str, ...]:
    """Return where the URL leads that an artifact's source is."""
    return routes.of_url(artifact.source)


def projection(target: Target, placement: Placement) -> Mapping[str, Json]:
    """Return the name, version, sha256 and size of each pin."""
    pins = [{"name": p.name, "version": p.version, "sha256": p.artifact.sha256, "size": p.artifact.size} for p in target.pins]
    return {"pins": pins}


def places(target: Target, placement: Placement) -> Mapping[str, Json]:
    """Return the place, sha256 and size of each segment. A file of the project or of a URL has no name but its place."""
    made = [
        {**s.place, "sha256": s.artifact.sha256, "size": s.artifact.size} if s.artifact else dict(s.place)
        for s in placement.segments
    ]
    return {"places": sorted(made, key=canonical)}
