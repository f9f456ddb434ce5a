"""`cregraph diff`."""

from __future__ import annotations

import json as texts
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cregraph import lock as locks
from cregraph.cli.say import result, talk
from cregraph.diff import as_json, as_text, compare
from cregraph.errors import CregraphError, nearest
from cregraph.facts import BaseFacts
from cregraph.formats import facts_json
from cregraph.lock import Lock
from cregraph.planning import Plan, make_plan

__all__ = ["run"]

_LOCK_LIMIT = 64 << 20
_FACTS_LIMIT = 512 << 20
_END = ".lock.json"


def run(old: str, new: str, *, profile: str | None, format: str) -> None:
    """Print what differs; leaves with SystemExit(1) when something does.

    OLD and NEW are lock files, profiles (for their locks) or git revisions. Of two revisions all locks in `locks/` are
    compared, or that of `profile`; of a file and a revision, the file with itself there.
    """
    if format not in ("text", "json"):
        raise CregraphError(f"`--format {format}` is none", hint="write text or json")
    places = [_file(old), _file(new)]
    folder = next((_project(place) for place in places if place), Path(profile).parent if profile else _here())
    sides: list[_Side] = [
        _Files(folder=_project(place), file=place) if place else _Revision.of(text, folder)
        for text, place in zip((old, new), places, strict=True)
    ]
    pairs = _pairs(sides, places, profile)
    answers = [_compared(first, second, sides) for first, second in pairs]
    differs = any(answer["status"] != "same" for answer, _ in answers)
    if format == "json":
        result(texts.dumps({"same": not differs, "locks": [answer for answer, _ in answers]}, indent=2, sort_keys=True))
    else:
        for answer, text in answers:
            if len(answers) > 1 and text:
                result(str(answer["lock"]))
            if text:
                result(text)
    if differs:
        raise SystemExit(1)
    talk("the same")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Files:
    """A project on disk; `file` is the lock that was named."""

    folder: Path
    file: Path

    def read(self, path: str, limit: int) -> str | None:
        file = self.folder / path
        try:
            if file.stat().st_size > limit:
                raise CregraphError(f"`{file}` is larger than {limit >> 20} MiB")
            return file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise CregraphError(f"`{file}` cannot be read: {getattr(error, 'strerror', None) or error}") from None

    def shown(self, path: str) -> str:
        return (self.folder / path).as_posix()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Revision:
    """A commit; `folder` is the project's, inside the repository's working tree."""

    folder: Path
    text: str
    commit: str

    @classmethod
    def of(cls, text: str, folder: Path) -> _Revision:
        if text.startswith("-") or not text.isprintable() or not text:
            raise CregraphError(f"`{_plain(text)}` is neither a lock file nor a git revision")
        code, out, words = _git(folder, "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}")
        commit = out.decode("ascii", "replace").strip()
        if code or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
            there = sorted(p.as_posix() for p in Path("locks").glob(f"*{_END}"))
            meant = nearest(text, there)
            raise CregraphError(
                f"`{_plain(text)}` is neither a file nor a git revision" + (f": {words}" if words else ""),
                hint=f"did you mean `{meant}`?" if meant else "name a lock file, a profile, or a revision such as HEAD or main",
            )
        return cls(folder=folder, text=text, commit=commit)

    def read(self, path: str, limit: int) -> str | None:
        name = f"{self.commit}:./{path}"
        code, out, _ = _git(self.folder, "cat-file", "-s", name)
        if code:
            return None
        if int(out) > limit:
            raise CregraphError(f"`{self.shown(path)}` is larger than {limit >> 20} MiB")
        code, out, words = _git(self.folder, "cat-file", "blob", name)
        if code:
            raise CregraphError(f"`{self.shown(path)}` cannot be read: {words}")
        try:
            return out.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CregraphError(f"`{self.shown(path)}` is not UTF-8 (byte {error.start})") from None

    def shown(self, path: str) -> str:
        return f"{self.text}:{path}"

    def locks(self) -> set[str]:
        _, out, _ = _git(self.folder, "ls-tree", "-z", "--name-only", self.commit, "--", "./locks/")
        names = (os.fsdecode(name) for name in out.split(b"\0"))
        return {f"locks/{name.rpartition('/')[2]}" for name in names if name.endswith(_END)}


_Side = _Files | _Revision


