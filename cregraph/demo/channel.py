"""A conda channel: repodata.json for linux-64 and noarch, and the packages of packages.yaml in the .conda format.

The packages are placeholders, as their texts state. Three have the names that the standard recipes ask for: micromamba, r-base,
python. They have the features of real packages: text and binary prefixes, links, hard dependencies, entry points.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cregraph.demo.archives import TIME, Item, link, tar, text, zipped, zst
from cregraph.digest import Json

__all__ = ["write_channel"]

#: Placeholder of the prefix in a package's files, as long as conda-build's.
_PREFIX = "/opt/cregraph-demo/" + "placehold_" * 20
_SAID = "A stand-in made by `cregraph demo`: the real package format, no real software."

#: A package as packages.yaml states it.
_Package = Mapping[str, Any]


def write_channel(folder: Path) -> int:
    """Write the channel into `folder`. Return its number of packages."""
    import yaml

    packages: list[_Package] = yaml.safe_load(Path(__file__).with_name("packages.yaml").read_text(encoding="utf-8"))
    for subdir in ("linux-64", "noarch"):
        (folder / subdir).mkdir(parents=True, exist_ok=True)
        rows: dict[str, Json] = {}
        for package in packages:
            row = _row(package)
            if row["subdir"] != subdir:
                continue
            data = _conda(package, row)
            name = f"{_stem(row)}.conda"
            (folder / subdir / name).write_bytes(data)
            digests = {"md5": hashlib.md5(data, usedforsecurity=False).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
            rows[name] = row | digests | {"size": len(data)}
        listing = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": rows, "repodata_version": 1}
        (folder / subdir / "repodata.json").write_bytes(_json(listing))
    return len(packages)


def _row(package: _Package) -> dict[str, Json]:
    """Return info/index.json. With digests and size it is the package's row in repodata.json."""
    noarch = package.get("noarch", False)
    return {
        "name": package["name"],
        "version": package["version"],
        "build": "demo_0",
        "build_number": 0,
        "subdir": "noarch" if noarch else "linux-64",
        "depends": package.get("depends", []),
        "license": "Apache-2.0",
        "timestamp": TIME * 1000,
        **({"noarch": "python"} if noarch else {}),
    }


def _stem(row: Mapping[str, Json]) -> str:
    return f"{row['name']}-{row['version']}-{row['build']}"


def _conda(package: _Package, row: Json) -> bytes:
    items = _items(package)
    info = [
        Item(path="info/index.json", data=_json(row)),
        Item(path="info/paths.json", data=_json({"paths": _paths(items, package.get("libraries", {})), "paths_version": 1})),
        Item(path="info/about.json", data=_json({"summary": _SAID, "license": "Apache-2.0"})),
    ]
    if "entry_points" in package:
        points = {"noarch": {"type": "python", "entry_points": package["entry_points"]}, "package_metadata_version": 1}
        info.append(Item(path="info/link.json", data=_json(points)))
    return zipped(
        [
            ("metadata.json", _json({"conda_pkg_format_version": 2})),
            (f"pkg-{_stem(row)}.tar.zst", zst(tar(items))),
            (f"info-{_stem(row)}.tar.zst", zst(tar(info))),
        ]
    )


def _items(package: _Package) -> list[Item]:
    items = [link(path, to) for path, to in package.get("links", {}).items()]
    for path, says in package.get("programs", {}).items():
        items.append(text(path, f"#!/bin/sh\n# {_SAID}\n# prefix: {_PREFIX}\necho '{says}: a stand-in'\n", mode=0o755))
    for path, about in package.get("libraries", {}).items():  # the prefix is a C string, which is replaced in place and padded
        data = b"stand-in\0" + about.encode() + b"\0" + _PREFIX.encode() + b"/lib\0end\0"
        items.append(Item(path=path, data=data, mode=0o755))
    for path, content in package.get("texts", {}).items():
        items.append(text(path, content.replace("$SAID", _SAID).replace("$PREFIX", _PREFIX)))
    return items


def _paths(items: Sequence[Item], binary: Mapping[str, str]) -> list[Json]:
    """Return the rows of info/paths.json. They mark the files that hold the prefix; those in `binary` are patched in place."""
    rows: list[Json] = []
    for item in sorted(items, key=lambda i: i.path.encode()):
        row: dict[str, Json] = {"_path": item.path, "path_type": "softlink" if item.type == "link" else "hardlink"}
        if item.type == "file":
            row |= {"sha256": hashlib.sha256(item.data).hexdigest(), "size_in_bytes": len(item.data)}
        if _PREFIX.encode() in item.data:
            row |= {"prefix_placeholder": _PREFIX, "file_mode": "binary" if item.path in binary else "text"}
        rows.append(row)
    return rows


def _json(value: Json) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"
