"""What a failed task's log says of the cause, and the ways out of it. Pure but for `listed`, which reads what a store has."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cregraph.engines.providers import HEADERS, LIBRARIES, MODULES, TOOLS
from cregraph.plan.parts import Task
from cregraph.store import Store

__all__ = ["Finding", "findings", "listed", "way_out"]

_MOST = 4  # findings that are worth a line each
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+/-]*"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One cause: `line` is the log's, `says` what it means, `package` the conda package that would help, if that is known."""

    line: str
    says: str
    package: str | None = None


def findings(log: str) -> list[Finding]:
    """The causes that a log names, in their order, each once. `log` is text without control characters."""
    found: dict[str, Finding] = {}
    for line in log.splitlines():
        for one in _of(line[:2000]):
            found.setdefault(one.says, one)
        if len(found) >= _MOST:
            break
    return list(found.values())[:_MOST]


def way_out(task: Task, log: str, in_channel: Callable[[str], bool | None]) -> str | None:
    """What a user can do about it, a line each. `in_channel` says whether a conda channel of this project lists a package."""
    found = findings(log)
    lines = [_sentence(one, task) for one in found]
    name = task.name.partition(" ")[0]
    if task.kind == "r":
        conda = f"r-{name.lower()}"
        there = in_channel(conda)
        known = ", which the channel has," if there else ""
        ways = [] if there is False else [f"take the conda package {conda}{known} in extras.conda_r"]
        ways += [
            "take a built one of the snapshot (extras.cran_binaries)",
            f"ask for another version (extras.cran: {name}==VERSION)",
        ]
        first = "or " if lines else ""
        lines.append(first + ", or ".join(ways))
        if not found:
            lines.append("a library that it needs to compile against is asked for by name in extras.conda_r")
    elif task.kind == "python":
        lines.append(("or " if lines else "") + "ask for a version that has a wheel for the base's Python")
        if not found:
            lines.append("what its build needs is added to `build` in the recipe")
    return "\n".join(lines) or None


def listed(store: Store, package: str) -> bool | None:
    """Whether an index of a conda channel that the store holds lists `package`; None when that cannot be told from it.

    Indexes that are split (shards) name their packages too, in msgpack: a text is preceded by its length.
    """
    name = package.encode()
    known = False
    for path in sorted((store.root / "repodata").glob("*")) if (store.root / "repodata").is_dir() else ():
        if not path.is_file() or path.stat().st_size == 0 or path.name.endswith(".info.json"):
            continue
        whole = path.suffix == ".json"
        marks = (b'"name":"' + name + b'"', b'"name": "' + name + b'"') if whole else (bytes([0xA0 | len(name)]) + name,)
        if len(name) > 31 and not whole:
            marks = (bytes([0xD9, len(name)]) + name,)
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if any(data.find(mark) >= 0 for mark in marks):
                    return True
                known = known or (whole and data.find(b'"r-') >= 0)
        except (OSError, ValueError):
            continue
    return False if known else None


def _sentence(one: Finding, task: Task) -> str:
    if one.package is None:
        return one.says
    where = "extras.conda_r" if task.kind == "r" else "`build` in the recipe"
    return f"{one.says}: ask for conda's {one.package} in {where}"


def _of(line: str) -> Iterator[Finding]:
    for pattern, make in _PATTERNS:
        match = pattern.search(line)
        if match is not None:
            says, package = make(match)
            yield Finding(line=line.strip()[:300], says=says, package=package)
            return


def _header(match: re.Match[str]) -> tuple[str, str | None]:
    path = match[1]
    return f"the header {path} is missing", HEADERS.get(path) or HEADERS.get(path.partition("/")[0] + "/")


def _library(match: re.Match[str]) -> tuple[str, str | None]:
    return f"the library {match[1]} (-l{match[1]}) is missing", LIBRARIES.get(match[1])


def _module(match: re.Match[str]) -> tuple[str, str | None]:
    name = match[1]
    package = MODULES.get(name) or LIBRARIES.get(name.removeprefix("lib"))
    return f"{name} is missing (asked of pkg-config)", package


def _tool(match: re.Match[str]) -> tuple[str, str | None]:
    name = match[1].rpartition("/")[2]
    return f"the program {name} is missing", TOOLS.get(name)


def _cmake(match: re.Match[str]) -> tuple[str, str | None]:
    name = match[1].lower()
    return f"{match[1]} is missing (asked for by CMake)", LIBRARIES.get(name) or MODULES.get(name)


def _r_package(match: re.Match[str]) -> tuple[str, str | None]:
    return f"the R package {match[1]} is missing, and nothing says that it is needed: ask for it too (extras.conda_r)", None


def _r_version(match: re.Match[str]) -> tuple[str, str | None]:
    return f"it needs R {match[2]}, and the environment has {match[1]}: take an older version, or a newer R (cre.r_version)", None


def _glibc(match: re.Match[str]) -> tuple[str, str | None]:
    return f"something was built for another C library ({match[1]}): take other versions, or a newer base or build root", None


def _said(says: str, package: str | None = None) -> Callable[[re.Match[str]], tuple[str, str | None]]:
    return lambda _match: (says, package)


_RUST = _said("Rust is missing", "rust")
_COMPILER = _said("there is no C compiler that works", "c-compiler")
_NETWORK = _said("it tries the network, which no task has: take a version or a package that brings what it would download")
_MEMORY = _said("it had not memory enough: let fewer tasks run at once (--jobs 1), or give the machine more")
_DISK = _said("a disk is full: the store's, or what a task may write to /tmp")

#: What a line may say, the first that fits: a regular expression, and what follows from its match.
_TABLE: tuple[tuple[str, Callable[[re.Match[str]], tuple[str, str | None]]], ...] = (
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
    (r"there is no package called [\u2018'\"]([A-Za-z0-9.]+)[\u2019'\"]", _r_package),
    (r"ERROR: this R is version ([0-9.]+), package '[^']+' requires R >=? ?([0-9.]+)", _r_version),
    (r"Could not resolve host|cannot open URL|name resolution|Network is unreachable", _NETWORK),
    (r"Failed to connect to|Couldn't connect to server|URLError", _NETWORK),
    (r"std::bad_alloc|virtual memory exhausted|[Cc]annot allocate (?:memory|vector)|out of memory", _MEMORY),
    (r"internal compiler error: Killed|Killed signal terminated program", _MEMORY),
    (r"No space left on device", _DISK),
    (r"version `(GLIBC(?:XX)?_[0-9.]+)' not found", _glibc),
)
_PATTERNS = tuple((re.compile(pattern), make) for pattern, make in _TABLE)
