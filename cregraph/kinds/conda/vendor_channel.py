"""A conda channel of what locks pin: repodata.json as conda's tools read it (CEP 36), from what the pins say.

A pin holds the record as the channel had it when it was locked, patches included, so a solve over these records sees what the
lock's own solve saw.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.lock.pins import Artifact, Pin
from cregraph.store import write_file

__all__ = ["channels", "place", "write_index"]

_SUBDIRS = ("linux-64", "noarch")
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(?:/[A-Za-z0-9][A-Za-z0-9_.-]*)*")
_FILE = re.compile(r"(?:linux-64|noarch)/[A-Za-z0-9_][A-Za-z0-9_.!+=-]*(?:\.conda|\.tar\.bz2)")
_INDEX = "repodata.json"
_LIMIT = 1 << 30


def place(artifact: Artifact) -> str:
    """Where a conda package goes."""
    if not (_CHANNEL.fullmatch(artifact.source) and _FILE.fullmatch(artifact.file)):
        raise CregraphError(
            f"`{artifact.source[:80]} {artifact.file[:200]}` is no file of a conda channel",
            hint="the lock was edited by hand: lock again",
        )
    return f"conda/{artifact.source}/{artifact.file}"


def channels(folder: Path) -> tuple[str, ...]:
    """The names of the channels that are there."""
    root = folder / "conda"
    return tuple(sorted(path.parent.relative_to(root).as_posix() for path in root.rglob("noarch") if path.is_dir()))


def write_index(folder: Path, pins: Iterable[Pin]) -> None:
    """Write each channel's indexes: what `pins` say, and for files of other locks what the index there said before."""
    rows: dict[Path, dict[str, Json]] = {}
    for pin in pins:
        if pin.artifact.kind == "conda":
            path = folder / place(pin.artifact)
            rows.setdefault(path.parent, {})[path.name] = _row(pin, path)
    found = {path.parent for path in (folder / "conda").rglob("*") if path.parent.name in _SUBDIRS and path.is_file()}
    for channel in {path.parent for path in (*rows, *found)}:
        for subdir in _SUBDIRS:
            _write(channel / subdir, rows.get(channel / subdir, {}))


def _write(folder: Path, rows: dict[str, Json]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    before = _before(folder / _INDEX)
    packages: dict[str, dict[str, Json]] = {"packages": {}, "packages.conda": {}}
    for path in folder.iterdir():
        if path.name.endswith((".conda", ".tar.bz2")) and not path.name.startswith("."):
            row = rows.get(path.name) or before.get(path.name)
            if row is None:
                raise CregraphError(
                    f"nothing is known of `{path}`: its index does not list it", hint="remove the file, or vendor its lock again"
                )
            packages["packages.conda" if path.name.endswith(".conda") else "packages"][path.name] = row
    listing = {"info": {"subdir": folder.name}, **packages, "removed": [], "repodata_version": 1}
    write_file(folder / _INDEX, json.dumps(listing, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def _row(pin: Pin, path: Path) -> Json:
    row = {key: value for key, value in pin.data.items() if key != "subdir"}
    if not row.get("md5"):
        with path.open("rb") as file:
            row["md5"] = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return {
        **row,
        "name": pin.name,
        "version": pin.version,
        "subdir": path.parent.name,
        "sha256": pin.artifact.sha256,
        "size": pin.artifact.size,
    }


def _before(path: Path) -> dict[str, Json]:
    """The rows of an index that an earlier run wrote."""
    try:
        if path.stat().st_size > _LIMIT:
            raise ValueError
        data = json.loads(path.read_bytes())
        return {**data["packages"], **data["packages.conda"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CregraphError(
            f"`{path}` is not what `cregraph vendor` writes", hint="remove the folder it is in; the same command makes it anew"
        ) from None
