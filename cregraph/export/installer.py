"""The program that installs a stage inside another builder: downloads by digest, then cregraph's own rules for every file.

    python3 -I -B install.pyz STAGE.json

It is one file with the modules that it needs, and runs on the base's own Python (3.10 or later) with the standard library only.
It reads the segments that `cregraph.export.builder` lists, and writes what cregraph's own layers hold: the same bytes, modes,
owners and times. It runs as root, and finally removes what was copied in for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from cregraph.errors import CregraphError
from cregraph.export.installer_downloads import Downloads
from cregraph.image.model.tar_entry import Entry
from cregraph.lock.pins import Artifact
from cregraph.plan.parts import Segment

__all__ = ["install", "main"]

_MTIME = 315532800  # as cregraph.image.model.tar_writer.MTIME


def main() -> None:
    """Install the manifest that the command line names. Exit with 1 and a reason if that fails."""
    manifest = Path(sys.argv[1])
    try:
        os.umask(0o022)
        done = install(json.loads(manifest.read_text(encoding="utf-8")), manifest.parent)
        shutil.rmtree(manifest.parent)
        with contextlib.suppress(OSError):  # it may hold what else was made for tasks
            manifest.parent.parent.rmdir()
        sys.stdout.write(f"{done}\n")
    except CregraphError as error:
        sys.exit(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""))


def install(manifest: Mapping[str, Any], folder: Path, root: Path = Path("/")) -> str:
    """Install `manifest` below `root`, and return a summary in words. `folder` holds the files of the build context."""
    segments = manifest["segments"]
    inputs = manifest.get("inputs", [])
    with tempfile.TemporaryDirectory(dir=folder) as scratch, Downloads(Path(scratch), folder) as downloads:
        tree = _Writer(manifest.get("owners", {}), root)
        for wanted, file in downloads.files([*segments, *inputs]):
            if "to" in wanted:  # what a task is given; it sees a file of a fixed time
                assert file is not None
                to = Path(wanted["to"])
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, to)
                to.chmod(0o444)
                os.utime(to, (_MTIME, _MTIME))
                continue
            try:
                for entry in _entries(wanted, _Input(file, Path(scratch))):
                    tree.write(entry)
            except CregraphError as error:
                said = error.message if wanted["name"] in error.message else f"{wanted['name']}: {error.message}"
                raise CregraphError(said, error.hint) from None
        tree.finish()
        for parent in {Path(item["to"]).parent for item in inputs}:
            os.utime(parent, (_MTIME, _MTIME))
        return f"{len(segments)} installed, {tree.files} files, {downloads.fetched} bytes fetched"


class _Input:
    def __init__(self, file: Path | None, scratch: Path) -> None:
        self._file = file
        self._scratch = scratch

    def path(self) -> Path:
        assert self._file is not None
        return self._file

    def scratch(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self._scratch)


def _entries(item: Mapping[str, Any], source: _Input) -> Iterator[Entry]:
    """Return the entries of a segment, by the rules of its kind."""
    artifact = None
    if item.get("made"):
        artifact = Artifact(kind="", source=item["made"], file=source.path().name, sha256="", size=0)
    elif told := item.get("artifact"):
        artifact = Artifact(kind="", source=item["name"], file=told["name"], sha256=told["sha256"], size=told["size"])
    segment = Segment(key="", kind="", stage="", name=item["name"], group="", place=item["place"], artifact=artifact)
    entries: Iterator[Entry] = import_module(item["entries"]).entries(segment, source)
    return entries


class _Writer:
    """A writer of entries at their places. An existing path is kept if it is equal, and refused otherwise."""

    def __init__(self, owners: Mapping[str, Sequence[int]], root: Path) -> None:
        self._owners = owners
        self._root = root
        self._times: dict[Path, int] = {}  # of directories that were there, in nanoseconds
        self._made: dict[Path, None] = {}
        self._known: set[Path] = {root}
        self._links: list[tuple[Path, Path]] = []
        self.files = 0

    def write(self, entry: Entry) -> None:
        path = self._root / entry.path
        self._folder(path.parent)
        self.files += 1
        if entry.type == "hardlink":
            self._links.append((path, self._root / entry.link))  # its target may come later
            return
        if os.path.lexists(path):
            self._equal(path, entry)
            return
        self._note(path.parent)
        if entry.type == "symlink":
            path.symlink_to(entry.link)
        else:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                size = 0
                for chunk in entry.chunks() if entry.chunks else ():
                    size += len(chunk)
                    out.write(chunk)
                if size != entry.size:
                    raise CregraphError(f"`{path}` has a stated size of {entry.size} bytes, but has {size}")
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if entry.type == "file":
            path.chmod(entry.mode)
        os.utime(path, (_MTIME, _MTIME), follow_symlinks=False)

    def finish(self) -> None:
        """Make the hard links, then set the times of directories, which writing has changed."""
        for path, target in self._links:
            if os.path.lexists(path):
                if path.is_symlink() or not path.samefile(target):
                    raise CregraphError(f"`{path}` exists with other contents")
            else:
                self._note(path.parent)
                path.hardlink_to(target)
        for path in reversed(self._made):
            os.utime(path, (_MTIME, _MTIME))
        for path, at in self._times.items():
            os.utime(path, ns=(at, at))

    def _folder(self, path: Path) -> None:
        if path in self._known:
            return
        self._folder(path.parent)
        if path.is_symlink():
            raise CregraphError(f"`{path}` is a symbolic link, and paths of packages must not run through links")
        if not path.is_dir():
            self._note(path.parent)
            path.mkdir(mode=0o755)
            os.chown(path, *self._owner(path))
            self._made[path] = None
        self._known.add(path)

    def _note(self, folder: Path) -> None:
        """Record the time of an existing directory before something is written into it."""
        if folder not in self._made:
            self._times.setdefault(folder, folder.stat().st_mtime_ns)

    def _owner(self, path: Path) -> tuple[int, int]:
        inside = Path("/") / path.relative_to(self._root)
        for place in (inside, *inside.parents):
            if str(place) in self._owners:
                uid, gid = self._owners[str(place)]
                return uid, gid
        return 0, 0

    def _equal(self, path: Path, entry: Entry) -> None:
        if entry.type == "symlink":
            same = path.is_symlink() and str(path.readlink()) == entry.link
        else:
            same = path.is_file() and not path.is_symlink() and path.stat().st_size == entry.size
            if same:
                with path.open("rb") as file:
                    same = all(file.read(len(chunk)) == chunk for chunk in (entry.chunks() if entry.chunks else ()))
        if not same:
            raise CregraphError(
                f"`{path}` exists and is something else",
                hint="choose another destination: packages must not replace files of the base or of each other",
            )
