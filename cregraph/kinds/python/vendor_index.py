"""A package index of Python in files and folders: pages in HTML (PEP 503) and JSON (PEP 691), metadata beside wheels (PEP 658).

Any server serves it, and it is read from `file://` as it is.
"""

from __future__ import annotations

import html
import json
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from urllib.parse import quote

from cregraph.digest import Json, sha256
from cregraph.errors import CregraphError
from cregraph.formats.tarball import scan
from cregraph.lock.pins import Artifact
from cregraph.sources import python_index
from cregraph.store import write_file
from cregraph.vendor.vendor_files import INDEXES, METADATA, sha256_of

__all__ = ["place", "write_index"]

_LIMIT = 16 << 20


def place(artifact: Artifact) -> str:
    """Where a wheel or sdist goes."""
    if not python_index.is_place(artifact.file):
        raise CregraphError(
            f"`{artifact.file[:200]}` is no file of source `pypi` (NAME/FILE is)", hint="the lock was edited by hand: lock again"
        )
    return f"simple/{artifact.file}"


def write_index(root: Path) -> None:
    """Write the pages of every project below `root`, and the index of all."""
    names = []
    root.mkdir(parents=True, exist_ok=True)
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        files = [path for path in sorted(folder.iterdir()) if _is_file(path)]
        for left in folder.glob(f"*{METADATA}"):
            if left.with_name(left.name.removesuffix(METADATA)) not in files:
                left.unlink()
        entries = [_entry(path) for path in files]
        if not entries:
            continue
        names.append(folder.name)
        versions = sorted({_version(str(entry["filename"])) for entry in entries} - {""})
        page = {"meta": {"api-version": "1.1"}, "name": folder.name, "versions": versions, "files": entries}
        _write(folder, page, _page(f"Links for {folder.name}", [_link(entry) for entry in entries]))
    listing = {"meta": {"api-version": "1.1"}, "projects": [{"name": name} for name in names]}
    _write(root, listing, _page("Simple index", [f'<a href="{name}/">{name}</a>' for name in names]))


def _is_file(path: Path) -> bool:
    return path.is_file() and path.name not in INDEXES and not path.name.endswith(METADATA) and not path.name.startswith(".")


def _entry(path: Path) -> dict[str, Json]:
    entry: dict[str, Json] = {
        "filename": path.name,
        "url": quote(path.name),
        "hashes": {"sha256": sha256_of(path)},
        "size": path.stat().st_size,
        "yanked": False,
    }
    metadata = _metadata(path)
    if metadata is not None:
        if path.suffix == ".whl":
            write_file(path.with_name(path.name + METADATA), metadata)
            entry["core-metadata"] = {"sha256": sha256(metadata)}
        wanted = HeaderParser().parsestr(metadata.decode("utf-8", "replace")).get("Requires-Python")
        if wanted:
            entry["requires-python"] = " ".join(wanted.split())
    return entry


def _metadata(path: Path) -> bytes | None:
    """METADATA of a wheel, PKG-INFO of an sdist; None where there is none to be read."""
    if path.suffix == ".whl":
        try:
            with zipfile.ZipFile(path) as wheel:
                names = [one for one in wheel.infolist() if _is_metadata(one.filename)]
                if len(names) != 1 or names[0].file_size > _LIMIT:
                    return None
                return wheel.read(names[0])
        except (zipfile.BadZipFile, OSError, NotImplementedError, EOFError, ValueError):
            return None
    if path.name.endswith((".tar.gz", ".tar.bz2", ".tar.xz")):
        try:
            return scan(path, what=f"`{path}`", wanted={"PKG-INFO"}, hint="").read.get("PKG-INFO")
        except CregraphError:
            return None  # a build refuses it by name; it is listed as it is
    return None


def _is_metadata(name: str) -> bool:
    return name.count("/") == 1 and name.endswith(".dist-info/METADATA")


def _version(file: str) -> str:
    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

    try:
        return str(parse_wheel_filename(file)[1] if file.endswith(".whl") else parse_sdist_filename(file)[1])
    except (InvalidWheelFilename, InvalidSdistFilename):
        return ""


def _link(entry: dict[str, Json]) -> str:
    extra = ""
    if "requires-python" in entry:
        extra += f' data-requires-python="{html.escape(str(entry["requires-python"]))}"'
    if "core-metadata" in entry:
        extra += f' data-core-metadata="sha256={entry["core-metadata"]["sha256"]}"'
    return f'<a href="{entry["url"]}#sha256={entry["hashes"]["sha256"]}"{extra}>{html.escape(str(entry["filename"]))}</a>'


def _page(title: str, links: list[str]) -> str:
    head = f'<meta name="pypi:repository-version" content="1.1"><title>{html.escape(title)}</title>'
    body = "<br>\n".join(links)
    return f"<!DOCTYPE html>\n<html><head>{head}</head>\n<body>\n{body}\n</body></html>\n"


def _write(folder: Path, page: Json, text: str) -> None:
    write_file(folder / "index.json", json.dumps(page, indent=1, sort_keys=True).encode() + b"\n")
    write_file(folder / "index.html", text.encode())
