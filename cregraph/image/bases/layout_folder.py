"""Reader of an untrusted OCI image layout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cregraph.digest import is_sha256
from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_of
from cregraph.image.model.manifest import (
    MANIFEST_LIMIT,
    Descriptor,
    Manifest,
    choose,
    digest_of,
    follow,
    read_descriptor,
    read_json,
    read_manifest,
)
from cregraph.image.model.reference import LayoutName

__all__ = ["NAMED", "LayoutFolder"]

#: Annotation in layouts that `vendor` wrote: the image's name in a lock.
NAMED = "org.cregraph.image"


class LayoutFolder:
    """An OCI image layout (image specification 1.1, image-layout.md): oci-layout, index.json, blobs/sha256/<hex>."""

    home: tuple[str, str] | None = None

    def __init__(self, name: LayoutName, project: Path) -> None:
        self.name = str(name)
        self._tag = name.tag
        self._folder = project / name.folder

    def holds(self, digest: str) -> bool:
        return self._path(digest).is_file()

    def named(self, source: str) -> Descriptor | None:
        """Return the image that is named `source` in a lock (see NAMED)."""
        for i, one in enumerate(self._listed()):
            if _notes(one).get(NAMED) == source:
                return read_descriptor(one, what=f"{self.name}: index.json", field=f"manifests[{i}]", limit=MANIFEST_LIMIT)
        return None

    def image(self, digest: str | None) -> Manifest:
        if digest and self._path(digest).is_file():  # else read the image that it holds instead, for the message
            return read_manifest(self._small(digest), what=self.name)
        first = self._chosen()
        return follow(self._small(first.digest), lambda d: self._small(d.digest), what=self.name)

    def blob(self, blob: Descriptor, start: int = 0) -> Iterator[bytes]:
        path = self._path(blob.digest)
        hasher, size = hashlib.sha256(), start
        try:
            for block in blocks_of(path, start):
                size += len(block)
                hasher.update(block)
                yield block
        except OSError as error:
            if not path.parents[2].exists():
                raise CregraphError(
                    f"{self.name}: the layout with {blob.digest} does not exist",
                    "restore the layout, or copy it there again",
                ) from None
            raise CregraphError(
                f"{self.name}: {blob.digest} cannot be read ({error.strerror})", "copy the layout again: it is damaged"
            ) from None
        if size != blob.size or (start == 0 and hasher.hexdigest() != blob.hex):
            raise CregraphError(
                f"{self.name}: a blob has sha256:{hasher.hexdigest()} ({size} bytes), "
                f"but its manifest says {blob.digest} ({blob.size})",
                "copy the layout again: it is damaged",
            )

    def _listed(self) -> list[dict[str, Any]]:
        what = f"{self.name}: index.json"
        listed = read_json(self._read("index.json"), what=what).get("manifests")
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise CregraphError(f"{what}: manifests: invalid value (expected a list of objects)")
        return listed

    def _chosen(self) -> Descriptor:
        listed = self._listed()
        tags = sorted({tag for one in listed for tag in _tags(one)})
        fitting = [one for one in listed if not self._tag or self._tag in _tags(one)]
        if not fitting:
            raise CregraphError(f"{self.name}: has no image with this tag; existing tags: {', '.join(tags) or 'none with a tag'}")
        if not self._tag and len(tags) > 1 and len({str(one.get("digest")) for one in listed}) > 1:
            raise CregraphError(f"{self.name}: holds several images", f"write `{self.name}:TAG`; there are: {', '.join(tags)}")
        return choose({"manifests": fitting}, what=f"{self.name}: index.json")

    def _small(self, digest: str) -> bytes:
        data = self._read(f"blobs/sha256/{_hex(digest)}")
        if digest_of(data) != digest:
            raise CregraphError(
                f"{self.name}: blobs/sha256/{_hex(digest)} has {digest_of(data)}, which does not match its name",
                "copy the layout again: it is damaged",
            )
        return data

    def _path(self, digest: str) -> Path:
        return self._folder / "blobs" / "sha256" / _hex(digest)

    def _read(self, path: str) -> bytes:
        try:
            with (self._folder / path).open("rb") as file:
                data = file.read(MANIFEST_LIMIT + 1)
        except OSError as error:
            there = "there is no OCI layout" if path == "index.json" else f"the layout has no {path}"
            raise CregraphError(
                f"{self.name}: {there} ({error.strerror})",
                "write `oci:DIR` with a folder of the project that has index.json and blobs/",
            ) from None
        if len(data) > MANIFEST_LIMIT:
            raise CregraphError(f"{self.name}: {path} is larger than {MANIFEST_LIMIT >> 20} MiB")
        return data


def _hex(digest: str) -> str:
    hex = digest.removeprefix("sha256:")
    if not is_sha256(hex):
        raise CregraphError(f"`{digest[:80]}` is not a sha256 digest")
    return hex


def _notes(entry: dict[str, Any]) -> dict[str, Any]:
    notes = entry.get("annotations")
    return notes if isinstance(notes, dict) else {}


def _tags(entry: dict[str, Any]) -> list[str]:
    """Return the tags of an entry of index.json. Tools write the tag alone, or a reference that ends in it."""
    names = [_notes(entry).get(key) for key in ("org.opencontainers.image.ref.name", "io.containerd.image.name")]
    return [name.rpartition("/")[2].rpartition(":")[2] for name in names if isinstance(name, str) and name]
