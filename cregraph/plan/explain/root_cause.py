"""Root causes: what somebody changed so that something must be made again, as data and as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["CARRIED", "Cause", "How", "Root", "What", "cause_text", "root_text", "several"]

#: The nearest cause of the segment that holds the lock. It differs whenever anything does, so it explains nothing.
CARRIED = "the lock that the image carries"

#: What can be at the root.
What = Literal["pin", "variable", "label", "place", "command", "owners", "assembly", "split"]
#: In which way it differs.
How = Literal["added", "removed", "changed", "rebuilt", "moved"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    """What somebody changed.

    Attributes:
        how: "added", "removed", "changed" (another version or value), "rebuilt" (same version, other bytes), "moved" (same
            bytes, other data in the lock).
        old: Version or value before; None if there was none. `new` likewise.
        asked: The places that ask for it, in the old lock if it is gone.
        via: The package that is asked for and needs this one, if no place asks for this one itself.
    """

    what: What
    name: str
    how: How
    ecosystem: str = ""
    old: str | None = None
    new: str | None = None
    asked: tuple[str, ...] = ()
    via: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Why one thing has another key. `near` is its own input that differs, as text; `roots` are what somebody changed."""

    near: str
    roots: tuple[Root, ...] = ()


def root_text(root: Root) -> str:
    """Return text such as `rlang 1.1.5 -> 1.1.6 (extras.cran of team.yaml)`."""
    if root.what == "split":
        text = "layers are split in another way"
    elif root.what == "owners":
        text = f"the owners of folders in {root.name}"
    else:
        text = _changed(root)
    lines = several([_line(one) for one in root.asked], most=2)
    why = f"for {root.via}: {lines}" if root.via and lines else f"for {root.via}" if root.via else lines
    return f"{text} ({why})" if why else text


def _changed(root: Root) -> str:
    kind = {"variable": "variable ", "label": "label "}.get(root.what, "")
    name, old, new = kind + root.name, root.old, root.new
    if root.how == "added":
        return f"{name} {new} is new" if new and root.what == "pin" else f"{name} is new"
    if root.how == "removed":
        return f"{name} {old} is gone" if old and root.what == "pin" else f"{name} is gone"
    if root.how == "rebuilt":
        return f"{name} {new}: the version stays, the bytes differ" if new else f"{name} changed"
    if root.how == "moved":
        return f"{name} {new or ''}".rstrip() + ": the bytes stay, what is known of it differs"
    if old == new or old is None or new is None:
        return f"{name} changed"
    return f"{name} {old} -> {new}"


def _line(where: str) -> str:
    """`team.yaml: extras.cran` as `extras.cran of team.yaml`."""
    file, colon, field = where.partition(": ")
    return f"{field} of {file}" if colon else where


def several(names: Sequence[str], *, most: int = 3) -> str:
    """Return text such as `a, b, c and 4 more`."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def cause_text(cause: Cause) -> str:
    """Return text such as `its needed task rlang 1.1.5 -> 1.1.6 (extras.cran of team.yaml)`."""
    if not cause.roots:
        return cause.near
    first, more = cause.roots[0], len(cause.roots) - 1
    also = f" and {more} more" if more else ""
    if cause.near in ("new", "its source", first.name):
        return root_text(first) + also
    if cause.near.endswith(f" {first.name}") and first.how in ("changed", "rebuilt"):
        return cause.near.removesuffix(first.name) + root_text(first) + also
    return f"{cause.near}: {root_text(first)}{also}"
