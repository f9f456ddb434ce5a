"""A conda channel: repodata.json for linux-64 and noarch, and packages in the .conda format.

The packages are placeholders, and say so. Three have the names that the standard recipes ask for: micromamba, r-base,
python. They have the features of real packages: text and binary prefixes, links, hard dependencies, entry points.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cregraph.demo.archives import TIME, Item, link, tar, text, zipped, zst
from cregraph.digest import Json

__all__ = ["NAME", "write_channel"]

#: The channel's name in profile, lock and sources.yaml.
NAME = "demo"

#: Placeholder of the prefix in a package's files, as long as conda-build's.
_PREFIX = "/opt/cregraph-demo/" + "placehold_" * 20
_SAID = "A stand-in made by `cregraph demo`: the real package format, no real software."


@dataclass(frozen=True, kw_only=True, slots=True)
class _Package:
    """A package to write. Its list of files marks those that hold `_PREFIX`; `binary` names those patched in place."""

    name: str
    version: str
    items: Sequence[Item]
    depends: Sequence[str] = ()
    noarch: bool = False
    binary: Sequence[str] = ()
    entry_points: Sequence[str] = ()

    @property
    def subdir(self) -> str:
        return "noarch" if self.noarch else "linux-64"

    @property
    def build(self) -> str:
        return "demo_0"

    @property
    def stem(self) -> str:
        return f"{self.name}-{self.version}-{self.build}"

    def index(self) -> dict[str, Json]:
        """Return info/index.json. With digests and size it is the package's row in repodata.json."""
        row: dict[str, Json] = {
            "name": self.name,
            "version": self.version,
            "build": self.build,
            "build_number": 0,
            "subdir": self.subdir,
            "depends": list(self.depends),
            "license": "Apache-2.0",
            "timestamp": TIME * 1000,
        }
        if self.noarch:
            row["noarch"] = "python"
        return row


def write_channel(folder: Path) -> int:
    """Write the channel into `folder`. Return its number of packages."""
    packages = _packages()
    for subdir in ("linux-64", "noarch"):
        (folder / subdir).mkdir(parents=True, exist_ok=True)
        rows: dict[str, Json] = {}
        for package in packages:
            if package.subdir != subdir:
                continue
            data = _conda(package)
            name = f"{package.stem}.conda"
            (folder / subdir / name).write_bytes(data)
            digests = {"md5": hashlib.md5(data, usedforsecurity=False).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
            rows[name] = package.index() | digests | {"size": len(data)}
        listing = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": rows, "repodata_version": 1}
        (folder / subdir / "repodata.json").write_bytes(_json(listing))
    return len(packages)


def _conda(package: _Package) -> bytes:
    info = [
        Item(path="info/index.json", data=_json(package.index())),
        Item(path="info/paths.json", data=_json({"paths": _paths(package), "paths_version": 1})),
        Item(path="info/about.json", data=_json({"summary": _SAID, "license": "Apache-2.0"})),
    ]
    if package.noarch:
        points = {"noarch": {"type": "python", "entry_points": list(package.entry_points)}, "package_metadata_version": 1}
        info.append(Item(path="info/link.json", data=_json(points)))
    return zipped(
        [
            ("metadata.json", _json({"conda_pkg_format_version": 2})),
            (f"pkg-{package.stem}.tar.zst", zst(tar(package.items))),
            (f"info-{package.stem}.tar.zst", zst(tar(info))),
        ]
    )


def _paths(package: _Package) -> list[Json]:
    rows: list[Json] = []
    for item in sorted(package.items, key=lambda i: i.path.encode()):
        row: dict[str, Json] = {"_path": item.path, "path_type": "softlink" if item.type == "link" else "hardlink"}
        if item.type == "file":
            row |= {"sha256": hashlib.sha256(item.data).hexdigest(), "size_in_bytes": len(item.data)}
        if _PREFIX.encode() in item.data:
            row |= {"prefix_placeholder": _PREFIX, "file_mode": "binary" if item.path in package.binary else "text"}
        rows.append(row)
    return rows


def _json(value: Json) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"


def _program(path: str, says: str) -> Item:
    return text(path, f"#!/bin/sh\n# {_SAID}\n# prefix: {_PREFIX}\necho '{says}: a stand-in'\n", mode=0o755)


def _library(path: str, about: str) -> Item:
    """Return bytes with the prefix as a C string, which is replaced in place and padded."""
    return Item(path=path, data=b"stand-in\0" + about.encode() + b"\0" + _PREFIX.encode() + b"/lib\0end\0", mode=0o755)


def _packages() -> list[_Package]:
    return [
        _Package(name="micromamba", version="2.0.5", items=[_program("bin/micromamba", "micromamba 2.0.5")]),
        _Package(
            name="demo-zlib",
            version="1.3.1",
            items=[
                _library("lib/libdemoz.so.1.3.1", "demo-zlib 1.3.1"),
                link("lib/libdemoz.so.1", "libdemoz.so.1.3.1"),
                link("lib/libdemoz.so", "libdemoz.so.1"),
                text("include/demoz.h", f"/* {_SAID} */\n"),
            ],
            binary=["lib/libdemoz.so.1.3.1"],
        ),
        _Package(
            name="r-base",
            version="4.5.2",
            depends=["demo-zlib >=1.3,<2"],
            items=[
                _program("lib/R/bin/R", "R 4.5.2"),
                _program("lib/R/bin/Rscript", "Rscript 4.5.2"),
                link("bin/R", "../lib/R/bin/R"),
                link("bin/Rscript", "../lib/R/bin/Rscript"),
                _library("lib/R/lib/libR.so", "r-base 4.5.2"),
                text("lib/R/etc/Renviron", f"R_HOME={_PREFIX}/lib/R\nR_LIBS_SITE={_PREFIX}/lib/R/library\n"),
                text("lib/R/library/base/DESCRIPTION", f"Package: base\nVersion: 4.5.2\nDescription: {_SAID}\n"),
            ],
            binary=["lib/R/lib/libR.so"],
        ),
        _r("demotools", "0.3.1"),
        _r("demoframes", "1.1.0", depends=["r-demotools"]),
        _r("demoframes", "1.2.0", depends=["r-demotools >=0.3"]),
        _Package(
            name="python",
            version="3.11.9",
            items=[_program("bin/python3.11", "Python 3.11.9"), link("bin/python", "python3.11")],
        ),
        _Package(
            name="demo-report",
            version="0.2.0",
            noarch=True,
            depends=["python >=3.11", "r-base"],
            entry_points=["demo-report = demo_report:main"],
            items=[
                text("site-packages/demo_report/__init__.py", f'"""{_SAID}"""\n\n\ndef main() -> None:\n    print(__doc__)\n')
            ],
        ),
    ]


def _r(name: str, version: str, depends: Sequence[str] = ()) -> _Package:
    """Return an R package in conda's form: below lib/R/library, with a lower-case conda name."""
    at = f"lib/R/library/{name}"
    return _Package(
        name=f"r-{name}",
        version=version,
        depends=["r-base >=4.5,<4.6", *depends],
        items=[
            text(f"{at}/DESCRIPTION", f"Package: {name}\nVersion: {version}\nTitle: Stand-In\nDescription: {_SAID}\n"),
            text(f"{at}/NAMESPACE", "export(hello)\n"),
            text(f"{at}/R/{name}", f"# {_SAID}\nhello <- function() '{name} {version}'\n"),
        ],
    )
