"""What a failed task's log says about the cause, and the ways out of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from cregraph.kinds import parts
from cregraph.kinds.conda.conda_hints import HEADERS, LIBRARIES, MODULES, TOOLS
from cregraph.plan.parts import Task

__all__ = ["Finding", "findings", "way_out"]

_MOST = 4  # findings that are worth a line each
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+/-]*"


#: What a line of a log means, and the conda package that would help, if known.
Cause = tuple[str, str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One cause: the line of the log, what it means, and the conda package that would help, if known."""

    line: str
    says: str
    package: str | None = None


def findings(log: str) -> list[Finding]:
    """Return the causes that a log names, in its order, each once. `log` is text without control characters."""
    found: dict[str, Finding] = {}
    for line in log.splitlines():
        for one in _of(line[:2000]):
            found.setdefault(one.says, one)
        if len(found) >= _MOST:
            break
    return list(found.values())[:_MOST]


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


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Cause]], ...]:
    """Return the table, then the patterns that kinds add."""
    more = (row for hints in parts("hints").values() for row in hints.PATTERNS)
    return tuple((re.compile(pattern), make) for pattern, make in (*_TABLE, *more))


def _of(line: str) -> Iterator[Finding]:
    for pattern, make in _patterns():
        match = pattern.search(line)
        if match is not None:
            says, package = make(match)
            yield Finding(line=line.strip()[:300], says=says, package=package)
            return


def _header(match: re.Match[str]) -> Cause:
    path = match[1]
    return f"the header {path} is missing", HEADERS.get(path) or HEADERS.get(path.partition("/")[0] + "/")


def _library(match: re.Match[str]) -> Cause:
    return f"the library {match[1]} (-l{match[1]}) is missing", LIBRARIES.get(match[1])


def _module(match: re.Match[str]) -> Cause:
    name = match[1]
    package = MODULES.get(name) or LIBRARIES.get(name.removeprefix("lib"))
    return f"{name} is missing (asked of pkg-config)", package


def _tool(match: re.Match[str]) -> Cause:
    name = match[1].rpartition("/")[2]
    return f"the program {name} is missing", TOOLS.get(name)


def _cmake(match: re.Match[str]) -> Cause:
    name = match[1].lower()
    return f"{match[1]} is missing (asked for by CMake)", LIBRARIES.get(name) or MODULES.get(name)


def _glibc(match: re.Match[str]) -> Cause:
    return f"something was built for another C library ({match[1]}): take other versions, or a newer base or build root", None


def _said(says: str, package: str | None = None) -> Callable[[re.Match[str]], Cause]:
    return lambda _match: (says, package)


_RUST = _said("Rust is missing", "rust")
_COMPILER = _said("there is no C compiler that works", "c-compiler")
_NETWORK = _said("it tries the network, which no task has: take a version or a package that brings what it would download")
_MEMORY = _said("it had not memory enough: let fewer tasks run at once (--jobs 1), or give the machine more")
_DISK = _said("a disk is full: the store's, or what a task may write to /tmp")

#: Regular expressions for a line, and the cause that follows from a match. The first that matches counts.
_TABLE: tuple[tuple[str, Callable[[re.Match[str]], Cause]], ...] = (
    (rf"fatal error: ['\"]?({_NAME})['\"]?(?:: No such file or directory| file not found)", _header),
    (r"cannot find -l([A-Za-z0-9_.+-]+?)(?::|\s|$)", _library),
    (r"unable to find library -l([A-Za-z0-9_.+-]+)", _library),
    (rf"No package '({_NAME})' found", _module),
    (rf"Package '?({_NAME}?)'?,? (?:was )?not found in the pkg-config search path", _module),
    (rf"Package '({_NAME})', required by '[^']*', not found", _module),
    (rf"Configuration failed because ({_NAME}) was not found", _module),
    (r"\b(?:[Cc]argo|rustc|Rust)\b.{0,40}(?:not found|is required|not installed|not available)", _RUST),
    (rf"(?:^|[:\s])(/?{_NAME}): command not found", _tool),
    (rf"(?:sh|line)[:\s]+\d+: (?:exec: )?(/?{_NAME}): not found", _tool),
    (rf"make(?:\[\d+\])?: (/?{_NAME}): No such file or directory", _tool),
    (rf"configure: error: (?:cannot find|could not find|missing)(?: program)? ({_NAME})$", _tool),
    (r"Could NOT find ([A-Za-z0-9_]+)", _cmake),
    (r"Could not find a package configuration file provided by \"([A-Za-z0-9_]+)\"", _cmake),
    (r"no acceptable C compiler|C compiler cannot create executables", _COMPILER),
    (r"Could not resolve host|cannot open URL|name resolution|Network is unreachable", _NETWORK),
    (r"Failed to connect to|Couldn't connect to server|URLError", _NETWORK),
    (r"std::bad_alloc|virtual memory exhausted|[Cc]annot allocate (?:memory|vector)|out of memory", _MEMORY),
    (r"internal compiler error: Killed|Killed signal terminated program", _MEMORY),
    (r"No space left on device", _DISK),
    (r"version `(GLIBC(?:XX)?_[0-9.]+)' not found", _glibc),
)
