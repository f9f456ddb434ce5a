"""Locks and base facts on disk or in a git revision of the project.

Git is asked for objects only: it runs no hook, filter or pager for that.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cregraph.errors import CregraphError, did_you_mean
from cregraph.kinds import KINDS
from cregraph.lock import base_facts_json as facts_json
from cregraph.lock import lock_file as locks
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.lock_file import Lock
from cregraph.session import recipe_sets
from cregraph.session.project import read_text
from cregraph.session.recipe_sets import RecipeSet
from cregraph.text import printable

__all__ = [
    *("END", "Files", "Revision", "Side"),
    *("common_ancestor", "facts_at", "here", "lock_at", "lock_named", "project_of", "range_named", "recipes_at"),
]

#: How the name of a lock file ends.
END = ".lock.json"

_LOCK_LIMIT = 64 << 20
_FACTS_LIMIT = 512 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """A project on disk: its files as they are now."""

    folder: Path

    @property
    def text(self) -> str:
        return "the working tree"

    def read(self, path: str, limit: int) -> str | None:
        file = self.folder / path
        return read_text(file, limit=limit) if file.exists() else None

    def files(self, folder: str) -> dict[str, bytes]:
        """Return the bytes of the files below `folder`, by path in it; empty if there is no such folder."""
        return RecipeSet(folder=self.folder / folder, sha256="").files()

    def shown(self, path: str) -> str:
        return (self.folder / path).as_posix()

    def locks(self) -> set[str]:
        return {f"locks/{path.name}" for path in (self.folder / "locks").glob(f"*{END}")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """A commit; `folder` is the project's, inside the repository's working tree."""

    folder: Path
    text: str
    commit: str

    @classmethod
    def of(cls, text: str, folder: Path) -> Revision:
        if text.startswith("-") or not text.isprintable() or not text:
            raise CregraphError(f"`{printable(text)}` is neither a lock file nor a git revision")
        code, out, words = _git(folder, "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}")
        commit = out.decode("ascii", "replace").strip()
        if code or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
            there = sorted(p.as_posix() for p in Path("locks").glob(f"*{END}"))
            raise CregraphError(
                f"`{printable(text)}` is neither a file nor a git revision" + (f": {words}" if words else ""),
                hint=did_you_mean(text, there, "name a lock file, a profile, or a revision such as HEAD or main"),
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

    def files(self, folder: str) -> dict[str, bytes]:
        """Return the bytes of the files below `folder`, by path in it; empty if there is no such folder."""
        _, listed, _ = _git(self.folder, "ls-tree", "-r", "-z", "--name-only", self.commit, "--", f"./{folder}/")
        names = [os.fsdecode(name).partition(f"{folder}/")[2] for name in listed.split(b"\0") if name]
        return {name: (self.read(f"{folder}/{name}", _LOCK_LIMIT) or "").encode() for name in names}

    def shown(self, path: str) -> str:
        return f"{self.text}:{path}"

    def locks(self) -> set[str]:
        _, out, _ = _git(self.folder, "ls-tree", "-z", "--name-only", self.commit, "--", "./locks/")
        names = (os.fsdecode(name) for name in out.split(b"\0"))
        return {f"locks/{name.rpartition('/')[2]}" for name in names if name.endswith(END)}


Side = Files | Revision


def range_named(text: str) -> tuple[str, str] | None:
    """Return both ends of `A..B` or `A...B`; a missing end is HEAD. Return None for another text."""
    ends = re.fullmatch(r"(.*?)\.{2,3}([^.].*|)", text)
    return (ends[1] or "HEAD", ends[2] or "HEAD") if ends else None


def common_ancestor(one: Revision, other: Revision) -> Revision:
    """Return the commit that the histories of both have in common (`git merge-base`)."""
    _, out, _ = _git(one.folder, "merge-base", one.commit, other.commit)
    commit = out.decode("ascii", "replace").strip()
    if not commit:
        raise CregraphError(
            f"`{one.text}` and `{other.text}` have no commit in common", hint="write A..B to compare them directly"
        )
    return Revision(folder=one.folder, text=commit[:12], commit=commit)


def lock_named(text: str) -> Path | None:
    """Return the lock that `text` names on disk: a lock file, or a profile's. A file wins over a revision of that name."""
    path = Path(text)
    if "\0" in text or not path.is_file():
        return None
    if path.suffix in (".yaml", ".yml"):
        lock = path.parent / "locks" / f"{path.stem}{END}"
        if not lock.is_file():
            raise CregraphError(f"{lock}: the lock does not exist", hint=f"run `cregraph lock {text}`")
        return lock
    return path


def here() -> Path:
    """Return the project of the current folder: the nearest folder with locks/, up to the repository's; else this one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "locks").is_dir():
            return folder
        if (folder / ".git").exists():
            break
    return Path()


def project_of(lock: Path) -> Path:
    """Return the folder of the project that a lock file belongs to, where locks/ and bases/ lie."""
    return lock.parent.parent if lock.parent.name == "locks" else lock.parent


def lock_at(side: Side, path: str) -> Lock | None:
    """Return the lock at `path` below the project's folder, or None. Raise CregraphError if it is broken."""
    text = side.read(path, _LOCK_LIMIT)
    return None if text is None else locks.loads(text, name=printable(side.shown(path)), kinds=KINDS)


def facts_at(side: Side, lock: Lock) -> tuple[str, BaseFacts | None]:
    """Return the place of the base's facts and the facts: those of `side`, else those on disk next to it."""
    where = f"bases/{lock.base.artifact.sha256}.json"
    text = side.read(where, _FACTS_LIMIT)
    if text is None:
        text = Files(folder=side.folder).read(where, _FACTS_LIMIT)
    return where, None if text is None else facts_json.loads(text, name=where)


def recipes_at(side: Side, lock: Lock) -> dict[str, bytes] | None:
    """Return the files of the standard recipes that `lock` pins, by path: those of `side`, else the installed ones."""
    files = side.files(recipe_sets.tree_name(lock.recipes))
    if recipe_sets.digest_of(files) == lock.recipes:
        return files
    installed = recipe_sets.installed()
    return installed.files() if installed.sha256 == lock.recipes else None


def _git(folder: Path, *argv: str) -> tuple[int, bytes, str]:
    """Return exit code, stdout and stderr of git, which reads objects only: these commands run no hook, filter or pager."""
    env: Mapping[str, str] = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
    try:
        done = subprocess.run(["git", *argv], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise CregraphError(
            f"git cannot be run: {error.strerror}", hint="install git, or name two lock files instead of revisions"
        ) from None
    return done.returncode, done.stdout, printable(done.stderr.decode("utf-8", "replace").strip(), 300)
