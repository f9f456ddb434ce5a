"""A folder of standard trees with all that locks need, and a `sources.yaml` that leads to them.

    conda/<channel>/{linux-64,noarch}/    a conda channel with repodata.json
    cran/<date>/src/contrib/              CRAN as of a date: PACKAGES, PACKAGES.gz, older versions in Archive/
    cran-binary/<distribution>/<R>/<date>/src/contrib/      the same for built packages
    simple/<name>/                        a Python package index (PEP 503, PEP 691, PEP 658)
    files/<scheme>/<host>/<path>          files by URL; by-sha256/<hex>/<name> if the URL gives no portable path
    images/                               one OCI layout with every base image and build root
    recipes/<16 digits>/                  the sets of standard recipes
    sources.yaml                          written last

The rules of each tree belong to its kind (`VendorRules`). Files of other locks stay, and the indexes list them. The bytes depend
on the files only, not on time or order. Every file is verified against a lock; existing files are hashed again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.image.model.tar_entry import ancestors
from cregraph.kinds import parts
from cregraph.lock.lock_file import Lock
from cregraph.lock.pins import Artifact, Pin
from cregraph.store.atomic_file import write_file, writing
from cregraph.vendor.vendor_files import Tree, VendorAccess, VendorRules, earlier, put_files

__all__ = ["SOURCES", "Vendored", "url_paths", "url_section", "vendor"]

SOURCES = "sources.yaml"
RECIPES = "recipes"
_FILES = "files"
_EXACT = f"{_FILES}/by-sha256/"
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~@,=!-]{0,200}")
_HINT = "name a folder with free space and write permission. The same command continues the copy"
_MARK = "# Written by `cregraph vendor`"
_HEAD = f"{_MARK}: everything that the locks need lies in this folder.\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Vendored:
    """The result: the locks need `files`, of `size` bytes in total. `added` of them are new; `removed` others were removed.

    `own` are sources of files that come with the project or with the standard recipes, and are not copied.
    """

    files: int
    size: int
    added: int
    removed: int
    own: tuple[str, ...]


@dataclass(kw_only=True, slots=True)
class _Wanted:
    """Pins and files by kind, files by URL (path to artifact), and the project's own files."""

    pins: dict[str, list[Pin]] = field(default_factory=dict)
    files: dict[str, dict[str, Artifact]] = field(default_factory=dict)
    urls: dict[str, Artifact] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)


def vendor(
    locks: Sequence[Lock],
    folder: Path,
    access: VendorAccess,
    *,
    recipes: Mapping[str, Mapping[str, bytes]],
    prune: bool = False,
    on_file: Callable[[str, int], None] = lambda _name, _size: None,
) -> Vendored:
    """Write all that `locks` need into `folder`, which is new, empty or of an earlier run. With `prune`, remove other files.

    `recipes` are the sets of standard recipes: by the name of the tree, files by path.

    Files that an interrupted run copied are kept. Raise CregraphError if the folder holds something else.
    """
    rules = cast(Mapping[str, VendorRules], parts("vendor"))
    folders = {name: indexes for each in rules.values() for name, indexes in each.FOLDERS.items()} | {
        _FILES: (),
        RECIPES: (),
    }
    with _entered(folder, {*folders, SOURCES}, prune=prune):
        before = _mapping(folder)
        wanted = _wanted(locks, rules)
        tree = Tree(folder, on_file)
        with writing(folder, _HINT, names_file=True):
            tree.clear()
            keep = put_files(tree, wanted.urls, access)
            for name, each in rules.items():
                keep |= each.put(tree, wanted.files.get(name, {}), access)
            sets = {f"{RECIPES}/{tree}/{path}": data for tree, files in recipes.items() for path, data in files.items()}
            for path, data in sets.items():
                write_file(folder / path, data)
            removed = tree.prune(keep | sets.keys(), folders) if prune else 0
            for name in folders:
                (folder / name).mkdir(exist_ok=True)
            sections: dict[str, Json] = {RECIPES: f"./{RECIPES}"}
            for name, each in rules.items():
                each.write_index(folder, wanted.pins.get(name, []))
                sections |= each.sources(folder)
            _write_sources(folder, sections, url_section(folder, wanted.urls, before))
        return Vendored(files=len(keep), size=tree.size, added=tree.added, removed=removed, own=tuple(sorted(wanted.own)))


def _wanted(locks: Sequence[Lock], rules: Mapping[str, VendorRules]) -> _Wanted:
    wanted = _Wanted()
    addresses: dict[str, Artifact] = {}
    for target in (target for lock in locks for target in lock.targets):
        wanted.pins.setdefault(target.kind, []).extend(target.pins)
        for artifact in (pin.artifact for pin in target.pins):
            if artifact.kind == "path" or artifact.source.startswith(("./", "standard:")):
                wanted.own.add(artifact.source)
            elif "://" in artifact.source:
                addresses[artifact.source] = artifact
            elif artifact.kind in rules:
                path = rules[artifact.kind].vendor_path(artifact)
                other = wanted.files.setdefault(artifact.kind, {}).setdefault(path, artifact)
                if other.sha256 != artifact.sha256:
                    raise CregraphError(
                        f"two locks pin different bytes as {path}: sha256:{other.sha256} and sha256:{artifact.sha256}",
                        hint="lock the older of the two again, or name two folders: the source changed a file",
                    )
            else:
                raise CregraphError(
                    f"`{artifact.source} {artifact.file}` is of kind `{artifact.kind}`, which this cregraph cannot vendor",
                    hint="check the lock: it was edited by hand, or another version of cregraph wrote it",
                )
    wanted.urls = {path: addresses[url] for path, url in url_paths(addresses).items()}
    return wanted


