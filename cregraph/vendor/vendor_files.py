"""Files put into a vendor folder, each verified on its way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from cregraph.errors import CregraphError
from cregraph.lock.pins import Artifact

__all__ = ["INDEXES", "METADATA", "Tree", "sha256_of"]

_BLOCK = 1 << 20
#: Files that are written from others beside and below them.
INDEXES = frozenset({"repodata.json", "PACKAGES", "PACKAGES.gz", "index.html", "index.json", "oci-layout"})
#: What a wheel's metadata is called beside it.
METADATA = ".metadata"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~@,=!-]{0,250}")


class Tree:
    """The files below `folder`. `size` are the bytes of what was put, `added` how many files were not there before.

    `on_file` is told each file's name and bytes, from any thread.
    """

    def __init__(self, folder: Path, on_file: Callable[[str, int], None]) -> None:
        self.folder = folder
        self.size = 0
        self.added = 0
        self._on_file = on_file
        self._guard = threading.Lock()

    def clear(self) -> None:
        """Remove what a killed run was writing. A layer that was cut off stays: it is gone on with."""
        for path in self.folder.rglob(".*"):
            if path.name.endswith(".tmp") or (path.name.endswith(".partial") and path.parent.name != "sha256"):
                path.unlink()

    def put(self, path: str, artifact: Artifact, fetch: Callable[[Artifact], Path]) -> None:
        """Put an artifact's bytes at `path`, unless they are there. `fetch` gives a verified file."""
        target = self.at(path)
        if target.is_file() and target.stat().st_size == artifact.size and sha256_of(target) == artifact.sha256:
            self.counted(path, artifact.size, added=False)
            return
        source = fetch(artifact)
        self.place(source, target, artifact.sha256)
        self.counted(path, artifact.size, added=True)

    def at(self, path: str) -> Path:
        """Where `path` lies. Raises CregraphError for a name that would lead elsewhere, or that not every file system takes."""
        if not all(_PART.fullmatch(part) for part in path.split("/")):
            raise CregraphError(
                f"`{path[:200]}` cannot be the path of a file in a vendor folder",
                hint="the lock was edited by hand, or its source has names that no tree can hold: lock again",
            )
        return self.folder / path

    def place(self, source: Path, target: Path, sha256: str) -> None:
        """Let `target` be the bytes of `source`: the same file where that is read-only and on one file system, else a copy whose
        bytes are checked."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name[:80]}.{sha256[:12]}.partial")
        temporary.unlink(missing_ok=True)
        try:
            if source.stat().st_mode & 0o222 or not _linked(source, temporary):
                hasher = hashlib.sha256()
                with source.open("rb") as reader, temporary.open("xb") as writer:
                    while block := reader.read(_BLOCK):
                        hasher.update(block)
                        writer.write(block)
                    writer.flush()
                    os.fsync(writer.fileno())
                if hasher.hexdigest() != sha256:
                    raise CregraphError(
                        f"`{source}` has sha256:{hasher.hexdigest()}, but sha256:{sha256} is wanted", hint="check the disk"
                    )
                temporary.chmod(0o444)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def counted(self, path: str, size: int, *, added: bool) -> None:
        """Count a file that is there now."""
        with self._guard:
            self.size += size
            self.added += added
        self._on_file(path, size)

    def prune(self, keep: Collection[str], below: Sequence[str]) -> int:
        """Remove what is not in `keep` of the folders `below`; how many files that were. Indexes stay where something that they
        list does, and are not counted; folders that are empty then go too."""
        removed = 0
        used = {"/".join(path.split("/")[:n]) for path in keep for n in range(1, path.count("/") + 1)}
        for name in below:
            for here, folders, files in os.walk(self.folder / name, topdown=False):
                for file in files:
                    path = Path(here, file)
                    shown = path.relative_to(self.folder).as_posix()
                    is_index = file in INDEXES or file.endswith(METADATA)
                    lists = shown.removesuffix(METADATA) in keep if file.endswith(METADATA) else shown.rpartition("/")[0] in used
                    if shown not in keep and not (is_index and lists):
                        path.unlink()
                        removed += not is_index
                for folder in folders:
                    with contextlib.suppress(OSError):
                        Path(here, folder).rmdir()
        return removed


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _linked(source: Path, target: Path) -> bool:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without hard links
        return False
    return True
