"""Base images and build roots in one OCI layout of a vendor folder. Blobs that images share lie there once.

Source: OCI Image Format Specification 1.1, image-layout.md.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cregraph.digest import Json, canonical
from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import BaseImage
from cregraph.image.bases.layout_folder import NAMED
from cregraph.image.media.oci_layout import MARK
from cregraph.image.model.manifest import OCI_MANIFEST, Descriptor
from cregraph.lock.pins import Artifact, Pin
from cregraph.store.atomic_file import file_digest, holds, place_file, write_file
from cregraph.vendor.vendor_files import Tree, VendorAccess, earlier

__all__ = ["FOLDERS", "put", "sources", "vendor_path", "write_index"]

_ROOT = "images"
_BLOBS = f"{_ROOT}/blobs/sha256"
FOLDERS = {_ROOT: ("index.json", "oci-layout")}
_TAG = "org.opencontainers.image.ref.name"
_INDEX = "application/vnd.oci.image.index.v1+json"


def vendor_path(artifact: Artifact) -> str:
    return f"{_BLOBS}/{artifact.sha256}"


def put(tree: Tree, files: Mapping[str, Artifact], access: VendorAccess) -> set[str]:
    """Write the blobs of all images, and return their paths. A partial layer is continued at its end."""
    placed: set[str] = set()
    for artifact in files.values():
        image = access.image(artifact)
        image.config()  # of this platform, with a diff id for each layer; kept in the store
        manifest = Descriptor(media_type=OCI_MANIFEST, digest=f"sha256:{artifact.sha256}", size=len(image.manifest.raw))
        for blob in (manifest, image.manifest.config, *image.manifest.layers):
            path = f"{_BLOBS}/{blob.hex}"
            if path not in placed:
                _blob(tree, path, blob, image)
                placed.add(path)
    return placed


def sources(folder: Path) -> Mapping[str, Json]:
    return {"image": f"./{_ROOT}"}


def write_index(folder: Path, pins: Sequence[Pin]) -> None:
    """Write `index.json`: the pinned images by the names that locks have for them, and earlier entries whose blobs are there."""
    root = folder / _ROOT
    (root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    before: list[Json] = earlier(root / "index.json", _manifests, [])
    entries = {(entry["digest"], entry["annotations"][NAMED]): entry for entry in before}
    for artifact in (pin.artifact for pin in pins):
        name = f"{artifact.source} {artifact.file}".strip()
        raw = (folder / _BLOBS / artifact.sha256).read_bytes()
        entries[f"sha256:{artifact.sha256}", name] = {
            "mediaType": json.loads(raw).get("mediaType", OCI_MANIFEST),
            "digest": f"sha256:{artifact.sha256}",
            "size": len(raw),
            "platform": {"architecture": "amd64", "os": "linux"},
            "annotations": {NAMED: name, _TAG: _tag(artifact)},
        }
    listed = [
        entry
        for (digest, _), entry in sorted(entries.items())
        if (folder / _BLOBS / str(digest).removeprefix("sha256:")).is_file()
    ]
    write_file(root / "oci-layout", MARK)
    write_file(root / "index.json", canonical({"schemaVersion": 2, "mediaType": _INDEX, "manifests": listed}))


def _tag(artifact: Artifact) -> str:
    """Return the name by which tools find the image in this layout, such as `base-2.5.0-566fcb3b66fd`."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", (artifact.file or artifact.source).rpartition("/")[2]).strip("-")[:80]
    return f"{words or 'image'}-{artifact.sha256[:12]}"


def _blob(tree: Tree, path: str, blob: Descriptor, image: BaseImage) -> None:
    target = tree.at(path)
    if holds(target, blob.hex, blob.size):
        tree.counted(path, blob.size, added=False)
        return
    if image.store.has(blob.hex):
        place_file(image.store.verified(blob.hex, f"a blob of {image.name}"), target, blob.hex)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        _stream(target, blob, image)
    tree.counted(path, blob.size, added=True)


def _stream(target: Path, blob: Descriptor, image: BaseImage) -> None:
    partial = target.with_name(f".{blob.hex}.partial")
    while True:
        have = partial.stat().st_size if partial.exists() else 0
        if have > blob.size:
            partial.unlink()
            continue
        with partial.open("ab") as file:
            for block in image.open_layer(blob, have) if have < blob.size else ():
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        found = file_digest(partial)
        if found == blob.hex:
            partial.chmod(0o444)
            partial.replace(target)
            return
        partial.unlink()
        if not have:
            raise CregraphError(f"{image.name}: a blob has sha256:{found} (expected {blob.digest})")


def _manifests(data: bytes) -> list[Json]:
    listed = json.loads(data)["manifests"]
    return [one for one in listed if isinstance(one["annotations"][NAMED], str) and isinstance(one["digest"], str)]
