"""Writer of OCI image layouts (image-spec 1.1, image-layout.md). A layout appears in one step."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cregraph.digest import canonical, is_sha256, sha256
from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_of
from cregraph.image.model.config import Image, as_json
from cregraph.image.model.manifest import Descriptor
from cregraph.image.model.reference import parse_reference
from cregraph.store import Store
from cregraph.store.atomic_file import holds, is_new_folder, place_file, remove_tree, write_file, writing

__all__ = ["MARK", "BaseBlobs", "blob_path", "blobs", "checked", "index", "is_fresh", "open_blob", "write"]

#: Gives the bytes of a blob of the base, in pieces. The caller verifies them.
BaseBlobs = Callable[[Descriptor], Iterable[bytes]]

#: The content of the file `oci-layout`.
MARK = b'{"imageLayoutVersion":"1.0.0"}'

_HINT = "use a folder with free space that you may write to: oci:DIR"
_TAG = "org.opencontainers.image.ref.name"
_NAME = "io.containerd.image.name"


def write(folder: Path, image: Image, *, reference: str, store: Store, base: BaseBlobs) -> None:
    """Write `image` as the layout `folder`, which then holds only this image.

    `reference` is its name with a tag. Layers come from `store`, as hard links where they are read-only and on one file system,
    else from `base`. A new folder appears whole. In an existing layout `index.json` is replaced last, so that the old or the new
    image is complete whenever this is interrupted.

    Raises CregraphError if the folder holds something else or cannot be written, or a blob does not match its digest.
    """
    listing = index(image, reference)
    with writing(folder, _HINT), store.lock(f"layout-{sha256(os.fsencode(folder.absolute()))}"):
        partial = folder.parent / f".{folder.name}.partial"
        remove_tree(partial)  # of a run that was killed
        fresh = is_fresh(folder)
        target = partial if fresh else folder
        try:
            _fill(target, image, store, base)
            write_file(target / "oci-layout", MARK)
            write_file(target / "index.json", listing)
            if fresh:
                target.replace(folder)
        finally:
            remove_tree(partial)
        keep = {blob.hex for blob in blobs(image)}
        for path in (folder / "blobs" / "sha256").iterdir():
            if path.name not in keep:
                path.unlink()


def is_fresh(folder: Path) -> bool:
    """Return whether `folder` is new or empty. Raise CregraphError if it holds other files or cannot be written."""
    return is_new_folder(
        folder, ours=lambda path: (path / "oci-layout").is_file(), foreign="is not an OCI layout", option="oci:DIR"
    )


def index(image: Image, reference: str) -> bytes:
    """Return the `index.json` of a layout that holds one image by the name `reference`, which must have a tag."""
    named = parse_reference(reference)
    if not named.tag:
        raise CregraphError(f"image reference: `{reference}` has no tag", hint="write `name:tag`")
    entry = as_json(image.descriptor)
    entry["annotations"] = {_TAG: named.tag, _NAME: str(named.at(tag=named.tag))}
    return canonical({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]})


def blobs(image: Image) -> tuple[Descriptor, ...]:
    """Return every blob of an image once: manifest, config, layers."""
    found = {blob.digest: blob for blob in (image.descriptor, image.config_descriptor, *image.layers)}
    return tuple(found.values())


def open_blob(blob: Descriptor, image: Image, store: Store, base: BaseBlobs) -> Path | Iterable[bytes]:
    """Return the bytes of a blob or their file: from the image itself, the store, or the base."""
    if blob.digest == image.digest:
        return (image.manifest,)
    if blob.digest == image.config_descriptor.digest:
        return (image.config,)
    if store.has(blob.hex) or blob in image.layers[len(image.layers) - image.own :]:
        return store.verified(blob.hex, f"layer {blob.digest}")  # or says that it is absent, and what to do
    return base(blob)


def checked(blob: Descriptor, source: Path | Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a blob in pieces. Raises CregraphError at the end if they do not match the descriptor."""
    hasher = hashlib.sha256()
    size = 0
    for piece in blocks_of(source) if isinstance(source, Path) else source:
        size += len(piece)
        if size > blob.size:
            break
        hasher.update(piece)
        yield piece
    if size != blob.size:
        raise CregraphError(f"blob {blob.digest} has {'more' if size > blob.size else 'fewer'} than its {blob.size} bytes")
    if hasher.hexdigest() != blob.hex:
        raise CregraphError(
            f"a blob has sha256:{hasher.hexdigest()}, but the image names {blob.digest}",
            hint="download the bytes again: they are damaged",
        )


def blob_path(folder: Path, blob: Descriptor) -> Path:
    """Return the path of a blob in a layout. Raises ValueError for a digest that is not a sha256: it could lead elsewhere."""
    if not is_sha256(blob.hex):
        raise ValueError(f"not a sha256 digest: {blob.digest!r}")
    return folder / "blobs" / "sha256" / blob.hex


def _fill(folder: Path, image: Image, store: Store, base: BaseBlobs) -> None:
    (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    for blob in blobs(image):
        path = blob_path(folder, blob)
        source = open_blob(blob, image, store, base)
        if isinstance(source, Path):
            place_file(source, path, blob.hex)
        elif not holds(path, blob.hex, blob.size):
            temporary = path.with_name(f".{path.name}.partial")
            try:
                with temporary.open("wb") as file:
                    file.writelines(checked(blob, source))
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
