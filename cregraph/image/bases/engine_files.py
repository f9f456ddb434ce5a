"""The files of an image in a Docker engine, from the archive of `docker save`, which is read forward once."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from cregraph.digest import is_sha256
from cregraph.errors import CregraphError
from cregraph.image.bases.image_files import Contents, Known, LayerReader, Listing, stands_on
from cregraph.image.bases.layer_tar import check_diff_id
from cregraph.image.media.docker_engine import image_archive
from cregraph.image.media.docker_save import archive_files
from cregraph.image.model.manifest import CONFIG_LIMIT, check_platform, follow, read_json

__all__ = ["of_engine"]


def of_engine(name: str, *, known: Known, wanted: Callable[[str], bool]) -> Contents:
    """Return the contents of the image `name` in a Docker engine. Raises CregraphError with the engine's message."""
    what = f"docker:{name}"
    archive = _Archive(what, skipped={one.removeprefix("sha256:") for pair in known.layers for one in pair})
    archive.read(name, LayerReader(wanted))
    digest, config, paths = archive.description()
    check_platform(config, what=what)
    rootfs = config.get("rootfs")
    ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(ids, list) or len(ids) != len(paths) or not all(_is_digest(one) for one in ids):
        raise CregraphError(f"{what}: config: rootfs.diff_ids: one sha256 for each of the {len(paths)} layers is wanted")
    named = tuple(f"sha256:{path.rpartition('/')[2]}" if path.startswith("blobs/sha256/") else "" for path in paths)
    below = stands_on(named, tuple(ids), known)
    contents = Contents(name=what, digest=digest, config=config, layers=named, diff_ids=tuple(ids), base=below > 0)
    for path, diff_id in list(zip(paths, ids, strict=True))[below:]:
        listing, found = archive.layer(path)
        check_diff_id(found, diff_id, what=f"{what}: {path[:200]}")
        contents.apply(listing)
    return contents


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and value.startswith("sha256:") and is_sha256(value[7:])


class _Archive:
    """Descriptions (JSON) and layers by their paths in the archive. Layers named in `skipped` are not read."""

    def __init__(self, what: str, *, skipped: set[str]) -> None:
        self._what = what
        self._skipped = skipped
        self._small: dict[str, bytes] = {}
        self._layers: dict[str, tuple[Listing, str] | CregraphError] = {}

    def read(self, name: str, reader: LayerReader) -> None:
        """Read the engine's archive of the image `name`."""
        links: dict[str, str] = {}
        with image_archive(name) as stream:
            for path, size, blocks in archive_files(stream, links, what=self._what):
                if path.rpartition("/")[2] not in self._skipped:
                    self._take(path, size, blocks, reader)
        for link, target in links.items():
            if target in self._layers:
                self._layers[link] = self._layers[target]

    def layer(self, path: str) -> tuple[Listing, str]:
        """Return the members of a layer, and the sha256 of its plain bytes."""
        found = self._layers.get(path)
        if found is None and path.rpartition("/")[2] in self._skipped:
            raise CregraphError(f"{self._what}: holds layers of the base in another order than the base has")
        if found is None:
            raise CregraphError(f"{self._what}: the engine's archive lacks {path[:200]}")
        if isinstance(found, CregraphError):
            raise found
        return found

    def description(self) -> tuple[str | None, dict[str, Any], list[str]]:
        """Return the digest, config and layers (paths in the archive) of the one image."""
        config = f"{self._what}: config"
        if "index.json" in self._small:
            manifest = follow(self._small["index.json"], lambda one: self._blob(one.digest), what=self._what)
            value = read_json(self._blob(manifest.config.digest), what=config, limit=CONFIG_LIMIT)
            return manifest.digest, value, [f"blobs/sha256/{layer.hex}" for layer in manifest.layers]
        try:
            (image,) = json.loads(self._small["manifest.json"])
            paths = [posixpath.normpath(str(layer)) for layer in image["Layers"]]
            return None, read_json(self._small[posixpath.normpath(str(image["Config"]))], what=config, limit=CONFIG_LIMIT), paths
        except (ValueError, KeyError, TypeError, RecursionError):
            raise CregraphError(f"{self._what}: the engine's archive does not describe one image") from None

    def _blob(self, digest: str) -> bytes:
        data = self._small.get(f"blobs/sha256/{digest.removeprefix('sha256:')}")
        if data is None or len(data) > CONFIG_LIMIT:
            raise CregraphError(f"{self._what}: the engine's archive lacks {digest}", "pull the image again for linux/amd64")
        return data

    def _take(self, path: str, size: int, blocks: Iterator[bytes], reader: LayerReader) -> None:
        """Read a description or a layer. Any other file is an error only if it is needed."""
        hasher = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for block in blocks:
                hasher.update(block)
                yield block

        source = hashed()
        first = next(source, b"")
        if first[:1] in (b"{", b"[") and size <= CONFIG_LIMIT:
            self._small[path] = first + b"".join(source)
        else:
            try:
                self._layers[path] = reader.listing(chain([first], source), f"{self._what}: {path[:200]}")
            except CregraphError as error:
                self._layers[path] = error
            for _ in source:
                pass
        folder, _, name = path.rpartition("/")
        if folder == "blobs/sha256" and name != hasher.hexdigest():
            raise CregraphError(f"{self._what}: the engine's archive has sha256:{hasher.hexdigest()} under the name {path[:200]}")
