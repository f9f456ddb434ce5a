"""Loading of an image into a Docker engine, with either image store, and the check that it arrived.

The archive is a tar that holds an OCI layout and Docker's own `manifest.json`. Docker's classic store needs `manifest.json`;
containerd's takes the layout and its name from the annotation `io.containerd.image.name`. The tar is deterministic. Its listings
come last, so that no engine loads a stream that breaks off. It is streamed: nothing is written to this machine's disk.
"""

from __future__ import annotations

from collections.abc import Iterator

from cregraph.digest import canonical
from cregraph.errors import CregraphError
from cregraph.image.media.docker_client import NoImage
from cregraph.image.media.docker_engine import inspect, load_stream
from cregraph.image.media.oci_layout import MARK, BaseBlobs, blobs, checked, index, open_blob
from cregraph.image.model import tar_writer as tar
from cregraph.image.model.config import Image
from cregraph.image.model.reference import parse_reference
from cregraph.store import Store

__all__ = ["archive", "load"]


def load(image: Image, *, reference: str, store: Store, base: BaseBlobs) -> None:
    """Load `image` by the name `reference`, which must have a tag. Afterwards the name leads to this image.

    Every layer goes to the engine, also those of the base: from `store`, else from `base`. A name that led to another image is
    moved, as `docker load` does.

    Raises CregraphError if the engine cannot be reached or its disk is full, if a blob is damaged (then nothing is loaded), or if
    the engine holds another image under the name afterwards.
    """
    if _held(reference) in _ids(image):
        return
    about = f"loading {reference}"
    load_stream(archive(image, reference=reference, store=store, base=base), about=about)
    found = _held(reference)
    if found not in _ids(image):
        what = f"the name refers to {found}" if found else "it has no image of that name"
        raise CregraphError(
            f"{about}: the Docker engine took the image, but {what}; {image.digest} was sent",
            hint="use `--output registry` and `docker pull`: engines older than Docker 25 may not read such an archive",
        )


def archive(image: Image, *, reference: str, store: Store, base: BaseBlobs) -> Iterator[bytes]:
    """Yield the bytes of the archive, in pieces. `reference` is the name and tag that the image gets in the engine.

    Every blob is needed, also those of the base: from the store, else from `base`. Each blob is verified as it passes.

    Raises CregraphError for a damaged or missing blob. The stream is not complete then, so an engine loads nothing.
    """
    named = parse_reference(reference)
    listing = index(image, reference)  # refuses a name without a tag, before anything is streamed
    yield tar.header(path="blobs", type="directory", mode=0o755)
    yield tar.header(path="blobs/sha256", type="directory", mode=0o755)
    for blob in blobs(image):
        yield tar.header(path=f"blobs/sha256/{blob.hex}", mode=0o444, size=blob.size)
        yield from checked(blob, open_blob(blob, image, store, base))
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


def _ids(image: Image) -> tuple[str, str]:
    """Return the ids of an image in engines: its manifest's digest (containerd's store), its config's (the classic store)."""
    return (image.digest, image.config_descriptor.digest)


def _held(reference: str) -> str | None:
    try:
        found = inspect(reference).get("Id")
    except NoImage:
        return None
    return str(found)
