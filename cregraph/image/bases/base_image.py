"""A base image in a registry, in an OCI layout on disk, or in a Docker engine.

    find    the image of a lock's pin, by digest; a warm store needs no request
    ask     the image that a name leads to now, while locking

Every blob is checked against its digest while it is read. Layers are streamed and not kept. The exception is a Docker engine,
which exports an image only as one archive: it is streamed once into the store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cregraph.digest import is_sha256
from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_of
from cregraph.image.bases import origins
from cregraph.image.bases.layout_folder import LayoutFolder
from cregraph.image.bases.origins import Origin, in_engine, in_registry
from cregraph.image.media.docker_save import save
from cregraph.image.media.registry import Registry
from cregraph.image.model.manifest import CONFIG_LIMIT, Descriptor, Manifest, diff_ids_of, read_json, read_manifest
from cregraph.image.model.reference import DockerName, ImageName, LayoutName, Reference, parse, parse_reference
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact
from cregraph.store import Store

__all__ = ["BaseImage", "Routes", "ask", "beside", "find", "home_of", "of_engine", "registry_at", "registry_of"]

#: Function that returns the routes of a name in a section of sources.yaml (`Sources.routes`).
Routes = Callable[[str, str], Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseImage:
    """An image at its origin. Every blob is looked up in `store` first, which keeps manifest and config."""

    origin: Origin | LayoutFolder
    manifest: Manifest
    store: Store

    @property
    def name(self) -> str:
        """Return the image's location, for messages."""
        return self.origin.name

    @property
    def home(self) -> tuple[str, str] | None:
        """Return the host and repository from which a registry may mount its layers."""
        return self.origin.home

    def config_bytes(self) -> bytes:
        """Return the bytes of the config, verified."""
        config = self.manifest.config
        if self.store.has(config.hex):
            return self.store.verified(config.hex, f"the config of {self.name}").read_bytes()
        if config.size > CONFIG_LIMIT:
            raise CregraphError(f"{self.name}: its config is larger than {CONFIG_LIMIT >> 20} MiB")
        data = b"".join(self.origin.blob(config))
        self.store.add(data)
        return data

    def config(self) -> dict[str, Any]:
        """Return the parsed config. Raises CregraphError unless it is for linux/amd64 with a diff id for each layer."""
        config = read_json(self.config_bytes(), what=f"{self.name}: config", limit=CONFIG_LIMIT)
        diff_ids_of(config, len(self.manifest.layers), what=self.name)
        return config

    def layer_title(self, number: int) -> str:
        """Return how messages name a layer; the lowest has number 0."""
        layers = self.manifest.layers
        return f"{self.name}: layer {number + 1} of {len(layers)} ({layers[number].digest[:19]}…)"

    def check_facts(self, facts: BaseFacts) -> None:
        """Raise CregraphError if `facts` state other layers or another config than this image has."""
        layers = [layer.digest for layer in facts.layers] == [layer.digest for layer in self.manifest.layers]
        if not layers or self.config() != facts.config:
            raise CregraphError(
                f"the facts in bases/ describe {'another config' if layers else 'other layers'} than {self.name} has",
                "remove the file and run `cregraph lock` to make it again",
            )

    def open_layer(self, layer: Descriptor, start: int = 0) -> Iterator[bytes]:
        """Yield the layer's blob from `start` on. If `start` is 0, it is verified when the iterator is exhausted."""
        if self.store.has(layer.hex):
            return blocks_of(self.store.verified(layer.hex, f"a layer of {self.name}"), start)
        return self.origin.blob(layer, start)


def ask(name: ImageName, *, project: Path, store: Store, registry: Registry | None = None, offline: bool = False) -> BaseImage:
    """Return the image for linux/amd64 that `name` leads to now. `oci:` folders are relative to `project`.

    Raises NotInRegistry if a registry does not have it, CregraphError for other failures.
    """
    return _kept(_origin(name, project=project, store=store, registry=registry, offline=offline), None, store)


def of_engine(name: DockerName, store: Store, known: Iterable[tuple[str, str]]) -> BaseImage:
    """Return an image of a Docker engine, copied to `store`; layers in `known` (digest, diff id) only when they are opened."""
    skip = {digest.removeprefix("sha256:") for layer in known for digest in layer}
    return BaseImage(origin=in_engine(name, store), manifest=save(name.name, store, skip), store=store)


