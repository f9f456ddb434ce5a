"""Outputs: what each task of a lock turned out to give, by key (`locks/<profile>.outputs.json`).

A task's key says what goes in; its outputs say what came out. With them another result is an error instead of another digest
under the same tag, and another machine may take a result from a cache that nobody vouches for.

The form is the lock's: JSON, one task a line, an empty line between, sorted; no time, host, path or version of the tool. A key
covers the assembly, so none stands here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cregraph.digest import Json, is_sha256
from cregraph.errors import CregraphError, Refused
from cregraph.plan.parts import Task

__all__ = ["VERSION", "Output", "Outputs", "contradiction", "dumps", "loads", "updated"]

VERSION = 1
_CONFLICT = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
_LIMIT = 64 << 20
_UNDO = "undo the edit (`git checkout -- FILE`), or remove the file and run `cregraph build`, which records anew what tasks give"
_FIELDS = ("key", "name", "sha256", "size")


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """What the task of one key gave: a normalised tar of `size` bytes. `name` is the task's, for people."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """The outputs of one lock, by task key."""

    tasks: Mapping[str, Output] = field(default_factory=dict)

    def expected(self) -> dict[str, str]:
        """The sha256 that each recorded key must give."""
        return {key: output.sha256 for key, output in self.tasks.items()}


def updated(before: Outputs, tasks: Iterable[Task], gave: Mapping[str, tuple[str, int]]) -> Outputs:
    """`before` with what `tasks`, all of a lock's, gave: (sha256, size) by key; without keys that the lock no longer has.

    A key that is recorded keeps its record. Raises Refused when it gave something else: see `contradiction`.
    """
    found: dict[str, Output] = {}
    for task in tasks:
        known, new = before.tasks.get(task.key), gave.get(task.key)
        if known is not None and new is not None and known.sha256 != new[0]:
            raise contradiction(task.name, recorded=known.sha256, gave=new[0])
        if known is not None:
            found[task.key] = known
        elif new is not None:
            found[task.key] = Output(name=task.name, sha256=new[0], size=new[1])
    return Outputs(tasks=found)


def contradiction(name: str, *, recorded: str, gave: str) -> Refused:
    """The error for a task that gave something else than is recorded."""
    return Refused(
        f"task {name} gave sha256:{gave}, but the outputs beside the lock record sha256:{recorded} for the same key",
        hint="`cregraph build --rebuild` makes it again and says what differs. If the new result is meant, remove the task's "
        "line from locks/<profile>.outputs.json; if the recorded one is, build with another store ($CREGRAPH_CACHE)",
    )


def dumps(outputs: Outputs) -> str:
    """The text of `outputs`; equal outputs give equal text."""
    lines = [
        json.dumps({"key": key, "name": output.name, "sha256": output.sha256, "size": output.size}, ensure_ascii=False)
        for key, output in sorted(outputs.tasks.items(), key=lambda item: (item[1].name, item[0]))
    ]
    out = ["{", f'"version": {VERSION},', '"tasks": [']
    for number, line in enumerate(lines):
        out += ["", line + ("," if number + 1 < len(lines) else "")]
    return "\n".join([*out, "", "]", "}", ""])


def loads(text: str, *, name: str) -> Outputs:
    """The outputs in `text`. `name` is the file's, for messages.

    Raises CregraphError with the place for whatever is not as dumps() writes it, both numbers for a newer version, and its own
    message for a merge that was not finished.
    """
    if len(text) > _LIMIT:
        raise CregraphError(f"`{name}` is larger than {_LIMIT >> 20} MiB", hint="these are no outputs of cregraph")
    conflict = _CONFLICT.search(text)
    if conflict:
        line = text.count("\n", 0, conflict.start()) + 1
        raise CregraphError(
            f"`{name}`:{line}: git's conflict markers stand in the outputs: a merge was not finished",
            hint="keep the lines of both sides and remove the markers: `cregraph build` drops what the lock no longer has",
        )
    try:
        data = json.loads(text, object_pairs_hook=_no_twins)
    except RecursionError:
        raise CregraphError(f"`{name}`: nested too deeply to be outputs", hint=_UNDO) from None
    except json.JSONDecodeError as error:
        raise CregraphError(f"`{name}`:{error.lineno}:{error.colno}: not readable as JSON: {error.msg}", hint=_UNDO) from None
    except ValueError as error:
        raise CregraphError(f"`{name}`: {error}", hint=_UNDO) from None
    if not isinstance(data, dict):
        raise _wrong(name, "the file", "an object is wanted")
    version = data.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _wrong(name, "version", "a whole number from 1 is wanted")
    if version > VERSION:
        raise CregraphError(
            f"`{name}` has outputs version {version}; this cregraph reads up to {VERSION}", hint="upgrade cregraph"
        )
    unknown = next((key for key in data if key not in ("version", "tasks")), None)
    if unknown is not None:
        raise _wrong(name, unknown, "unknown field")
    if not isinstance(data.get("tasks"), list):
        raise _wrong(name, "tasks", "a list is wanted")
    found: dict[str, Output] = {}
    for number, item in enumerate(data["tasks"]):
        key, output = _output(name, f"tasks[{number}]", item)
        if key in found and found[key].sha256 != output.sha256:
            raise _wrong(name, f"tasks[{number}]", f"{output.name} ({key[:12]}…) stands twice, with different results")
        found[key] = output
    return Outputs(tasks=found)


def _output(name: str, where: str, item: Json) -> tuple[str, Output]:
    if not isinstance(item, dict):
        raise _wrong(name, where, "an object is wanted")
    unknown = next((key for key in item if key not in _FIELDS), None)
    if unknown is not None:
        raise _wrong(name, f"{where}.{unknown}", "unknown field")
    for field_ in ("key", "sha256"):
        if not is_sha256(item.get(field_)):
            raise _wrong(name, f"{where}.{field_}", "64 lower-case hex digits are wanted")
    if not isinstance(item.get("name"), str) or not item["name"].isprintable():
        raise _wrong(name, f"{where}.name", "a text is wanted, of printable characters")
    size = item.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _wrong(name, f"{where}.size", "a size in bytes is wanted")
    return item["key"], Output(name=item["name"], sha256=item["sha256"], size=size)


def _wrong(name: str, place: str, why: str) -> CregraphError:
    return CregraphError(f"`{name}`: {place}: {why}", hint=_UNDO)


def _no_twins(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a field stands twice in one object")
    return made
