"""A folder of files written for another program: whole or as it was, whatever interrupts.

Files named by their content come first and replace nothing that differs; then the few that have fixed names, in the order given;
then what the folder no longer needs is removed. A folder that is new appears at once.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from cregraph.digest import sha256
from cregraph.errors import CregraphError
from cregraph.store import Store, remove_tree, write_file

__all__ = ["MARK", "Content", "write_folder"]

#: How the first line of every Dockerfile begins that we write. A folder without it is not ours to write into.
MARK = "# Written by `cregraph export"

#: What a file holds: bytes, or the sha256 of an object of the store.
Content = bytes | str

#: What is being written in a folder that was there, and empty.
_PARTIAL = ".partial"

#: Names that only an export gives: 64 hex digits in `layers/` and `inputs/`, 12 before the ending elsewhere.
_OURS = re.compile(r"(?:layers|inputs)/[0-9a-f]{64}\.tar(?:\.gz)?|[a-z0-9_.+-]+-[0-9a-f]{12}\.(?:json|pyz|file)", re.IGNORECASE)


def write_folder(folder: Path, files: Mapping[str, Content], *, fixed: tuple[str, ...], store: Store) -> None:
    """Let `folder` hold `files` (by relative path). `fixed` are those whose names do not follow from their content, in the order
    in which they are replaced; `Dockerfile` is one of them.

    Objects of the store are hard links where that is possible. Raises CregraphError for a folder that holds something else.
    """
    there = folder.is_dir()
    fresh = not folder.exists() or (there and all(path.name == _PARTIAL for path in folder.iterdir()))
    if not fresh and not _is_ours(folder):
        raise CregraphError(
            f"`{folder}` is there and was not written by `cregraph export`; it is left as it is",
            hint="name a folder that is new or empty: --output DIR",
        )
    # A folder that is there may be a mount, or where somebody stands: it is filled, not replaced.
    partial = folder / _PARTIAL if there else folder.parent / f".{folder.name}.partial"
    try:
        with store.lock(f"export-{sha256(str(folder.absolute()).encode('utf-8', 'surrogateescape'))}"):
            remove_tree(partial)  # of a run that was killed
            target = partial if fresh else folder
            target.mkdir(parents=True, exist_ok=True)
            try:
                for name, content in files.items():
                    if name not in fixed:
                        _put(target / name, content, store)
                for name in fixed:
                    content = files[name]
                    assert isinstance(content, bytes)
                    write_file(target / name, content)
                if fresh and not there:
                    target.replace(folder)
                elif fresh:
                    for path in sorted(target.iterdir(), key=lambda path: path.name in fixed):
                        path.replace(folder / path.name)
            finally:
                remove_tree(partial)
            for path in sorted(folder.rglob("*")):
                name = path.relative_to(folder).as_posix()
                if name not in files and _OURS.fullmatch(name) and path.is_file():
                    path.unlink()
    except OSError as error:
        raise CregraphError(
            f"`{folder}` cannot be written: {error.strerror or error}", hint="name a folder with room and rights: --output DIR"
        ) from error


def _is_ours(folder: Path) -> bool:
    try:
        with (folder / "Dockerfile").open("rb") as file:
            return file.read(len(MARK)) == MARK.encode()
    except OSError:
        return False


def _put(path: Path, content: Content, store: Store) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        write_file(path, content)
        return
    source = store.verified(content, f"`{path.name}`")
    if path.exists() and path.samefile(source):
        return
    temporary = path.with_name(f".{path.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        try:
            if source.stat().st_mode & 0o222:
                raise OSError  # who could write to the link would write to the store
            temporary.hardlink_to(source)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, temporary)
            temporary.chmod(0o444)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
