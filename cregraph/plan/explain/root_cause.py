"""What somebody changed, so that something must be made anew, in a form for programs and in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["CARRIED", "Cause", "How", "Root", "What", "several", "told", "words"]

#: The nearest cause of the segment that holds the lock: it differs whenever anything does, and says nothing by itself.
CARRIED = "the lock that the image carries"

#: What can be at the root.
What = Literal["pin", "variable", "label", "place", "command", "owners", "assembly", "split"]
#: In which way it differs.
How = Literal["added", "removed", "changed", "rebuilt", "moved"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    """What somebody changed.

    `how`: `added`, `removed`, `changed` (another version or value), `rebuilt` (the version stays, the bytes differ), `moved` (the
    bytes stay, what is said of them differs). `old` and `new` are versions or values, None where there is none. `asked` are the
    lines that ask for it, in the new lock or, for what is gone, in the old; where nobody asks for a pin itself, `via` names the
    package that is asked for and needs it.
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
    """Why one thing is not what it was. `near` is the input of its own that differs, in words; `roots` what that comes from."""

    near: str
    roots: tuple[Root, ...] = ()


def words(root: Root) -> str:
    """`rlang 1.1.5 -> 1.1.6 (extras.cran of team.yaml)`."""
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
    """`a, b, c and 4 more`."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def told(cause: Cause) -> str:
    """The nearest input and what it comes from: `its needed task rlang 1.1.5 -> 1.1.6 (extras.cran of team.yaml)`."""
    if not cause.roots:
        return cause.near
    first, more = cause.roots[0], len(cause.roots) - 1
    also = f" and {more} more" if more else ""
    if cause.near in ("new", "its source", first.name):
        return words(first) + also
    if cause.near.endswith(f" {first.name}") and first.how in ("changed", "rebuilt"):
        return cause.near.removesuffix(first.name) + words(first) + also
    return f"{cause.near}: {words(first)}{also}"
