"""Packages of a conda environment in an image: conda-meta/NAME-VERSION-BUILD.json (name, version, build, sha256, files)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from cregraph.lock.pins import Pin, Target
from cregraph.verify.installed import InImage, Installed

__all__ = ["installed", "is_record"]


def is_record(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return name.endswith(".json") and folder.endswith("/conda-meta")


def installed(target: Target, pins: Mapping[str, Pin], image: InImage) -> Iterator[Installed]:
    """Return the packages of the environment. They differ from their pin if build or package file do."""
    prefix = image.resolved(target.place)
    for file in image.names(f"{prefix}/conda-meta"):
        record = f"{prefix}/conda-meta/{file}"
        held = image.contents.file(record) if is_record(record) else None
        if held is None or held.data is None:
            continue
        data = _json(held.data)
        name = _text(data, "name") or file
        pin = pins.get(name.lower())
        yield Installed(
            name=name,
            version=_text(data, "version"),
            record=record,
            differs=_difference(data, pin) if pin else "",
            files={**_files(data, prefix), record: None},
        )


def _files(data: Mapping[str, object], prefix: str) -> dict[str, str | None]:
    listed = data.get("files")
    files: dict[str, str | None] = {
        f"{prefix}/{path}": None for path in (listed if isinstance(listed, list) else ()) if isinstance(path, str)
    }
    paths = data.get("paths_data")
    rows = paths.get("paths") if isinstance(paths, dict) else None
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("_path"), str) and row.get("path_type") != "softlink":
            digest = row.get("sha256_in_prefix") or row.get("sha256")
            files[f"{prefix}/{row['_path']}"] = digest if isinstance(digest, str) else None
    return files


def _difference(data: Mapping[str, object], pin: Pin) -> str:
    build, locked = _text(data, "build"), str(pin.data.get("build", ""))
    if build != locked:
        return f"has build {build or 'none'}, but the lock pins {locked}"
    sha256 = _text(data, "sha256")
    if sha256 and sha256 != pin.artifact.sha256:
        return f"was made from sha256:{sha256[:80]}, but the lock pins sha256:{pin.artifact.sha256}"
    return ""


def _json(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(data: Mapping[str, object], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""
