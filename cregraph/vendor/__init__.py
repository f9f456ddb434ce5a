"""Everything that locks need, copied into one folder as plain standard trees, with a `sources.yaml` that leads to them.

    conda/<channel>/{linux-64,noarch}/    a conda channel with repodata.json
    cran/<date>/src/contrib/              a CRAN of that day: PACKAGES, PACKAGES.gz, older versions in Archive/
    cran-binary/<distribution>/<R>/<date>/src/contrib/      the same of built packages
    simple/<name>/                        a package index of Python (PEP 503, PEP 691, PEP 658)
    files/<scheme>/<host>/<path>          files by URL; by-sha256/<hex>/<name> where a URL makes no path
    images/                               one OCI layout with every base image and build root
    sources.yaml                          written last

What is in the folder of other locks stays, and the indexes list it too. Bytes follow from what is there, not from when or in
which order it came. Every byte is verified against a lock on its way in; what is there already is hashed again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import BaseImage
from cregraph.kinds.conda import vendor_channel as conda
from cregraph.kinds.python import vendor_index as simple
from cregraph.kinds.r import vendor_cran as cran
from cregraph.lock.lock_file import Lock
from cregraph.lock.pins import Artifact, Pin
from cregraph.store import write_file
from cregraph.vendor import vendor_images as images
from cregraph.vendor import vendor_urls as urls
from cregraph.vendor.vendor_files import Tree

__all__ = ["SOURCES", "Vendored", "vendor"]

SOURCES = "sources.yaml"
_MARK = "# Written by `cregraph vendor`"
_HEAD = f"{_MARK}: everything that the locks need lies in this folder.\n"
_OURS = ("conda", "cran", "cran-binary", "simple", "files", "images", SOURCES)
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Vendored:
    """What the locks need there: `files` of `size` bytes, of which `added` were not there before. `removed` are others that went.

    `own` are files of the project (or of the recipes that ship with cregraph): they are not copied, they come with it.
    """

    files: int
    size: int
    added: int
    removed: int
    own: tuple[str, ...]


def vendor(
    locks: Sequence[Lock],
    folder: Path,
    *,
    fetch: Callable[[Artifact], Path],
    opened: Callable[[Artifact], BaseImage],
    prune: bool = False,
    on_file: Callable[[str, int], None] = lambda _name, _size: None,
) -> Vendored:
    """Bring `folder`, which is new, empty or of an earlier run, to hold all that `locks` need. With `prune` no more than that.

    `fetch` gives an artifact's verified file, `opened` an image that a lock pins. What an interrupted run copied is kept.
    Raises CregraphError for a folder that holds something else, for what cannot be fetched, for a lock whose names make no path.
    """
    with _entered(folder, prune=prune):
        before = _mapping(folder)
        wanted, pins, own = _wanted(locks)
        tree = Tree(folder, on_file)
        pinned_images = {a.sha256: a for a in wanted.values() if a.kind == "image"}
        files = {path: a for path, a in wanted.items() if a.kind != "image"}
        with _explained(folder):
            tree.clear()
            cran.flatten(folder)
            with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
                for done in [pool.submit(tree.put, path, artifact, fetch) for path, artifact in sorted(files.items())]:
                    done.result()
            opened_images = [(artifact, opened(artifact)) for artifact in pinned_images.values()]
            blobs = images.put(tree, opened_images)
            keep = {*files, *blobs}
            removed = tree.prune(keep, _OURS[:-1]) if prune else 0
            conda.write_index(folder, pins)
            for root in ("cran", "cran-binary"):
                cran.write_indexes(folder / root)
            simple.write_index(folder / "simple")
            images.write_index(folder, [a for a in wanted.values() if a.kind == "image"])
            _write_sources(folder, urls.mapping(folder, files, before))
        return Vendored(files=len(keep), size=tree.size, added=tree.added, removed=removed, own=own)


def _wanted(locks: Sequence[Lock]) -> tuple[dict[str, Artifact], list[Pin], tuple[str, ...]]:
    """Where each artifact goes; the pins; and the sources that are the project's own."""
    wanted: dict[str, Artifact] = {}
    pins: list[Pin] = []
    own: set[str] = set()
    addresses: dict[str, Artifact] = {}
    for target in (target for lock in locks for target in lock.targets):
        for pin in target.pins:
            artifact = pin.artifact
            pins.append(pin)
            if artifact.kind == "path" or artifact.source.startswith(("./", "standard:")):
                own.add(artifact.source)
            elif "://" in artifact.source:
                addresses[artifact.source] = artifact
            else:
                path = _place(pin)
                other = wanted.setdefault(path, artifact)
                if other.sha256 != artifact.sha256:
                    raise CregraphError(
                        f"two locks pin different bytes as {path}: sha256:{other.sha256} and sha256:{artifact.sha256}",
                        hint="the source changed a file in place: lock the older of the two again, or name two folders",
                    )
    for path, url in urls.places(addresses).items():
        wanted[path] = addresses[url]
    return wanted, pins, tuple(sorted(own))


