"""What a failed task's log says about the cause, and the ways out of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cregraph.kinds import parts
from cregraph.kinds.conda.conda_hints import held
from cregraph.plan.parts import Task

__all__ = ["Finding", "findings", "way_out"]

_MOST = 4  # findings that are worth a line each
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+/-]*"
_TOOL = r"(?:[^\s:]*/)?([A-Za-z0-9_][A-Za-z0-9_.+-]*)"  # its name without the folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One cause: the line of the log, what it means, and the conda package that would help, if known."""

    line: str
    says: str
    package: str | None = None


def findings(log: str) -> list[Finding]:
    """Return the causes that a log names, in its order, each once. `log` is text without control characters."""
    patterns = [*_TABLE, *((pattern, says, ()) for hints in parts("hints").values() for pattern, says in hints.PATTERNS)]
    found: dict[str, Finding] = {}
    for line in (line[:2000] for line in log.splitlines()):
        for pattern, says, names in patterns:
            match = re.search(pattern, line)
            if match is not None:
                text = says.format(*match.groups())
                found.setdefault(text, Finding(line=line.strip()[:300], says=text, package=_package(match, names)))
                break
        if len(found) >= _MOST:
            break
    return list(found.values())


def _package(match: re.Match[str], names: str | Sequence[str]) -> str | None:
    """Return the package that would help: `names`, or one that has the name that matched, of one of these sorts (held.yaml)."""
    if isinstance(names, str):
        return names
    name = match[1] if names else ""
    ways = (name, name.lower(), name.partition("/")[0] + "/", name.rpartition("/")[2], name.removeprefix("lib"))
    return next((held()[sort][way] for sort in names for way in ways if way in held()[sort]), None)


def way_out(task: Task, log: str, in_channel: Callable[[str], bool | None]) -> str | None:
    """Return what a user can do about it, a line each. `in_channel` tells whether a channel of this project has a package."""
    hints = parts("hints").get(task.kind)
    found = findings(log)
    lines = [
        f"{one.says}: ask for conda's {one.package} in {hints.FIELD}" if one.package and hints else one.says for one in found
    ]
    if hints is not None:
        lines.append(("or " if lines else "") + hints.ways_out(task.name.partition(" ")[0], in_channel))
        lines += [] if found else [hints.USUAL]
    return "\n".join(lines) or None


_HEADER = "the header {0} is missing"
_LIBRARY = "the library {0} (-l{0}) is missing"
_MODULE = "{0} is missing (asked of pkg-config)"
_PROGRAM = "the program {0} is missing"
_CMAKE = "{0} is missing (asked for by CMake)"
_COMPILER = "there is no C compiler that works"
_NETWORK = "it tries the network, which no task has: take a version or a package that brings what it would download"
_MEMORY = "it had not memory enough: let fewer tasks run at once (--jobs 1), or give the machine more"
_DISK = "a disk is full: the store's, or what a task may write to /tmp"
_GLIBC = "something was built for another C library ({0}): take other versions, or a newer base or build root"

#: Regular expressions for a line, what a match means, and the conda package that helps, or the sorts of names in held.yaml to
#: look for. The first that matches counts.
_TABLE: tuple[tuple[str, str, str | tuple[str, ...]], ...] = (
    (rf"fatal error: ['\"]?({_NAME})['\"]?(?:: No such file or directory| file not found)", _HEADER, ("headers",)),
    (r"cannot find -l([A-Za-z0-9_.+-]+?)(?::|\s|$)", _LIBRARY, ("libraries",)),
    (r"unable to find library -l([A-Za-z0-9_.+-]+)", _LIBRARY, ("libraries",)),
    (rf"No package '({_NAME})' found", _MODULE, ("modules", "libraries")),
    (rf"Package '?({_NAME}?)'?,? (?:was )?not found in the pkg-config search path", _MODULE, ("modules", "libraries")),
    (rf"Package '({_NAME})', required by '[^']*', not found", _MODULE, ("modules", "libraries")),
    (rf"Configuration failed because ({_NAME}) was not found", _MODULE, ("modules", "libraries")),
    (r"\b(?:[Cc]argo|rustc|Rust)\b.{0,40}(?:not found|is required|not installed|not available)", "Rust is missing", "rust"),
    (rf"(?:^|[:\s]){_TOOL}: command not found", _PROGRAM, ("programs",)),
    (rf"(?:sh|line)[:\s]+\d+: (?:exec: )?{_TOOL}: not found", _PROGRAM, ("programs",)),
    (rf"make(?:\[\d+\])?: {_TOOL}: No such file or directory", _PROGRAM, ("programs",)),
    (rf"configure: error: (?:cannot find|could not find|missing)(?: program)? {_TOOL}$", _PROGRAM, ("programs",)),
    (r"Could NOT find ([A-Za-z0-9_]+)", _CMAKE, ("libraries", "modules")),
    (r"Could not find a package configuration file provided by \"([A-Za-z0-9_]+)\"", _CMAKE, ("libraries", "modules")),
    (r"no acceptable C compiler|C compiler cannot create executables", _COMPILER, "c-compiler"),
    (r"Could not resolve host|cannot open URL|name resolution|Network is unreachable", _NETWORK, ()),
    (r"Failed to connect to|Couldn't connect to server|URLError", _NETWORK, ()),
    (r"std::bad_alloc|virtual memory exhausted|[Cc]annot allocate (?:memory|vector)|out of memory", _MEMORY, ()),
    (r"internal compiler error: Killed|Killed signal terminated program", _MEMORY, ()),
    (r"No space left on device", _DISK, ()),
    (r"version `(GLIBC(?:XX)?_[0-9.]+)' not found", _GLIBC, ()),
)
