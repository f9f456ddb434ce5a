"""A folder of files for another program. After an interruption it is complete or as before.

Files whose names follow from their content are written first and replace nothing that differs, then the few with fixed names.
Then files that are no longer needed are removed. A new folder appears at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cregraph.digest import sha256
from cregraph.store import Store
from cregraph.store.atomic_file import is_new_folder, place_file, remove_tree, write_file, writing

__all__ = ["MARK", "Content", "is_free", "write_folder"]

#: The beginning of every Dockerfile that cregraph writes. A folder without it is not written to.
MARK = "# Written by `cregraph export"

#: The content of a file: bytes, or the sha256 of an object of the store.
Content = bytes | str

_HINT = "use a folder with free space that you may write to: --output DIR"

#: Files that are being written into an existing empty folder.
_PARTIAL = ".partial"

#: Names that only an export gives: 64 hex digits in `layers/` and `inputs/`, 12 before the ending elsewhere.
_OURS = re.compile(r"(?:layers|inputs)/[0-9a-f]{64}\.tar(?:\.gz)?|[a-z0-9_.+-]+-[0-9a-f]{12}\.(?:json|pyz|file)", re.IGNORECASE)


def write_folder(folder: Path, files: Mapping[str, Content], *, fixed: tuple[str, ...], store: Store) -> None:
    """Write `files` (by relative path) into `folder`, and remove files of earlier exports. `fixed` are names that do not follow
    from the content, in the order in which they are replaced. Raise CregraphError if the folder holds something else."""
    is_there, is_new = folder.is_dir(), is_free(folder)
    # An existing folder may be a mount, or the current folder of a process: it is filled, not replaced.
    partial = folder / _PARTIAL if is_there else folder.parent / f".{folder.name}.partial"
    with writing(folder, _HINT), store.lock(f"export-{sha256(str(folder.absolute()).encode('utf-8', 'surrogateescape'))}"):
        remove_tree(partial)  # of a run that was killed
        try:
            for name in sorted(files, key=lambda name: fixed.index(name) if name in fixed else -1):
                _put((partial if is_new else folder) / name, files[name], store)
            if is_new and not is_there:
                partial.replace(folder)
            elif is_new:
                for path in sorted(partial.iterdir(), key=lambda path: path.name in fixed):
                    path.replace(folder / path.name)
        finally:
            remove_tree(partial)
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if name not in files and _OURS.fullmatch(name) and path.is_file():
                path.unlink()


def is_free(folder: Path) -> bool:
    """Return whether `folder` is new or empty. Raise CregraphError if it holds other files or cannot be written."""
    foreign = "`cregraph export` did not write it"
    return is_new_folder(folder, ours=_is_ours, foreign=foreign, option="--output DIR", partial=_PARTIAL)


def _is_ours(folder: Path) -> bool:
    try:
        with (folder / "Dockerfile").open("rb") as file:
            return file.read(len(MARK)) == MARK.encode()
    except OSError:
        return False


def _put(path: Path, content: Content, store: Store) -> None:
    if isinstance(content, bytes):
        write_file(path, content)
    else:
        place_file(store.verified(content, f"`{path.name}`"), path, content)
