"""Load an image into a Docker engine, of either image store, and check that it arrived.

The archive is streamed: one piece of it is in memory at a time, and nothing of it is written to this machine's disk.
"""

from __future__ import annotations

from cregraph.errors import CregraphError
from cregraph.image.media.docker_archive import archive
from cregraph.image.media.docker_client import NoImage
from cregraph.image.media.docker_engine import inspect, load_stream
from cregraph.image.media.oci_layout import BaseBlobs
from cregraph.image.model.config import Image
from cregraph.store import Store

__all__ = ["load"]


def load(image: Image, *, reference: str, store: Store, base: BaseBlobs | None) -> None:
    """Load `image` by the name `reference`, which must have a tag. Afterwards the name leads to this image.

    Every layer goes to the engine, also those of the base: from `store`, else from `base`. A name that led to another image is
    moved, as `docker load` does.

    Raises:
        CregraphError: The engine cannot be reached or its disk is full; a blob is damaged (then nothing is loaded); or the
            engine holds another image under the name afterwards.
    """
    if _held(reference) in _ids(image):
        return
    about = f"loading {reference}"
    load_stream(archive(image, reference=reference, store=store, base=base), about=about)
    found = _held(reference)
    if found not in _ids(image):
        what = f"the name leads to {found}" if found else "it has no image of that name"
        raise CregraphError(
            f"{about}: the Docker engine took the image, but {what}; {image.digest} was sent",
            hint="engines older than Docker 25 may not read such an archive; `--output registry` and `docker pull` work with all",
        )


def _ids(image: Image) -> tuple[str, str]:
    """What engines call an image: containerd's store its manifest's digest, the classic one its config's."""
    return (image.digest, image.config_descriptor.digest)


def _held(reference: str) -> str | None:
    try:
        found = inspect(reference).get("Id")
    except NoImage:
        return None
    return str(found)
