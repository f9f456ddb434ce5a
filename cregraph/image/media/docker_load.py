"""An image into a Docker engine, of either image store, and the proof that it is there.

The archive is streamed into `docker load`: no more than a piece of it is in memory, nothing of it on this machine's disk.
"""

from __future__ import annotations

from cregraph.errors import CregraphError
from cregraph.image.media.docker_archive import archive
from cregraph.image.media.docker_engine import NoImage, docker, inspect
from cregraph.image.media.oci_layout import BaseBlobs
from cregraph.image.model.config import Image
from cregraph.store import Store

__all__ = ["load"]


def load(image: Image, *, reference: str, store: Store, base: BaseBlobs | None) -> None:
    """Load `image` by the name `reference`, which must have a tag. The name afterwards leads to this image and no other.

    Every layer goes to the engine, those of the base too: from `store`, else from `base`. A name that led to another image is
    turned to this one, as `docker load` does. Raises CregraphError for an engine that cannot be reached or has no room, for a
    blob that is damaged (then nothing is loaded), and when the engine holds something else afterwards.
    """
    if _held(reference) in _ids(image):
        return
    about = f"loading {reference}"
    docker("image", "load", "--quiet", about=about, stdin=archive(image, reference=reference, store=store, base=base))
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
