"""Origins of an image: a registry, a Docker engine, or none (`--offline`). `layout_folder` has OCI layouts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_of
from cregraph.image.media.docker_save import save
from cregraph.image.media.registry import Registry
from cregraph.image.model.manifest import Descriptor, Manifest
from cregraph.image.model.reference import DockerName, ImageName, Reference
from cregraph.store import Store

__all__ = ["Origin", "in_engine", "in_registry", "offline"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """A place that holds one image.

    Attributes:
        name: For messages.
        image: Returns the manifest with that digest. With None, returns the one that the place holds now.
        blob: Yields a blob's bytes from an offset on. If that is 0, they are verified when the iterator is exhausted.
        home: Host and repository of a registry, else None.
    """

    name: str
    image: Callable[[str | None], Manifest]
    blob: Callable[..., Iterator[bytes]]
    home: tuple[str, str] | None = None


def offline(name: ImageName) -> Origin:
    """Return the origin of an image that must not be requested."""

    def refused(*_: object) -> NoReturn:
        raise CregraphError(f"{name} is not in the store, and --offline is set", "run once without --offline")

    return Origin(name=str(name), image=refused, blob=refused)


def in_registry(name: Reference, registry: Registry) -> Origin:
    path, tag = name.repository, name.digest or name.tag or "latest"
    return Origin(
        name=f"{registry.host}/{name.name}",
        image=lambda digest: registry.image(path, digest or tag),
        blob=functools.partial(registry.blob, path),
        home=(registry.host, path),
    )


def in_engine(name: DockerName, store: Store) -> Origin:
    """Return the origin of an image in a Docker engine (both image stores). Its archive is copied to `store` on first use."""
    saved = functools.cache(lambda: save(name.name, store))

    def blob(blob: Descriptor, start: int = 0) -> Iterator[bytes]:
        if not store.has(blob.hex):
            saved()
        if not store.has(blob.hex):
            raise CregraphError(
                f"{name}: the engine no longer holds {blob.digest}",
                "restore the locked image, or run `cregraph lock --upgrade-package base`",
            )
        return blocks_of(store.verified(blob.hex, f"a layer of {name}"), start)

    return Origin(name=str(name), image=lambda _digest: saved(), blob=blob)
