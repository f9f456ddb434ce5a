"""An image as one tar that can be loaded: an OCI layout that also has Docker's own `manifest.json`.

Docker's classic store needs `manifest.json`; containerd's takes the layout and its name from the annotation
`io.containerd.image.name`. The tar is deterministic. Its listings come last: a stream that breaks off cannot be loaded.
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
    """The bytes of the archive, in pieces. `reference` is the name with a tag by which the image is loaded.

    Every blob is needed, those of the base too: from the store, else from `base`. Each is verified as it passes; a damaged one
    raises CregraphError before the stream is complete, so nothing gets loaded.
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
        yield tar.header(path=name, mode=0o444, size=len(data))
        yield data + tar.padding(len(data))
    yield tar.END
