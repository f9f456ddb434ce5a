"""Sources of this machine. Kinds ask them while locking; builds download from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cregraph.digest import sha256
from cregraph.errors import CregraphError
from cregraph.lock.pins import Artifact
from cregraph.sources.downloads import Fetcher, NotThere
from cregraph.sources.project_files import Local
from cregraph.sources.protocol import LocationRules
from cregraph.sources.routes import Routes
from cregraph.store import Store
from cregraph.text import redacted

__all__ = ["ConfiguredSources", "NotThere"]


class ConfiguredSources:
    """Implementation of `cregraph.sources.protocol.Sources` with a store, the routes and the project's files."""

    def __init__(
        self,
        *,
        kinds: Mapping[str, LocationRules],
        store: Store,
        routes: Routes,
        local: Local,
        offline: bool = False,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self._kinds = kinds
        self.store = store
        self.table = routes
        self.local = local
        self.offline = offline
        self.repodata = store.root / "repodata"
        self.uv_cache = store.root / "uv-cache"
        self._fetcher = Fetcher(store, offline=offline, on_bytes=on_bytes)

    def routes(self, section: str, name: str) -> tuple[str, ...]:
        """Return the addresses of source `name` in a section of sources.yaml.

        A registry's address is its host, prefixed with `http://` for plain http. Addresses of images are folders with OCI
        layouts. Raises CregraphError for an unknown registry, ValueError for an unknown section.
        """
        match section:
            case "conda":
                return self.table.channel(name)
            case "cran":
                return self.table.snapshots()
            case "cran_binary":
                return self.table.binaries()
            case "pypi":
                return self.table.pypi
            case "url":
                return self.table.of_url(name)
            case "image":
                return self.table.image
            case "registry":
                return (self._registry(name),)
        raise ValueError(section)

    def _registry(self, name: str) -> str:
        registry = self.table.registry.get(name)
        if registry is None and name == "snowflake" and self.table.host_field:
            raise CregraphError(
                f"{self.table.host_field}: the host of the registry is missing (expected a host)",
                hint="write the host of the account's registry: `registry_url: ORG-ACCOUNT.registry.snowflakecomputing.com`",
            )
        if registry is None:
            raise CregraphError(
                f"unknown registry `{name}`",
                hint=f"state its host: `registry: {{{name}: {{host: …}}}}` in sources.yaml, or snowflake.registry_url"
                + _unread(self.table.origin),
            )
        return ("http://" if registry.plain_http else "") + registry.host

    def fetch(self, artifact: Artifact) -> Path:
        """Return the path of the verified bytes of `artifact`, from the store or from its source."""
        what = _shown(artifact.file, artifact.source)
        if self.store.has(artifact.sha256):
            try:
                return self.store.verified(artifact.sha256, what)
            except CregraphError:
                pass  # quarantined; downloaded again below
        if artifact.kind == "path":
            return self._read_again(artifact)
        return self._fetcher.fetch(self.addresses(artifact), sha256=artifact.sha256, size=artifact.size, what=what)

    def take(self, *, kind: str, source: str, file: str, md5: str | None = None) -> tuple[Artifact, Path]:
        """Download a file of unknown sha256; return its artifact and path. Kind `path` reads the project and packs folders."""
        if kind == "path":
            data = self.local.read(source)
            digest = self.store.add(data)
            return Artifact(kind=kind, source=source, file=file, sha256=digest, size=len(data)), self.store.path_of(digest)
        artifact = Artifact(kind=kind, source=source, file=file, sha256="0" * 64, size=0)
        what = _shown(file, source)
        digest, size, path = self._fetcher.take(self.addresses(artifact), what=what, md5=md5)
        return Artifact(kind=kind, source=source, file=file, sha256=digest, size=size), path

    def read(self, *, kind: str, source: str, file: str, limit: int = 256 << 20) -> bytes:
        """Return the bytes of a small index file. It is not kept."""
        artifact = Artifact(kind=kind, source=source, file=file, sha256="0" * 64, size=0)
        return self._fetcher.read(self.addresses(artifact), what=redacted(file or source), limit=limit)

    def addresses(self, artifact: Artifact) -> tuple[str, ...]:
        """Return the addresses of `artifact` on this machine, best first. Its kind states them; for a URL, sources.yaml does.

        Raise NotThere if it is listed in an index, and no index of this machine lists it.
        """
        if artifact.kind == "url":
            return self.table.of_url(artifact.source)
        rules = self._kinds[artifact.kind]
        from cregraph.sources import python_index  # loads slowly

        return python_index.locations(self, artifact.file) if rules.INDEXED else rules.locations(artifact, self.table)

    def _read_again(self, artifact: Artifact) -> Path:
        data = self.local.read(artifact.source)
        digest = sha256(data)
        if digest != artifact.sha256:
            raise CregraphError(
                f"`{artifact.source}` has sha256:{digest}, but the lock pins sha256:{artifact.sha256}",
                hint="run `cregraph lock` to pin the changed file",
            )
        return self.store.path_of(self.store.add(data))


def _shown(file: str, source: str) -> str:
    """Return the file name of an artifact, else its source, without credentials."""
    name = file.rsplit("/", 1)[-1]
    return name.partition("?")[0] if name else redacted(source)


def _unread(origin: str) -> str:
    """Return a hint if `./sources.yaml` exists and is not `origin`, the file that was read."""
    here = Path("sources.yaml")
    if not here.is_file() or (Path(origin).is_file() and here.samefile(origin)):
        return ""
    return "; the `sources.yaml` in the current folder is not the project's: name it with --sources"
