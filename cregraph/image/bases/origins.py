"""Origins of an image: a registry, a Docker engine, or none (`--offline`). `layout_folder` has OCI layouts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_of
from cregraph.image.media.docker_save import save
from cregraph.image.media.registry import Registry
from cregraph.image.model.manifest import Descriptor, Manifest
from cregraph.image.model.reference import DockerName, ImageName, Reference
from cregraph.store import Store

__all__ = ["Engine", "InRegistry", "Offline", "Origin"]


class Origin(Protocol):
    """A place that holds one image. `name` is for messages. `home` is host and repository for a registry, else None."""

    name: str
    home: tuple[str, str] | None

    def image(self, digest: str | None) -> Manifest:
        """Return the manifest with that digest. With None, return the one that the place holds now."""
        ...

    def blob(self, blob: Descriptor, start: int = 0) -> Iterator[bytes]:
        """Yield the blob's bytes from `start` on. If `start` is 0, they are verified when the iterator is exhausted."""
        ...


class Offline:
    """An image that must not be requested."""

    home: tuple[str, str] | None = None

    def __init__(self, name: ImageName) -> None:
        self.name = str(name)

    def image(self, digest: str | None) -> Manifest:
        raise self._refused()

    def blob(self, blob: Descriptor, start: int = 0) -> Iterator[bytes]:
        raise self._refused()

    def _refused(self) -> CregraphError:
        return CregraphError(f"--offline was asked for, and {self.name} is not in the store", "run once without --offline")


class InRegistry:
    """An image in a registry."""

    def __init__(self, name: Reference, registry: Registry) -> None:
        self.name = f"{registry.host}/{name.name}"
        self.home: tuple[str, str] | None = (registry.host, name.repository)
        self._reference = name
        self._registry = registry

    def image(self, digest: str | None) -> Manifest:
        asked = digest or self._reference.digest or self._reference.tag or "latest"
        return self._registry.image(self._reference.repository, asked)

    def blob(self, blob: Descriptor, start: int = 0) -> Iterator[bytes]:
        return self._registry.blob(self._reference.repository, blob, start)


class Engine:
    """An image of a Docker engine (both image stores). Its archive is copied to the store on first use."""

    home: tuple[str, str] | None = None

    def __init__(self, name: DockerName, store: Store) -> None:
        self.name = str(name)
        self._image = name.name
        self._store = store
        self._saved: Manifest | None = None

    def image(self, digest: str | None) -> Manifest:
        if self._saved is None:
            self._saved = save(self._image, self._store)
        return self._saved

    def blob(self, blob: Descriptor, start: int = 0) -> Iterator[bytes]:
        if not self._store.has(blob.hex):
            self.image(None)
        if not self._store.has(blob.hex):
            raise CregraphError(
                f"{self.name}: the engine no longer holds {blob.digest}",
                "bring the locked image back, or run `cregraph lock --upgrade-package base`",
            )
        return blocks_of(self._store.verified(blob.hex, f"a layer of {self.name}"), start)
