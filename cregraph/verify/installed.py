"""What an image itself says is installed: conda-meta, R's DESCRIPTION files, Python's dist-info. Every text is hostile.

conda: conda-meta/NAME-VERSION-BUILD.json (name, version, build, sha256, files, paths_data)
R: LIBRARY/NAME/DESCRIPTION (Package, Version)
Python: NAME-VERSION.dist-info/METADATA and RECORD ("Recording installed projects", packaging.python.org)
"""

from __future__ import annotations

import base64
import binascii
import csv
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cregraph.errors import CregraphError
from cregraph.formats.dcf import decode, paragraph
from cregraph.image.bases.file_tree import Directory, File
from cregraph.image.bases.image_files import Contents, Held

__all__ = ["Installed", "conda", "normal", "python", "r", "wanted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """A package that an image says it has. `files` maps its absolute paths to the sha256 that is told of them, or None."""

    name: str
    version: str
    build: str = ""
    sha256: str = ""
    files: Mapping[str, str | None] = field(default_factory=dict)


def wanted(path: str) -> bool:
    """Whether the file at the absolute `path` may be read here."""
    folder, _, name = path.rpartition("/")
    if name.endswith(".json"):
        return folder.endswith("/conda-meta")
    return name == "DESCRIPTION" or (name in ("METADATA", "RECORD") and folder.endswith(".dist-info"))


def conda(contents: Contents, prefix: str) -> Iterator[Installed]:
    """The packages of the environment at `prefix`, which is resolved."""
    for name, held in _files(contents, f"{prefix}/conda-meta"):
        if not name.endswith(".json") or held.data is None:
            continue
        told = _json(held.data)
        files: dict[str, str | None] = {f"{prefix}/{path}": None for path in _texts(told.get("files"))}
        paths = told.get("paths_data")
        for row in paths.get("paths", []) if isinstance(paths, dict) and isinstance(paths.get("paths"), list) else []:
            if isinstance(row, dict) and isinstance(row.get("_path"), str) and row.get("path_type") != "softlink":
                digest = row.get("sha256_in_prefix") or row.get("sha256")
                files[f"{prefix}/{row['_path']}"] = digest if isinstance(digest, str) else None
        files[f"{prefix}/conda-meta/{name}"] = None
        yield Installed(
            name=_text(told, "name") or name,
            version=_text(told, "version"),
            build=_text(told, "build"),
            sha256=_text(told, "sha256"),
            files=files,
        )


def r(contents: Contents, library: str) -> Iterator[Installed]:
    """The packages of the R library at `library`, which is resolved."""
    folder = contents.tree.at(library)
    for name, node in sorted(folder.children.items()) if isinstance(folder, Directory) else ():
        if not isinstance(node, Directory):
            continue
        described = contents.file(f"{library}/{name}/DESCRIPTION")
        if described is None or described.data is None:
            continue
        try:
            fields = paragraph(decode(described.data), what=name)
        except CregraphError:
            fields = {}
        version = fields.get("Version", "")
        yield Installed(name=fields.get("Package", name), version=version, files=dict.fromkeys(_below(node, f"{library}/{name}")))


def python(contents: Contents, site_packages: str) -> Iterator[Installed]:
    """The distributions in `site_packages`, which is resolved; of a base that was not read nothing is told."""
    folder = contents.tree.at(site_packages)
    for name in sorted(folder.children) if isinstance(folder, Directory) else ():
        metadata = contents.file(f"{site_packages}/{name}/METADATA") if name.endswith(".dist-info") else None
        if metadata is None or metadata.data is None:
            continue
        head = "\n".join(decode(metadata.data).splitlines()).partition("\n\n")[0]
        fields = dict(re.findall(r"^(Name|Version): *(.*?) *$", head, re.MULTILINE))
        record = contents.file(f"{site_packages}/{name}/RECORD")
        files = dict(_record(record.data, site_packages)) if record is not None and record.data is not None else {}
        yield Installed(name=normal(fields.get("Name", name)), version=fields.get("Version", ""), files=files)


def normal(name: str) -> str:
    """The normal form of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _record(data: bytes, root: str) -> Iterator[tuple[str, str | None]]:
    try:
        for row in csv.reader(decode(data).splitlines()):
            if row and row[0]:
                digest = None
                if len(row) > 1 and row[1].startswith("sha256="):
                    try:
                        digest = base64.urlsafe_b64decode(row[1][7:] + "=" * (-len(row[1][7:]) % 4)).hex()
                    except (binascii.Error, ValueError):
                        digest = "unreadable"
                yield posixpath.normpath(posixpath.join(root, row[0])), digest
    except csv.Error:
        return


def _files(contents: Contents, path: str) -> Iterator[tuple[str, Held]]:
    folder = contents.tree.at(path)
    for name, node in sorted(folder.children.items()) if isinstance(folder, Directory) else ():
        if isinstance(node, File):
            yield name, contents.of(node)


def _below(node: Directory, path: str) -> Iterator[str]:
    todo = [(path, node)]
    while todo:
        here, folder = todo.pop()
        for name, child in folder.children.items():
            if isinstance(child, Directory):
                todo.append((f"{here}/{name}", child))
            else:
                yield f"{here}/{name}"


def _json(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(told: Mapping[str, object], key: str) -> str:
    value = told.get(key)
    return value if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
