"""Outputs: the result of each task of a lock, by task key (`locks/<profile>.outputs.json`).

A task's key covers its inputs; its output records the result. So a different result is an error, not another digest under the
same tag. And another machine can take a result from an untrusted cache.

The form is that of the lock: sorted JSON, one task per line, empty lines between, no time, host, path or tool version. A key
covers the assembly, so the file does not state it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from cregraph.errors import Refused
from cregraph.lock.typed_json import parse, spaced

__all__ = ["VERSION", "Output", "Outputs", "contradiction", "dumps", "loads", "updated"]

VERSION = 1
_LIMIT = 64 << 20
_UNDO = "undo the edit (`git checkout -- FILE`). Or remove the file and run `cregraph build`, which records the results again"
_MERGE = "keep the lines of both sides and remove the markers. `cregraph build` removes results that the lock no longer needs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """The result of a task: a normalised tar of `size` bytes. `name` is the task's, for people."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """The outputs of one lock, by task key."""

    tasks: Mapping[str, Output] = field(default_factory=dict)

    def expected(self) -> dict[str, str]:
        """Return the sha256 that each recorded key must give."""
        return {key: output.sha256 for key, output in self.tasks.items()}


def updated(before: Outputs, tasks: Mapping[str, str], gave: Mapping[str, tuple[str, int]]) -> Outputs:
    """Return `before` with new results added, and without keys that the lock no longer has.

    `tasks` are the names of all tasks of the lock by key; `gave` maps a key to sha256 and size in bytes. A recorded key keeps its
    record.

    Raises:
        Refused: A recorded key gave another result; see `contradiction`.
    """
    found: dict[str, Output] = {}
    for key, name in tasks.items():
        known, new = before.tasks.get(key), gave.get(key)
        if known is not None and new is not None and known.sha256 != new[0]:
            raise contradiction(name, recorded=known.sha256, gave=new[0])
        if known is not None:
            found[key] = known
        elif new is not None:
            found[key] = Output(name=name, sha256=new[0], size=new[1])
    return Outputs(tasks=found)


def contradiction(name: str, *, recorded: str, gave: str) -> Refused:
    """Return the error for a task whose result is not the recorded one."""
    return Refused(
        f"task {name} gave sha256:{gave}, but the recorded outputs have sha256:{recorded} for the same key",
        hint="run `cregraph build --rebuild` to see the differences. If the new result is right, remove the task's "
        "line from locks/<profile>.outputs.json; if the recorded one is, build with another store ($CREGRAPH_CACHE)",
    )


def dumps(outputs: Outputs) -> str:
    """Return the text of `outputs`; equal outputs give equal text."""
    ordered = sorted(outputs.tasks.items(), key=lambda item: (item[1].name, item[0]))
    lines = spaced([{"key": key, **asdict(output)} for key, output in ordered])
    return "\n".join(["{", f'"version": {VERSION},', '"tasks": [', *lines, "]", "}", ""])


def loads(text: str, *, name: str) -> Outputs:
    """Return the outputs in `text`. `name` is the file's, for messages.

    Raises:
        CregraphError: The text is not as `dumps` writes it (with the place), is of a newer version, or is an unfinished merge.
    """
    top = parse(text, name=name, what="outputs", version=VERSION, limit=_LIMIT, hint=_UNDO, merge=_MERGE)
    found: dict[str, Output] = {}
    for item in top.fields("version", "tasks")["tasks"].items():
        row = item.fields("key", "name", "sha256", "size")
        key = row["key"].sha256()
        output = Output(name=row["name"].text(), sha256=row["sha256"].sha256(), size=row["size"].number())
        if not output.name.isprintable():
            raise row["name"].wrong("expected a text of printable characters")
        if key in found and found[key].sha256 != output.sha256:
            raise item.wrong(f"{output.name} ({key[:12]}…) is listed twice with different results")
        found[key] = output
    return Outputs(tasks=found)
