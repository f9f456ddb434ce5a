"""A base image, wherever it is: in a registry, in an OCI layout on disk, or in a Docker engine.

    find    the image of a lock's pin, by digest: nothing else is accepted, and a warm store is not left
    ask     the image that a name leads to now, while locking

Every blob is checked against its digest while it is read. Layers of gigabytes are streamed and not kept, except those of a
Docker engine, which gives an image only as one archive: that is streamed once into the store.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cregraph.digest import is_sha256
from cregraph.errors import CregraphError
from cregraph.image.media.docker_save import save
from cregraph.image.media.registry import Registry
from cregraph.image.model.manifest import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    Descriptor,
    Manifest,
    check_platform,
    choose,
    digest_of,
    follow,
    read_descriptor,
    read_json,
    read_manifest,
)
from cregraph.image.model.reference import DockerName, ImageName, LayoutName, Reference, parse, parse_reference
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact
from cregraph.store import Store

__all__ = ["NAMED", "BaseImage", "Origin", "Routes", "ask", "beside", "find", "home_of", "registry_at", "registry_of"]

#: The annotation by which an entry of a layout that `vendor` wrote says what a lock calls the image.
NAMED = "org.cregraph.image"

#: Where the names of a section of sources.yaml lead (`Sources.routes`).
Routes = Callable[[str, str], Sequence[str]]
_BLOCK = 1 << 20


class Origin(Protocol):
    """A place that holds one image. `name` is for messages; `home` is the registry's host and the repository, if it is one."""

    name: str
    home: tuple[str, str] | None

    def image(self, digest: str | None) -> Manifest:
        """The manifest with that digest; with None the one that the place holds now."""
        ...

    def blob(self, blob: Descriptor, start: int = 0) -> Iterator[bytes]:
        """The blob's bytes from `start` on; read from the start, they are verified when the iterator is exhausted."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseImage:
    """An image at its origin. `store` is asked first for every blob, and keeps manifest and config."""

    origin: Origin
    manifest: Manifest
    store: Store

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return self.origin.name

    @property
    def home(self) -> tuple[str, str] | None:
        """The host and repository from which a registry may mount its layers."""
        return self.origin.home

    def config_bytes(self) -> bytes:
        """The config as it is, verified."""
        config = self.manifest.config
        if self.store.has(config.hex):
            return self.store.verified(config.hex, f"the config of {self.name}").read_bytes()
        if config.size > CONFIG_LIMIT:
            raise CregraphError(f"{self.name}: its config is larger than {CONFIG_LIMIT >> 20} MiB")
        data = b"".join(self.origin.blob(config))
        self.store.add(data)
        return data

    def config(self) -> dict[str, Any]:
        """The parsed config. Raises CregraphError unless it is one for linux/amd64 that names a diff id for each layer."""
        what = f"{self.name}: config"
        config = read_json(self.config_bytes(), what=what, limit=CONFIG_LIMIT)
        check_platform(config, what=self.name)
        rootfs = config.get("rootfs")
        ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not isinstance(ids, list) or not all(isinstance(one, str) and is_sha256(one.removeprefix("sha256:")) for one in ids):
            raise CregraphError(f"{what}: rootfs.diff_ids: a list of sha256:<64 hex digits> is wanted")
        if len(ids) != len(self.manifest.layers):
            raise CregraphError(f"{what}: rootfs.diff_ids: {len(ids)} for the {len(self.manifest.layers)} layers of the manifest")
        return config

    def check_facts(self, facts: BaseFacts) -> None:
        """Raise CregraphError when `facts` tell of other layers or another config than this image has."""
        layers = [layer.digest for layer in facts.layers] == [layer.digest for layer in self.manifest.layers]
        if not layers or self.config() != facts.config:
            raise CregraphError(
                f"the facts in bases/ tell of {'another config' if layers else 'other layers'} than {self.name} has",
                "remove the file and run `cregraph lock`, which makes it anew",
            )

    def open_layer(self, layer: Descriptor, start: int = 0) -> Iterator[bytes]:
        """The layer's blob from `start` on, in blocks; read from the start, it is verified once the iterator is exhausted."""
        if self.store.has(layer.hex):
            return _file(self.store.verified(layer.hex, f"a layer of {self.name}"), start)
        return self.origin.blob(layer, start)


def ask(name: ImageName, *, project: Path, store: Store, registry: Registry | None = None, offline: bool = False) -> BaseImage:
    """The image for linux/amd64 that `name` leads to now. `oci:` folders are relative to `project`.

    Raises NotInRegistry when a registry does not have it, CregraphError for all else.
    """
    return _kept(_origin(name, project=project, store=store, registry=registry, offline=offline), None, store)


