"""The files of an image in a Docker engine, from the archive of `docker save`, which is read forward once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from cregraph.errors import CregraphError
from cregraph.image.bases.image_files import Contents, Known, LayerReader, Listing, contents_of
from cregraph.image.media.docker_engine import image_archive
from cregraph.image.media.docker_save import EngineArchive, check_name
from cregraph.image.model.manifest import CONFIG_LIMIT, read_json

__all__ = ["of_engine"]


def of_engine(name: str, *, known: Known, wanted: Callable[[str], bool]) -> Contents:
    """Return the contents of the image `name` in a Docker engine. Raises CregraphError with the engine's message."""
    what = f"docker:{name}"
    skipped = {one.removeprefix("sha256:") for pair in known.layers for one in pair}
    reader = LayerReader(wanted)

    def take(path: str, blocks: Iterator[bytes]) -> tuple[Listing, str] | CregraphError:
        """Read a layer. Any other file is an error only if it is needed."""
        if path.rpartition("/")[2] in skipped:
            return CregraphError(f"{what}: holds layers of the base in another order than the base has")
        hasher = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for block in blocks:
                hasher.update(block)
                yield block

        source = hashed()
        found: tuple[Listing, str] | CregraphError
        try:
            found = reader.listing(source, f"{what}: {path[:200]}")
        except CregraphError as error:
            found = error
        for _ in source:
            pass
        check_name(path, hasher.hexdigest(), what=what)
        return found

    with image_archive(name) as stream:
        archive = EngineArchive(stream, take, what=what)
    manifest, config, paths = archive.image()

    def listing(number: int) -> tuple[Listing, str]:
        found = archive.layer(paths[number])
        if isinstance(found, CregraphError):
            raise found
        return found

    return contents_of(
        what,
        manifest.digest if manifest else None,
        read_json(config, what=f"{what}: config", limit=CONFIG_LIMIT),
        [f"sha256:{path.rpartition('/')[2]}" if path.startswith("blobs/sha256/") else "" for path in paths],
        known=known,
        listing=listing,
    )
