"""One tar that Docker engines load: an OCI layout that also has Docker's own `manifest.json`.

Docker's classic store needs `manifest.json`; containerd's takes the layout and its name from the annotation
`io.containerd.image.name`. The tar is deterministic. Its listings come last, so that no engine loads a stream
that breaks off.
"""

from __future__ import annotations

from collections.abc import Iterator

from cregraph.digest import canonical
from cregraph.errors import CregraphError
from cregraph.image.media.oci_layout import MARK, BaseBlobs, blobs, checked, index, open_blob
from cregraph.image.model import tar_writer as tar
from cregraph.image.model.config import Image
from cregraph.image.model.reference import parse_reference
from cregraph.store import Store

__all__ = ["archive"]


def archive(image: Image, *, reference: str, store: Store, base: BaseBlobs | None = None) -> Iterator[bytes]:
    """Yield the bytes of the archive, in pieces. `reference` is the name and tag that the image gets in the engine.

    Every blob is needed, also those of the base: from the store, else from `base`. Each blob is verified as it passes.

    Raises:
        CregraphError: A blob is damaged or missing. The stream is not complete then, so an engine loads nothing.
    """
    named = parse_reference(reference)
    listing = index(image, reference)  # refuses a name without a tag, before anything is streamed
    yield tar.header(path="blobs", type="directory", mode=0o755)
    yield tar.header(path="blobs/sha256", type="directory", mode=0o755)
    for blob in blobs(image):
        source = open_blob(blob, image, store, base)
        if source is None:
            raise CregraphError(
                f"layer {blob.digest} of the base is not at hand; an engine cannot load an image without it",
                hint="fetch the base's layers, or push the image to the registry that has the base",
            )
        yield tar.header(path=f"blobs/sha256/{blob.hex}", mode=0o444, size=blob.size)
        yield from checked(blob, source)
        yield tar.padding(blob.size)
    legacy = [
        {
            "Config": f"blobs/sha256/{image.config_descriptor.hex}",
            "RepoTags": [str(named.at(tag=named.tag))],
            "Layers": [f"blobs/sha256/{layer.hex}" for layer in image.layers],
        }
    ]
    for name, data in (("index.json", listing), ("manifest.json", canonical(legacy)), ("oci-layout", MARK)):
        yield from tar.file(name, data, mode=0o444)
    yield tar.END