def _place(pin: Pin) -> str:
    artifact = pin.artifact
    if artifact.kind == "conda":
        return conda.place(artifact)
    if artifact.kind == "r":
        return cran.place(artifact)
    if artifact.kind == "python":
        return simple.place(artifact)
    if artifact.kind == "image":
        return f"images {artifact.source} {artifact.file} {artifact.sha256}"
    raise CregraphError(
        f"`{artifact.source} {artifact.file}` is of kind `{artifact.kind}`, which this cregraph cannot vendor",
        hint="the lock was edited by hand, or another version of cregraph wrote it",
    )


@contextlib.contextmanager
def _entered(folder: Path, *, prune: bool) -> Iterator[None]:
    """Hold `folder` against another run. Raises CregraphError when it holds something that no run wrote; to `prune`, also when
    nothing says that a run wrote all of it."""
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        strange = sorted(p.name for p in folder.iterdir() if p.name not in _OURS and not p.name.startswith(f".{SOURCES}."))
        if strange or (folder / "images").is_file():
            raise CregraphError(
                f"`{folder}` holds `{(strange or ['images'])[0]}`, which no `cregraph vendor` wrote; it is left as it is",
                hint="name a folder that is new, empty or a vendor folder",
            )
        ours = _is_ours(folder / SOURCES)
        if ours is False:
            raise CregraphError(
                f"`{folder / SOURCES}` was not written by `cregraph vendor`; it is left as it is",
                hint="name a folder that is new, empty or a vendor folder",
            )
        if prune and ours is None and any(folder.iterdir()):
            raise CregraphError(
                f"`{folder}` holds files and no {SOURCES}, so nothing says that they are of `cregraph vendor`; none is removed",
                hint="if an interrupted run left them, run it once without `--prune`; else name another folder",
            )
        holder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CregraphError(
                f"another `cregraph vendor` writes `{folder}`", hint="run it again when that one is done"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(holder)


def _is_ours(sources: Path) -> bool | None:
    """Whether a run wrote this file; None when it is not there."""
    try:
        with sources.open("rb") as file:
            return file.read(len(_MARK)) == _MARK.encode()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CregraphError(
            f"`{error.filename or folder}` cannot be written: {error.strerror or error}",
            hint="name a folder with room and rights; what was copied is kept, and the same command goes on from there",
        ) from error


def _mapping(folder: Path) -> dict[str, str]:
    """The section `url` of the sources.yaml that an earlier run wrote."""
    import yaml

    try:
        data = yaml.safe_load((folder / SOURCES).read_text(encoding="utf-8"))
        found = data.get("url") or {}
        return {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, str)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError, AttributeError, RecursionError):
        raise CregraphError(
            f"`{folder / SOURCES}` is not what `cregraph vendor` writes", hint="remove it; the same command writes it anew"
        ) from None


def _write_sources(folder: Path, addresses: Mapping[str, str]) -> None:
    lines = [_HEAD, "conda:", *(f"  {json.dumps(name)}: {json.dumps('./conda/' + name)}" for name in conda.channels(folder))]
    if len(lines) == 2:
        lines[1] = "conda: {}"
    for section, address, name in (
        ("cran", "./cran/{date}", "cran"),
        ("cran_binary", "./cran-binary/{distribution}/{r}/{date}", "cran-binary"),
        ("pypi", "./simple", "simple"),
        ("image", "./images", "images"),
    ):
        (folder / name).mkdir(exist_ok=True)
        lines.append(f"{section}: {json.dumps(address)}")
    lines += (
        ["url:", *(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(addresses.items()))] if addresses else []
    )
    write_file(folder / SOURCES, ("\n".join(lines) + "\n").encode())
