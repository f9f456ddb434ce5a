"""Interfaces between sources and kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cregraph.errors import CregraphError
from cregraph.lock.pins import Artifact
from cregraph.sources.routes import Routes

__all__ = ["LocationRules", "NotThere", "Sources"]


class NotThere(CregraphError):
    """Error: all addresses of a source answered without the file."""


class Sources(Protocol):
    """The sources that this machine can ask. `cregraph.sources.configured` implements them; tests use file:// and loopback.

    If `offline` is true, every method refuses to open a connection.
    """

    offline: bool
    repodata: Path
    """Folder where a conda solver may keep the indexes that it fetched."""
    uv_cache: Path
    """Folder where uv may keep what it fetched."""

    def routes(self, section: str, name: str) -> tuple[str, ...]:
        """Return the addresses of source `name` in a section of sources.yaml (`conda`, `cran`, `pypi`, ...), best first."""

    def fetch(self, artifact: Artifact) -> Path:
        """Return the path of the verified bytes of `artifact` in the store."""

    def take(self, *, kind: str, source: str, file: str, md5: str | None = None) -> tuple[Artifact, Path]:
        """Download a file of unknown sha256 into the store; return its artifact and path."""

    def read(self, *, kind: str, source: str, file: str, limit: int = 256 << 20) -> bytes:
        """Return the bytes of a small index file. It is not kept.

        Raises:
            NotThere: The source does not have the file.
        """


class LocationRules(Protocol):
    """The names of a kind that sources/ uses."""

    #: Whether `locations` are pages of a package index, which link to the artifact.
    INDEXED: bool

    def locations(self, artifact: Artifact, routes: Routes) -> tuple[str, ...]:
        """Return the addresses of an artifact of this kind, best first. Raise CregraphError for a name that no source has."""