def find(artifact: Artifact, *, routes: Routes, project: Path, store: Store, offline: bool = False) -> BaseImage:
    """The image that a lock pins, by its digest and no other. Nothing is asked until a blob is read that the store lacks.

    With `offline` a registry or engine that would be asked is an error instead; a layout on disk is read.
    Raises CregraphError naming both digests when the place now holds another image and not this one.
    The layouts that sources.yaml names under `image` come before the place that the lock names.
    """
    if not is_sha256(artifact.sha256):
        raise CregraphError(f"the lock's image `{artifact.source} {artifact.file}`: `{artifact.sha256[:80]}` is no sha256")
    for folder in routes("image", ""):
        layout = _Layout(LayoutName(folder=folder), Path())
        if layout.holds(f"sha256:{artifact.sha256}"):
            with contextlib.suppress(CregraphError):  # no registry of that name here: then nobody can mount from it
                layout.home = home_of(artifact, routes=routes)
            return _kept(layout, f"sha256:{artifact.sha256}", store)
    name, registry = _named(artifact, routes)
    origin = _origin(name, project=project, store=store, registry=registry, offline=offline)
    return _kept(origin, f"sha256:{artifact.sha256}", store)


def beside(source: str, file: str, folders: Sequence[str]) -> Artifact | None:
    """The image that the OCI layouts in `folders` hold by the name that a lock has for it (`NAMED` in their index.json)."""
    for folder in folders:
        found = _Layout(LayoutName(folder=folder), Path()).named(f"{source} {file}".strip())
        if found is not None:
            return Artifact(kind="image", source=source, file=file, sha256=found.hex, size=found.size)
    return None


def home_of(artifact: Artifact, *, routes: Routes) -> tuple[str, str] | None:
    """The host and repository of an image that a lock pins, None where it is in no registry. Nothing is asked."""
    name, registry = _named(artifact, routes)
    return (registry.host if registry else name.host, name.repository) if isinstance(name, Reference) else None


def _named(artifact: Artifact, routes: Routes) -> tuple[ImageName, Registry | None]:
    """What a lock's image is called on this machine, and the registry where sources.yaml leads to it."""
    source, file = artifact.source, artifact.file
    where = f"the lock's image `{source} {file}`"
    if not is_sha256(artifact.sha256):
        raise CregraphError(f"{where}: `{artifact.sha256[:80]}` is no sha256")
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
    """The registry that sources.yaml calls `name`. Raises CregraphError when it says nothing of it."""
    addresses = routes("registry", name)
    if not addresses:
        raise CregraphError(
            f"no registry is named `{name}` on this machine",
            f"add `registry: {{{name}: {{host: HOST}}}}` to sources.yaml, with the host that `docker login` was given",
        )
    return registry_at(addresses[0])


def registry_at(address: str) -> Registry:
    """The registry at an address: `host[:port]`, or with `https://` or `http://` (plain HTTP) before it."""
    scheme, mark, host = address.rpartition("://")
    host = host.rstrip("/")
    parse_reference(f"{host}/x", where=f"the registry `{address}`")
    return Registry.at(host, plain_http=None if not mark else scheme == "http")


def _origin(name: ImageName, *, project: Path, store: Store, registry: Registry | None, offline: bool) -> Origin:
    if isinstance(name, LayoutName):
        return _Layout(name, project)
    if offline:
        return _Offline(name)
    if isinstance(name, DockerName):
        return _Docker(name, store)
    return _InRegistry(name, registry or Registry.at(name.host))


def _kept(origin: Origin, digest: str | None, store: Store) -> BaseImage:
    """The image, its manifest from the store if there, else from the origin and then kept."""
    if digest and store.has(digest.removeprefix("sha256:")):
        data = store.verified(digest.removeprefix("sha256:"), f"the manifest of {origin.name}").read_bytes()
        return BaseImage(origin=origin, manifest=read_manifest(data, what=origin.name), store=store)
    manifest = origin.image(digest)
    if digest and manifest.digest != digest:
        raise CregraphError(
            f"{origin.name} holds {manifest.digest}, but the lock pins {digest}",
            "bring the locked image back, or run `cregraph lock --upgrade-package base` and look at `cregraph diff`",
        )
    store.add(manifest.raw)
    return BaseImage(origin=origin, manifest=manifest, store=store)


class _Offline:
    home: tuple[str, str] | None = None

    def __init__(self, name: ImageName) -> None:
        self.name = str(name)

    def image(self, digest: str | None) -> Manifest:
        raise self._refused()

    def blob(self, blob: Descriptor, start: int = 0) -> Iterator[bytes]:
        raise self._refused()

    def _refused(self) -> CregraphError:
        return CregraphError(f"--offline was asked for, and {self.name} is not in the store", "run once without --offline")


class _InRegistry:
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


