"""A conda channel of the pinned packages in a vendor folder: repodata.json (CEP 36), written from the pins.

A pin holds the channel's record as it was when the lock was written, with patches. So a solver sees the same records again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.kinds.defaults import edited
from cregraph.lock.pins import Artifact, Pin
from cregraph.store.atomic_file import file_digest, write_file
from cregraph.vendor.vendor_files import earlier, put_files

__all__ = ["FOLDERS", "put", "sources", "vendor_path", "write_index"]

_SUBDIRS = ("linux-64", "noarch")
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(?:/[A-Za-z0-9][A-Za-z0-9_.-]*)*")
_FILE = re.compile(r"(?:linux-64|noarch)/[A-Za-z0-9_][A-Za-z0-9_.!+=-]*(?:\.conda|\.tar\.bz2)")
_INDEX = "repodata.json"
FOLDERS = {"conda": (_INDEX,)}


put = put_files


def vendor_path(artifact: Artifact) -> str:
    """Return `conda/<channel>/<subdir>/<file>`."""
    if not (_CHANNEL.fullmatch(artifact.source) and _FILE.fullmatch(artifact.file)):
        raise edited(f"`{artifact.source[:80]} {artifact.file[:200]}` is not a file of a conda channel")
    return f"conda/{artifact.source}/{artifact.file}"


def sources(folder: Path) -> Mapping[str, Json]:
    root = folder / "conda"
    names = sorted(path.parent.relative_to(root).as_posix() for path in root.rglob("noarch") if path.is_dir())
    return {"conda": {name: f"./conda/{name}" for name in names}}


def write_index(folder: Path, pins: Sequence[Pin]) -> None:
    """Write the indexes of each channel, with records from `pins`, and for files of other locks from the earlier index."""
    rows: dict[Path, dict[str, Json]] = {}
    for pin in pins:
        path = folder / vendor_path(pin.artifact)
        rows.setdefault(path.parent, {})[path.name] = _row(pin, path)
    found = {path.parent for path in (folder / "conda").rglob("*") if path.parent.name in _SUBDIRS and path.is_file()}
    for channel in {path.parent for path in (*rows, *found)}:
        for subdir in _SUBDIRS:
            _write(channel / subdir, rows.get(channel / subdir, {}))


def _write(folder: Path, rows: dict[str, Json]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    before: dict[str, Json] = earlier(folder / _INDEX, _records, {})
    packages: dict[str, dict[str, Json]] = {"packages": {}, "packages.conda": {}}
    for path in folder.iterdir():
        if path.name.endswith((".conda", ".tar.bz2")) and not path.name.startswith("."):
            row = rows.get(path.name) or before.get(path.name)
            if row is None:
                raise CregraphError(f"`{path}` is not in its index", hint="remove the file, or vendor its lock again")
            packages["packages.conda" if path.name.endswith(".conda") else "packages"][path.name] = row
    listing = {"info": {"subdir": folder.name}, **packages, "removed": [], "repodata_version": 1}
    write_file(folder / _INDEX, json.dumps(listing, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def _row(pin: Pin, path: Path) -> Json:
    row = {key: value for key, value in pin.data.items() if key != "subdir"}
    if not row.get("md5"):
        row["md5"] = file_digest(path, "md5")
    return {
        **row,
        "name": pin.name,
        "version": pin.version,
        "subdir": path.parent.name,
        "sha256": pin.artifact.sha256,
        "size": pin.artifact.size,
    }


def _records(data: bytes) -> dict[str, Json]:
    index = json.loads(data)
    return {**index["packages"], **index["packages.conda"]}
