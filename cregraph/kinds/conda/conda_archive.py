"""Reader of conda packages (`.conda`, `.tar.bz2`), which unpacks no file by its name.

`.conda` (CEP 5 and conda-package-streaming): a zip of stored members. `info-*.tar.zst` describes the package, and
`pkg-*.tar.zst` holds the installed files. `.tar.bz2`: one tar with both. Contents are decompressed once, into an unnamed file,
and read from there by offset. No name of the package becomes a path on the host's disk.

Packages are untrusted. The reader refuses, by name: paths that are absolute, climb, or hold control characters;
devices, FIFOs and sparse files; links that lead out of the package; a path given twice, or below a file or link; sizes beyond
the limits below.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

from cregraph.errors import CregraphError
from cregraph.formats.inflate import bounded, inflated, inflated_file, part
from cregraph.formats.untrusted_tar import PACKAGE, Reader
from cregraph.image.model.tar_entry import ancestors

__all__ = ["Member", "Package", "check_path", "listed", "open_package", "refusal"]

#: Bytes of one file of the description (info/…).
INFO = 256 << 20

_BLOCK = 1 << 20
_HINT = "pin another build, or ask the author: the package is damaged or hostile"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DESCRIPTION = ("info/index.json", "info/paths.json", "info/link.json", "info/files", "info/has_prefix", "info/no_link")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A file or link in a package. For a hard link everything but `link` is that of the file it leads to."""

    path: str
    type: Literal["file", "symlink", "hardlink"]
    executable: bool = False
    offset: int = 0
    size: int = 0
    sha256: str = ""
    link: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """An opened package: its installable members by path, its description's files, and the bytes."""

    name: str
    members: dict[str, Member] = field(default_factory=dict)
    info: dict[str, bytes] = field(default_factory=dict)
    data: IO[bytes]

    def chunks(self, member: Member) -> Iterator[bytes]:
        return part(self.data, member.offset, member.size)


def refusal(package: str, why: str) -> CregraphError:
    return CregraphError(f"{package}: {why}", hint=_HINT)


def open_package(path: Path, scratch: Callable[[], IO[bytes]], name: str) -> Package:
    """Return the package at `path`, called `name` in messages. Its bytes are written to files that `scratch` returns.

    Raises CregraphError naming the package and what in it is refused.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic[:2] == b"PK":
            with zipfile.ZipFile(path) as archive:
                described, package = (_inflated(archive, part, scratch, name) for part in ("info", "pkg"))
            return replace(package, info=described.info)
        if magic[:3] == b"BZh":
            package = Package(name=name, data=scratch())
            package.data.writelines(inflated_file(path, what=name, hint=_HINT))
            return _index(package)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise refusal(name, f"not readable: {error}") from error
    raise refusal(name, "neither a .conda nor a .tar.bz2 file")


def listed(path: Path, scratch: Callable[[], IO[bytes]], name: str) -> tuple[str, ...]:
    """Return the paths that a package states to install, sorted. Only the description of a .conda is read."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return tuple(sorted(open_package(path, scratch, name).members))
    try:
        with zipfile.ZipFile(path) as archive:
            described = _inflated(archive, "info", scratch, name)
        told = json.loads(described.info["info/paths.json"])
        return tuple(sorted(str(row["_path"]) for row in told["paths"]))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        raise refusal(name, f"not readable: {error}") from error


def _inflated(archive: zipfile.ZipFile, part: str, scratch: Callable[[], IO[bytes]], name: str) -> Package:
    """Return one part of a .conda, `info` or `pkg`, as a package of its own."""
    found = [m for m in archive.infolist() if m.filename.startswith(f"{part}-") and m.filename.endswith(".tar.zst")]
    if len(found) != 1:
        raise refusal(name, f"holds {len(found)} members `{part}-*.tar.zst` (expected one)")
    if found[0].compress_type != zipfile.ZIP_STORED or found[0].flag_bits & 0x1:
        raise refusal(name, f"its member `{found[0].filename}` is compressed or encrypted by zip; it must be stored")
    package = Package(name=name, data=scratch())
    with archive.open(found[0]) as stored:
        plain = inflated(iter(lambda: stored.read(_BLOCK), b""), what=f"{name}: `{found[0].filename}`", hint=_HINT)
        package.data.writelines(bounded(plain, compressed=lambda: found[0].file_size, what=name, policy=PACKAGE))
    return _index(package)


def _index(package: Package) -> Package:
    """Fill `members` and `info` from the tar that is the package's data."""
    directories: set[str] = set()
    links: list[tuple[str, str]] = []
    package.data.seek(0)
    tar = Reader(package.data, what=package.name, policy=PACKAGE, hint=_HINT)
    for item in tar:
        path = _cleaned(item.name)
        if item.type == "directory":
            if path not in ("", "."):
                check_path(path, package.name)
                directories.add(path)
            continue
        check_path(path, package.name)
        if path.startswith("info/"):
            if item.type == "file" and path in _DESCRIPTION:
                if item.size > INFO:
                    raise refusal(package.name, f"`{path}` is larger than {INFO >> 20} MiB")
                package.info[path] = tar.read()
        elif item.type == "symlink":
            package.members[path] = Member(path=path, type="symlink", link=_link(item.link, path, package.name))
        elif item.type == "hardlink":
            links.append((path, item.link))
        else:
            digest = hashlib.sha256()
            for block in tar.blocks():
                digest.update(block)
            package.members[path] = Member(
                path=path,
                type="file",
                executable=bool(item.mode & 0o111),
                offset=item.offset,
                size=item.size,
                sha256=digest.hexdigest(),
            )
    for path, link in links:
        target = package.members.get(link)
        if target is None or target.type != "file":
            raise refusal(package.name, f"the hard link `{path}` leads to `{link}`, which is not an earlier file of the package")
        package.members[path] = replace(target, path=path, type="hardlink", link=link)
    _check_parents(package, directories)
    return package


def check_path(path: str, package: str) -> None:
    """Raise CregraphError unless `path` is a plain path below the folder to which it is relative."""
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        raise refusal(package, f"the path {path!r} is not UTF-8") from None
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise refusal(package, f"the path `{path}` leads out of the package")
    if _CONTROL.search(path):
        raise refusal(package, f"the path {path!r} holds control characters")
    if length > 4000 or any(len(part.encode()) > 255 for part in parts):
        raise refusal(package, f"the path `{path[:80]}…` is longer than file systems allow")


def _cleaned(path: str) -> str:
    while path.startswith("./"):
        path = path[2:]
    return path.rstrip("/") if not path.startswith("/") else path


def _link(text: str, path: str, package: str) -> str:
    if not text or any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise refusal(package, f"the link `{path}` leads to {text!r}")
    if text.startswith("/"):
        raise refusal(package, f"the link `{path}` leads to the absolute path `{text}`")
    return text


def _check_parents(package: Package, directories: set[str]) -> None:
    """Raise CregraphError for a path that is a file or link and also a directory: a link would redirect what lies below it."""
    parents = directories | {parent for path in package.members for parent in ancestors(path)}
    for path in sorted(parents & package.members.keys()):
        kind = "link" if package.members[path].type == "symlink" else "file"
        raise refusal(package.name, f"`{path}` is a {kind} and a folder as well")
