"""What a failed task's log says about the cause, and the ways out of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cregraph.kinds import parts
from cregraph.kinds.conda.conda_hints import held
from cregraph.plan.parts import Task

__all__ = ["Finding", "findings", "way_out"]

_MOST = 4  # findings that are worth a line each
_WORDS = {"NAME": r"[A-Za-z0-9_][A-Za-z0-9_.+/-]*", "TOOL": r"(?:[^\s:]*/)?([A-Za-z0-9_][A-Za-z0-9_.+-]*)"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One cause: the line of the log, what it means, and the conda package that would help, if known."""

    line: str
    says: str
    package: str | None = None


def findings(log: str) -> list[Finding]:
    """Return the causes that a log names, in its order, each once. `log` is text without control characters."""
    patterns = [*_table(), *((pattern, says, ()) for hints in parts("hints").values() for pattern, says in hints.PATTERNS)]
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


def _table() -> Iterator[tuple[str, str, str | Sequence[str]]]:
    """Yield the rows of failures.yaml: pattern, meaning, and the conda package or the sorts of names that lead to it."""
    import yaml

    for row in yaml.safe_load(Path(__file__).with_name("failures.yaml").read_text(encoding="utf-8")):
        for pattern in row["find"]:
            for word, meaning in _WORDS.items():
                pattern = pattern.replace(word, meaning)
            yield pattern, row["says"], row.get("package") or row.get("held", ())


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
    lines = [f"add {one.package} to {hints.FIELD}: {one.says}" if one.package and hints else one.says for one in found]
    if hints is not None:
        lines.append(("or " if lines else "") + hints.ways_out(task.name.partition(" ")[0], in_channel))
        lines += [] if found else [hints.USUAL]
    return "\n".join(lines) or None
