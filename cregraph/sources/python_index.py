"""Python package indexes: the page that lists a file. `uv_resolver` chooses the files."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from cregraph.errors import CregraphError
from cregraph.sources.index_page import is_place, link_to
from cregraph.sources.pip_settings import ordinary
from cregraph.sources.protocol import NotThere, Sources
from cregraph.text import redacted

if TYPE_CHECKING:
    from packaging.pylock import Package

__all__ = ["File", "Found", "find_file", "locations", "read_pylock"]

_PAGE_LIMIT = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A wheel or sdist as an index lists it. If unknown, `sha256` is empty and `size` (bytes) is 0."""

    name: str
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A distribution that uv chose: normal name, files, and the names of distributions that need it."""

    name: str
    version: str
    wheels: tuple[File, ...]
    sdist: File | None
    via: tuple[str, ...] = ()


def find_file(index: str, name: str, file: str, read: Callable[[str], bytes]) -> str:
    """Return the address of `file` of distribution `name` in the index at `index` (PEP 691 JSON or PEP 503 HTML).

    `read` returns the bytes at an address. Raises NotThere if the index does not list the file.
    """
    page = f"{index.rstrip('/')}/{canonicalize_name(name)}/"
    local = urlsplit(index).scheme == "file"
    data = read(page + "index.html" if local else page)
    if len(data) > _PAGE_LIMIT:
        raise CregraphError(f"{redacted(page)} is larger than {_PAGE_LIMIT >> 20} MiB, more than an index page has")
    url = link_to(file, data, page, ("file",) if local else ("http", "https"))
    if url is None:
        raise NotThere(f"{redacted(page)} does not list {file}")
    return url


def locations(sources: Sources, file: str) -> tuple[str, ...]:
    """Return the addresses of an artifact's `file` (`numpy/numpy-2.0.0-….whl`) on this machine, best first.

    Raises NotThere if no index lists the file. Raises CregraphError for another form of file (a lock edited by hand).
    """
    name, _, base = file.partition("/")
    if not is_place(file):
        raise CregraphError(f"`{file[:200]}` is not a file of source `pypi` (expected NAME/FILE)")
    told = ordinary(os.environ, Path.home())
    routes = sources.routes("pypi", "pypi")
    found: list[str] = []
    failure: CregraphError | None = None

    def read(address: str) -> bytes:
        return sources.read(kind="url", source=address, file="", limit=_PAGE_LIMIT)

    for index in routes or told.addresses():
        try:
            found.append(find_file(index, name, base, read))
        except NotThere:
            continue
        except CregraphError as error:
            failure = failure or error
    for folder in () if routes else told.find_links:
        path = Path(folder.removeprefix("file://"))
        if "://" not in folder.removeprefix("file://") and (path / base).is_file():
            found.append((path / base).resolve().as_uri())
    if not found:
        raise failure or NotThere(
            f"no package index of this machine lists {base}", hint="name one that does in sources.yaml (pypi: https://…/simple)"
        )
    return tuple(dict.fromkeys(found))


def read_pylock(path: Path) -> list[Found]:
    """Return the distributions of a pylock.toml (PEP 751). Raises CregraphError if it is invalid."""
    from packaging.pylock import Pylock, PylockValidationError

    try:
        lock = Pylock.from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, PylockValidationError) as error:
        raise CregraphError(f"uv's answer is not readable as pylock.toml (PEP 751): {error}") from None
    return [_found(package) for package in lock.packages]


def _found(package: Package) -> Found:
    def file(listed: object) -> File:
        url = str(getattr(listed, "url", None) or getattr(listed, "path", None) or "")
        name = getattr(listed, "name", None) or unquote(urlsplit(url).path).rpartition("/")[2]
        hashes = getattr(listed, "hashes", {}) or {}
        return File(name=str(name), sha256=str(hashes.get("sha256", "")), size=int(getattr(listed, "size", None) or 0))

    if package.version is None or package.vcs or package.directory or package.archive:
        raise CregraphError(f"Python package {package.name} does not come from an index, so it cannot be locked")
    return Found(
        name=canonicalize_name(package.name),
        version=str(package.version),
        wheels=tuple(file(w) for w in package.wheels or ()),
        sdist=file(package.sdist) if package.sdist else None,
    )
