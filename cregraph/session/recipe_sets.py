"""The sets of standard recipes: the installed one, and those that locks pin below `locks/recipes/`.

A set is the standard recipes and the files that they ship. Its sha256 is over the sorted list of path and sha256 of its files.
A lock names one set, so a newer cregraph with other recipes changes no lock (docs/upgrading.md). `locks/recipes/<first 16
digits>/` holds a set as a readable tree, which is committed. cregraph never overwrites a file there: it writes missing ones.
Lines of .gitattributes keep git from changing line endings in locks/ and bases/, whose bytes are pinned.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cregraph.digest import canonical, sha256
from cregraph.errors import CregraphError
from cregraph.store.atomic_file import write_file

__all__ = [
    "ATTRIBUTES",
    "RecipeSet",
    "digest_of",
    "installed",
    "keep_line_endings",
    "named_by",
    "prune",
    "tree_name",
    "used_by",
    "write",
]

_NAMED = re.compile(rb'^"recipes": "([0-9a-f]{64})",\r?$', re.MULTILINE)
_TREE = re.compile(r"[0-9a-f]{16}")
#: Without them, a checkout with `core.autocrlf=true` holds other bytes than those that locks name.
ATTRIBUTES = "locks/** -text\nbases/** -text\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeSet:
    """The set with this `sha256`, whose files lie below `folder`."""

    folder: Path
    sha256: str

    def files(self) -> dict[str, bytes]:
        return {name: path.read_bytes() for name, path in _files(self.folder)}


@cache
def installed() -> RecipeSet:
    """Return the set of this cregraph: inside the installed package, or next to it in a checkout."""
    inside = Path(__file__).parents[1] / "standard"
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"
    return RecipeSet(folder=folder, sha256=digest_of(RecipeSet(folder=folder, sha256="").files()))


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return the sha256 of the set with these files, by path."""
    return sha256(canonical([[name, sha256(data)] for name, data in sorted(files.items())]))


def tree_name(digest: str) -> str:
    """Return the path of a set's tree below the project's folder."""
    return f"locks/recipes/{digest[:16]}"


def named_by(lock: Path) -> str | None:
    """Return the sha256 of the set that a lock file names; None if there is no such file or line. The rest is not read."""
    try:
        found = _NAMED.search(lock.read_bytes())
    except OSError:
        return None
    return found[1].decode() if found else None


def used_by(
    profile: Path, lock: Path, *, read: Callable[[str], str], vendored: Callable[[], Path | None] = lambda: None
) -> RecipeSet:
    """Return the set that a profile uses (design 3): the one that its `lock` names.

    A profile without a lock takes the set of the nearest profile that it extends, else that of the project's other locks if they
    agree, else the installed one. `read` returns the text of a profile, `vendored` the folder of vendored sets.

    Raises:
        CregraphError: The pinned set is missing or has other bytes.
    """
    named = named_by(lock)
    if named is None and not lock.exists():
        named, lock = _first(profile, lock, read)
    if named is None:
        return installed()
    trees = [folder / tree_name(named) for folder in (profile.parent, lock.parent.parent)]
    for tree in trees:
        if tree.is_dir():
            return _checked(tree, named, lock.as_posix())
    if installed().sha256 == named:
        return installed()
    folder = vendored()
    if folder and (folder / named[:16]).is_dir():
        return _checked(folder / named[:16], named, lock.as_posix())
    raise CregraphError(
        f"`{trees[0].as_posix()}` is missing: it holds the standard recipes that `{lock.as_posix()}` pins",
        hint=f"run `git checkout -- {trees[0].as_posix()}`, or `cregraph lock {profile} --upgrade-recipes` to replace them",
    )


def _first(profile: Path, lock: Path, read: Callable[[str], str]) -> tuple[str | None, Path]:
    """Return the set with which the first lock of a profile begins, and the lock that names it."""
    from cregraph.profile.profile_file import load_profile

    chain, _ = load_profile(profile.name, read=read)
    parents = [profile.parent / file for file in reversed(chain.files[:-1])]
    for other in (parent.parent / "locks" / f"{parent.stem}.lock.json" for parent in parents):
        if named := named_by(other):
            return named, other
    others = sorted(lock.parent.glob("*.lock.json"))
    sets = {named_by(other) for other in others}
    return (sets.pop(), others[0]) if len(sets) == 1 else (None, lock)


def write(recipes: RecipeSet, folder: Path) -> None:
    """Write the tree of a set into the project in `folder`. Files that are there stay as they are."""
    tree = folder / tree_name(recipes.sha256)
    if tree == recipes.folder:
        return
    for name, data in recipes.files().items():
        if not (tree / name).exists():
            try:
                write_file(tree / name, data)
            except OSError as error:
                raise CregraphError(f"`{tree / name}` cannot be written: {error.strerror or error}") from None
    _checked(tree, recipes.sha256, "the new lock")


def prune(folder: Path, *, before: str | None) -> None:
    """Delete trees that no lock of the project in `folder` names. Keep all of them if a lock cannot be read.

    `before` is the set that the lock named until now. It stays until the next change, so that git sees an added tree and not
    renamed files: else two branches that upgraded differently would conflict in every file of the set (ADR 0020).
    """
    named = [named_by(lock) for lock in (folder / "locks").glob("*.lock.json")]
    if None in named:
        return
    kept = {digest[:16] for digest in (*named, before) if digest}
    for tree in (folder / "locks/recipes").glob("*"):
        if _TREE.fullmatch(tree.name) and tree.name not in kept and not tree.is_symlink():
            shutil.rmtree(tree, ignore_errors=True)


def keep_line_endings(folder: Path) -> None:
    """Add the missing lines of `ATTRIBUTES` to .gitattributes in `folder`. Other lines stay."""
    file = folder / ".gitattributes"
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        missing = [line for line in ATTRIBUTES.splitlines() if line not in text.splitlines()]
        if missing:
            start = text if not text or text.endswith("\n") else f"{text}\n"
            write_file(file, (start + "\n".join(missing) + "\n").encode())
    except (OSError, UnicodeDecodeError) as error:
        raise CregraphError(f"`{file.as_posix()}` cannot be changed: {getattr(error, 'strerror', None) or error}") from None


def _checked(tree: Path, digest: str, lock: str) -> RecipeSet:
    try:
        found = digest_of(RecipeSet(folder=tree, sha256=digest).files())
    except OSError as error:
        raise CregraphError(f"`{error.filename or tree}` cannot be read: {error.strerror or error}") from None
    if found != digest:
        raise CregraphError(
            f"`{tree.as_posix()}` does not hold the recipes that `{lock}` pins (sha256:{found}, expected sha256:{digest})",
            hint=f"run `git checkout -- {tree.as_posix()}`; to change a standard recipe, copy it to recipes/ of the project",
        )
    return RecipeSet(folder=tree, sha256=digest)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a set by path. Raise CregraphError for anything that is neither a file nor a folder."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if any(part.startswith(".") or part == "__pycache__" for part in inner.parts):
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CregraphError(f"`{path.as_posix()}` is neither a file nor a folder", hint="remove it")
        if path.is_file():
            yield inner.as_posix(), path