def _file(text: str) -> Path | None:
    """The lock that `text` names on disk: a lock file, or a profile's. A file is preferred to a revision of that name."""
    path = Path(text)
    if "\0" in text or not path.is_file():
        return None
    if path.suffix in (".yaml", ".yml"):
        lock = path.parent / "locks" / f"{path.stem}{_END}"
        if not lock.is_file():
            raise CregraphError(f"`{lock}` is not there", hint=f"run `cregraph lock {text}`")
        return lock
    return path


def _here() -> Path:
    """The project that the current folder lies in: the nearest folder with locks/, up to the repository's; else this one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "locks").is_dir():
            return folder
        if (folder / ".git").exists():
            break
    return Path()


def _project(lock: Path) -> Path:
    """The folder of the project that a lock file belongs to, where locks/ and bases/ lie."""
    return lock.parent.parent if lock.parent.name == "locks" else lock.parent


def _pairs(sides: list[_Side], places: list[Path | None], profile: str | None) -> list[tuple[str, str]]:
    """The paths to compare, below the project's folder: on the old side and on the new."""
    first, second = sides
    if isinstance(first, _Files) or isinstance(second, _Files):
        if profile is not None:
            raise CregraphError("`--profile` is for two git revisions; a lock file says itself whose it is")
        named = [os.path.relpath(place, side.folder) if place else None for place, side in zip(places, sides, strict=True)]
        return [(str(named[0] or named[1]), str(named[1] or named[0]))]
    if profile is not None:
        path = f"locks/{Path(profile).name.removesuffix('.yaml').removesuffix('.yml')}{_END}"
        return [(path, path)]
    found = sorted(first.locks() | second.locks())
    if not found:
        raise CregraphError(
            f"there is no lock in `locks/`, at {first.text} or {second.text}", hint="run it beside `locks/`, or name lock files"
        )
    return [(path, path) for path in found]


def _compared(old_path: str, new_path: str, sides: list[_Side]) -> tuple[dict[str, object], str]:
    """The answer for a pair, as JSON and as text."""
    first, second = sides
    old, new = _lock(first, old_path), _lock(second, new_path)
    name = _plain(new_path)
    if old is None and new is None:
        raise CregraphError(f"`{first.shown(old_path)}` and `{second.shown(new_path)}` are not there")
    if old is None or new is None:
        if first.__class__ is _Files and second.__class__ is _Files:
            raise CregraphError(
                f"`{(first if old is None else second).shown(old_path if old is None else new_path)}` is not there"
            )
        side, path, lock = (second, new_path, new) if new else (first, old_path, old)
        assert lock is not None
        plan = _plan(lock, side, path)
        status, sign = ("added", "+") if new else ("removed", "-")
        tag = plan.tag if plan else None
        pins = sum(len(t.pins) for t in lock.targets)
        text = f"{'lock':<9}{sign} {_plain(path)}, {pins} pins" + (f", tag {tag}" if tag else "")
        return {"lock": name, "status": status, "pins": pins, "tag": tag}, text
    old_plan, new_plan = _plan(old, first, old_path), _plan(new, second, new_path)
    diff = compare(old, new, old_plan=old_plan, new_plan=new_plan)
    return {"lock": name, "status": "same" if diff.same else "changed", **as_json(diff)}, as_text(diff)


def _lock(side: _Side, path: str) -> Lock | None:
    text = side.read(path, _LOCK_LIMIT)
    return None if text is None else locks.loads(text, name=_plain(side.shown(path)))


def _plan(lock: Lock, side: _Side, path: str) -> Plan | None:
    """The plan, for stages and tag; None, having said why, where it cannot be made."""
    digest = lock.base.artifact.sha256
    where = f"bases/{digest}.json"
    try:
        text = side.read(where, _FACTS_LIMIT)
        if text is None:
            text = _Files(folder=side.folder, file=Path()).read(where, _FACTS_LIMIT)
        if text is None:
            talk(f"{_plain(side.shown(path))}: `{where}` is not there, so stages and tag are left out")
            return None
        facts: BaseFacts = facts_json.loads(text, name=where)
        return make_plan(lock, facts)
    except CregraphError as error:
        talk(f"{_plain(side.shown(path))}: stages and tag are left out: {_plain(error.message)}")
        return None


def _git(folder: Path, *argv: str) -> tuple[int, bytes, str]:
    """Exit code, output and words of git, which reads objects only: it runs no hook, filter or pager for these commands."""
    env: Mapping[str, str] = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
    try:
        done = subprocess.run(["git", *argv], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise CregraphError(
            f"git cannot be run: {error.strerror}", hint="install git, or name two lock files instead of revisions"
        ) from None
    return done.returncode, done.stdout, _plain(done.stderr.decode("utf-8", "replace").strip())[:300]


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
