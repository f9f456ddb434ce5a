"""Python packages in messages: ways out of a failed build of a wheel, and checks of an image (`cregraph test`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cregraph.digest import Json
from cregraph.kinds import defaults
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Target

__all__ = ["FAILED", "FIELD", "PATTERNS", "USUAL", "checks", "ways_out"]

FIELD = "`build` in the recipe"
USUAL = "add the requirements of its build to `build` in the recipe"
FAILED = "Python package {}: building its wheel failed"
PATTERNS = ()


def ways_out(name: str, in_channel: Callable[[str], bool | None]) -> str:
    return "choose a version that has a wheel for the base's Python"


def checks(targets: Sequence[Target], facts: BaseFacts | None, *, magic: bool) -> Iterator[tuple[str, str, Json]]:
    """Return checks that each distribution is importable at the version of the lock, or else of the base."""
    from packaging.utils import canonicalize_name

    base = facts.python.distributions if facts and facts.python else {}
    found: dict[str, str] = {}
    for target in (target for target in targets if target.kind == "python"):
        pins = {p.name: p.version for p in target.pins if p.data.get("role") != "build"}
        for ask in target.asks:
            asked = canonicalize_name(defaults.asked_name(ask.what) or "")
            version = pins.get(asked) or base.get(asked)
            if version:  # else its marker does not fit this Python
                found[asked] = version
    for name, version in sorted(found.items()):
        yield f"python: {name} {version}", "python_package", {"package": name, "version": version}
    yield "python: pip check", "pip_check", {}