@contextlib.contextmanager
def _entered(folder: Path, ours: Collection[str], *, prune: bool) -> Iterator[None]:
    """Hold a lock on `folder`. Raise CregraphError if it has entries other than `ours`; with `prune` also if no run wrote it."""
    with writing(folder, _HINT, names_file=True):
        folder.mkdir(parents=True, exist_ok=True)
        strange = [path for path in folder.iterdir() if not path.name.startswith(f".{SOURCES}.")]
        strange = [path for path in strange if path.name not in ours or (path.name != SOURCES and path.is_file())]
        if strange:
            raise CregraphError(
                f"`{folder}` holds `{min(strange).name}`, which `cregraph vendor` did not write; cregraph does not change it",
                hint="name a folder that is new, empty or a vendor folder",
            )
        written = _is_ours(folder / SOURCES)
        if written is False:
            raise CregraphError(
                f"`{folder / SOURCES}` was not written by `cregraph vendor`; cregraph does not change it",
                hint="name a folder that is new, empty or a vendor folder",
            )
        if prune and written is None and any(folder.iterdir()):
            raise CregraphError(
                f"`{folder}` has files without {SOURCES}, so `cregraph vendor` may not have written them; nothing was removed",
                hint="run once without `--prune` if an interrupted run left them, or name another folder",
            )
        holder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CregraphError(
                f"another `cregraph vendor` is writing to `{folder}`", hint="run the command again when that one is done"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(holder)


def _is_ours(sources: Path) -> bool | None:
    """Return whether a run wrote this file; None if it does not exist."""
    try:
        with sources.open("rb") as file:
            return file.read(len(_MARK)) == _MARK.encode()
    except FileNotFoundError:
        return None


def _mapping(folder: Path) -> dict[str, str]:
    """Return the section `url` of the sources.yaml that an earlier run wrote."""

    def read(data: bytes) -> dict[str, str]:
        import yaml

        found = yaml.safe_load(data.decode("utf-8")).get("url") or {}
        return {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, str)}

    return earlier(folder / SOURCES, read, {})


def _write_sources(folder: Path, sections: Mapping[str, Json], addresses: Mapping[str, str]) -> None:
    import yaml

    text = yaml.safe_dump({**sections, "url": dict(addresses)} if addresses else sections, allow_unicode=True)
    write_file(folder / SOURCES, f"{_HEAD}\n{text}".encode())


# -- files by URL


def url_paths(addresses: Mapping[str, Artifact]) -> dict[str, str]:
    """Return path to URL. The path is that of the URL below its host; if that is not portable or taken, its sha256."""
    found: dict[str, str] = {}
    folders: set[str] = set()
    for url, artifact in sorted(addresses.items()):
        path = _path(url)
        if path is not None:
            above = set(ancestors(path))
            if path not in found and path not in folders and not above & found.keys():
                found[path] = url
                folders |= above
                continue
        found[f"{_EXACT}{artifact.sha256}/{_name(url)}"] = url
    return found


def url_section(folder: Path, wanted: Mapping[str, Artifact], before: Mapping[str, str]) -> dict[str, str]:
    """Return the section `url`: each host that has files, and each URL whose file lies by sha256. `before` is the earlier one."""
    found: dict[str, str] = {}
    for scheme in ("https", "http"):
        for host in sorted(path for path in (folder / _FILES / scheme).glob("*") if path.is_dir()):
            if any(path.is_file() for path in host.rglob("*")):
                found[f"{scheme}://{host.name.replace('+', ':')}/"] = f"./{_FILES}/{scheme}/{host.name}/"
    for url, address in before.items():
        if address.startswith(f"./{_EXACT}") and ".." not in address.split("/") and (folder / address).is_file():
            found[url] = address
    return found | {artifact.source: f"./{path}" for path, artifact in wanted.items() if path.startswith(_EXACT)}


def _path(url: str) -> str | None:
    parts = urlsplit(url)
    names = parts.path.lstrip("/").split("/")
    plain = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.netloc) and parts.path.startswith("/")
    if not plain or parts.query or parts.fragment or "?" in url or not all(_PART.fullmatch(name) for name in names):
        return None
    return f"{_FILES}/{parts.scheme}/{parts.netloc.replace(':', '+')}/{'/'.join(names)}"


def _name(url: str) -> str:
    last = re.sub(r"[^A-Za-z0-9._+-]", "_", urlsplit(url).path.rstrip("/").rpartition("/")[2])[:100]
    return last if re.match(r"[A-Za-z0-9]", last) else f"file{last}"