def find(artifact: Artifact, *, routes: Routes, project: Path, store: Store, offline: bool = False) -> BaseImage:
    """Return the image that a lock pins, by its digest. Sends no request before a blob is read that the store lacks.

    With `offline`, a request to a registry or engine is an error; a layout on disk is read.
    Raises CregraphError, naming both digests, if the place now holds another image and not this one.
    The layouts that sources.yaml names under `image` come before the place that the lock names.
    """
    if not is_sha256(artifact.sha256):
        raise CregraphError(f"the lock's image `{artifact.source} {artifact.file}`: `{artifact.sha256[:80]}` is not a sha256")
    for folder in routes("image", ""):
        layout = LayoutFolder(LayoutName(folder=folder), Path())
        if layout.holds(f"sha256:{artifact.sha256}"):
            with contextlib.suppress(CregraphError):  # without a registry of that name, nothing can be mounted from it
                layout.home = home_of(artifact, routes=routes)
            return _kept(layout, f"sha256:{artifact.sha256}", store)
    name, registry = _named(artifact, routes)
    origin = _origin(name, project=project, store=store, registry=registry, offline=offline)
    return _kept(origin, f"sha256:{artifact.sha256}", store)


def beside(source: str, file: str, folders: Sequence[str]) -> Artifact | None:
    """Return the image that OCI layouts in `folders` hold under its name in a lock (`NAMED` in index.json), or None."""
    for folder in folders:
        found = LayoutFolder(LayoutName(folder=folder), Path()).named(f"{source} {file}".strip())
        if found is not None:
            return Artifact(kind="image", source=source, file=file, sha256=found.hex, size=found.size)
    return None


def home_of(artifact: Artifact, *, routes: Routes) -> tuple[str, str] | None:
    """Return host and repository of a pinned image, or None if no registry holds it. Sends no request."""
    name, registry = _named(artifact, routes)
    return (registry.host if registry else name.host, name.repository) if isinstance(name, Reference) else None


def _named(artifact: Artifact, routes: Routes) -> tuple[ImageName, Registry | None]:
    """Return the image's name on this machine, and the registry that sources.yaml gives for it."""
    source, file = artifact.source, artifact.file
    where = f"the lock's image `{source} {file}`"
    name: ImageName
    registry = None
    if source.startswith("oci:"):
        name = parse(f"{source}:{file}" if file else source, where=where)
    elif source.startswith("docker:"):
        name = parse(source, where=where)
    elif source.startswith("registry:"):
        registry = registry_of(source.removeprefix("registry:"), routes)
        name = parse_reference(f"{registry.host}/{file}", where=where)
    else:
        name = parse_reference(f"{source}/{file}", where=where)
    return name, registry


def registry_of(name: str, routes: Routes) -> Registry:
    """Return the registry that sources.yaml calls `name`. Raises CregraphError if it does not name it."""
    addresses = routes("registry", name)
    if not addresses:
        raise CregraphError(
            f"unknown registry `{name}`",
            f"add `registry: {{{name}: {{host: HOST}}}}` to sources.yaml, with the host of your `docker login`",
        )
    return registry_at(addresses[0])


def registry_at(address: str) -> Registry:
    """Return the registry at an address: `host[:port]`, or with `https://` or `http://` (plain HTTP) before it."""
    scheme, mark, host = address.rpartition("://")
    host = host.rstrip("/")
    parse_reference(f"{host}/x", where=f"the registry `{address}`")
    return Registry.at(host, plain_http=None if not mark else scheme == "http")


def _origin(name: ImageName, *, project: Path, store: Store, registry: Registry | None, offline: bool) -> Origin | LayoutFolder:
    if isinstance(name, LayoutName):
        return LayoutFolder(name, project)
    if offline:
        return origins.offline(name)
    if isinstance(name, DockerName):
        return in_engine(name, store)
    return in_registry(name, registry or Registry.at(name.host))


def _kept(origin: Origin | LayoutFolder, digest: str | None, store: Store) -> BaseImage:
    """Return the image. Take its manifest from the store, or fetch it from the origin and store it."""
    if digest and store.has(digest.removeprefix("sha256:")):
        data = store.verified(digest.removeprefix("sha256:"), f"the manifest of {origin.name}").read_bytes()
        return BaseImage(origin=origin, manifest=read_manifest(data, what=origin.name), store=store)
    manifest = origin.image(digest)
    if digest and manifest.digest != digest:
        raise CregraphError(
            f"{origin.name} holds {manifest.digest}, but the lock pins {digest}",
            "restore the locked image, or run `cregraph lock --upgrade-package base` and review the change with `cregraph diff`",
        )
    store.add(manifest.raw)
    return BaseImage(origin=origin, manifest=manifest, store=store)