class _Layout:
    """An OCI image layout (image specification 1.1, image-layout.md): oci-layout, index.json, blobs/sha256/<hex>."""

    home: tuple[str, str] | None = None

    def __init__(self, name: LayoutName, project: Path) -> None:
        self.name = str(name)
        self._tag = name.tag
        self._folder = project / name.folder

    def holds(self, digest: str) -> bool:
        return self._path(digest).is_file()

    def named(self, source: str) -> Descriptor | None:
        index = read_json(self._read("index.json", MANIFEST_LIMIT), what=f"{self.name}: index.json")
        listed = index.get("manifests")
        for i, one in enumerate(listed if isinstance(listed, list) else ()):
            notes = one.get("annotations") if isinstance(one, dict) else None
            if isinstance(notes, dict) and notes.get(NAMED) == source:
                return read_descriptor(one, what=f"{self.name}: index.json", field=f"manifests[{i}]", limit=MANIFEST_LIMIT)
        return None

    def image(self, digest: str | None) -> Manifest:
        if digest and self._path(digest).is_file():  # else what it holds instead, for the message
            return read_manifest(self._small(digest, MANIFEST_LIMIT), what=self.name)
        first = self._chosen(read_json(self._read("index.json", MANIFEST_LIMIT), what=f"{self.name}: index.json"))
        return follow(self._small(first.digest, MANIFEST_LIMIT), lambda d: self._small(d.digest, MANIFEST_LIMIT), what=self.name)

    def blob(self, blob: Descriptor, start: int = 0) -> Iterator[bytes]:
        return _verified(self._path(blob.digest), blob, start, self.name)

    def _chosen(self, index: dict[str, Any]) -> Descriptor:
        listed = index.get("manifests")
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise CregraphError(f"{self.name}: index.json: manifests: a list of objects is wanted")
        fitting = [(i, one) for i, one in enumerate(listed) if not self._tag or self._tag in _tags(one)]
        tags = sorted({tag for one in listed for tag in _tags(one)})
        if not fitting:
            raise CregraphError(f"{self.name}: holds no image with that tag; there are: {', '.join(tags) or 'none with a tag'}")
        if len({str(one.get("digest")) for _, one in fitting}) == 1:
            i, one = fitting[0]
            return read_descriptor(one, what=f"{self.name}: index.json", field=f"manifests[{i}]", limit=MANIFEST_LIMIT)
        if not self._tag and len(tags) > 1:
            raise CregraphError(f"{self.name}: holds several images", f"write `{self.name}:TAG`; there are: {', '.join(tags)}")
        return choose({"manifests": [one for _, one in fitting]}, what=f"{self.name}: index.json")

    def _small(self, digest: str, limit: int) -> bytes:
        data = self._read(f"blobs/sha256/{_hex(digest)}", limit)
        if digest_of(data) != digest:
            raise CregraphError(
                f"{self.name}: blobs/sha256/{_hex(digest)} has {digest_of(data)}, not what its name says",
                "the layout is damaged; copy it again",
            )
        return data

    def _path(self, digest: str) -> Path:
        return self._folder / "blobs" / "sha256" / _hex(digest)

    def _read(self, path: str, limit: int) -> bytes:
        try:
            with (self._folder / path).open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            there = "there is no OCI layout" if path == "index.json" else f"the layout has no {path}"
            raise CregraphError(
                f"{self.name}: {there} ({error.strerror})", "`oci:DIR` is relative to the project and holds index.json and blobs/"
            ) from None
        if len(data) > limit:
            raise CregraphError(f"{self.name}: {path} is larger than {limit >> 20} MiB")
        return data


class _Docker:
    """An image of a Docker engine (both image stores), taken out as one archive when it is first needed."""

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
        return _verified(self._store.path_of(blob.hex), blob, start, self.name)


def _hex(digest: str) -> str:
    hex = digest.removeprefix("sha256:")
    if not is_sha256(hex):
        raise CregraphError(f"`{digest[:80]}` is no sha256 digest")
    return hex


def _tags(entry: dict[str, Any]) -> list[str]:
    """The tags that an entry of index.json goes by: tools write the tag alone, or a whole reference that ends in it."""
    notes = entry.get("annotations")
    names = (
        [notes.get(key) for key in ("org.opencontainers.image.ref.name", "io.containerd.image.name")]
        if isinstance(notes, dict)
        else []
    )
    return [name.rpartition("/")[2].rpartition(":")[2] for name in names if isinstance(name, str) and name]


def _file(path: Path, start: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(_BLOCK):
            yield block


def _verified(path: Path, blob: Descriptor, start: int, name: str) -> Iterator[bytes]:
    hasher, size = hashlib.sha256(), start
    try:
        for block in _file(path, start):
            size += len(block)
            hasher.update(block)
            yield block
    except OSError as error:
        if not path.parents[2].exists():
            raise CregraphError(
                f"{name}: the layout is not there, and {blob.digest} is needed from it", "bring it back, or copy it there again"
            ) from None
        raise CregraphError(
            f"{name}: {blob.digest} cannot be read ({error.strerror})", "the layout is damaged; copy it again"
        ) from None
    if size != blob.size or (start == 0 and hasher.hexdigest() != blob.hex):
        raise CregraphError(
            f"{name}: a blob has sha256:{hasher.hexdigest()} ({size} bytes), but its manifest says {blob.digest} ({blob.size})",
            "the layout is damaged; copy it again",
        )
