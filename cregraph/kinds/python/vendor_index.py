"""A Python package index of the pinned files in a vendor folder.

Pages are HTML (PEP 503) and JSON (PEP 691), with metadata next to wheels (PEP 658). Any web server can serve the folder, and
installers read it as a `file://` address.
"""

from __future__ import annotations

import html
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from email.parser import HeaderParser
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import quote

from cregraph.digest import Json, sha256
from cregraph.errors import CregraphError
from cregraph.formats.tarball import scan
from cregraph.kinds.defaults import edited
from cregraph.lock.pins import Artifact, Pin
from cregraph.sources.index_page import is_place
from cregraph.store.atomic_file import file_digest, write_file
from cregraph.vendor.vendor_files import put_files

__all__ = ["FOLDERS", "put", "sources", "vendor_path", "write_index"]

_LIMIT = 16 << 20
_METADATA = ".metadata"  # after the name of a wheel (PEP 658)
_PAGES = ("index.html", "index.json")
FOLDERS = {"simple": (*_PAGES, f"*{_METADATA}")}

put = put_files


def vendor_path(artifact: Artifact) -> str:
    """Return `simple/<name>/<file>`."""
    if not is_place(artifact.file):
        raise edited(f"`{artifact.file[:200]}` is not a file of source `pypi` (expected NAME/FILE)")
    return f"simple/{artifact.file}"


def sources(folder: Path) -> Mapping[str, Json]:
    return {"pypi": "./simple"}


def write_index(folder: Path, pins: Sequence[Pin]) -> None:
    """Write the page of every project, and the page that lists the projects."""
    root = folder / "simple"
    names = []
    for project in sorted(path for path in root.iterdir() if path.is_dir()):
        indexes = (*_PAGES, f"*{_METADATA}", ".*")
        files = [path for path in sorted(project.iterdir()) if not any(fnmatch(path.name, each) for each in indexes)]
        for left in project.glob(f"*{_METADATA}"):
            if left.with_name(left.name.removesuffix(_METADATA)) not in files:
                left.unlink()
        entries = [_entry(path) for path in files]
        if not entries:
            continue
        names.append(project.name)
        versions = sorted({_version(str(entry["filename"])) for entry in entries} - {""})
        page = {"meta": {"api-version": "1.1"}, "name": project.name, "versions": versions, "files": entries}
        _write(project, page, _page(f"Links for {project.name}", [_link(entry) for entry in entries]))
    listing = {"meta": {"api-version": "1.1"}, "projects": [{"name": name} for name in names]}
    _write(root, listing, _page("Simple index", [f'<a href="{name}/">{name}</a>' for name in names]))


def _entry(path: Path) -> dict[str, Json]:
    entry: dict[str, Json] = {
        "filename": path.name,
        "url": quote(path.name),
        "hashes": {"sha256": file_digest(path)},
        "size": path.stat().st_size,
        "yanked": False,
    }
    metadata = _metadata(path)
    if metadata is not None:
        if path.suffix == ".whl":
            write_file(path.with_name(path.name + _METADATA), metadata)
            entry["core-metadata"] = {"sha256": sha256(metadata)}
        wanted = HeaderParser().parsestr(metadata.decode("utf-8", "replace")).get("Requires-Python")
        if wanted:
            entry["requires-python"] = " ".join(wanted.split())
    return entry


def _metadata(path: Path) -> bytes | None:
    """Return METADATA of a wheel or PKG-INFO of an sdist; None if it cannot be read."""
    if path.suffix == ".whl":
        try:
            with zipfile.ZipFile(path) as wheel:
                names = [one for one in wheel.infolist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one.filename)]
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
