"""What a kind can ask of sources while locking."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cregraph.errors import CregraphError
from cregraph.lock.pins import Artifact

__all__ = ["LocationRules", "NotThere", "Sources"]


class NotThere(CregraphError):
    """Every address of a source answered, and none has the file."""


class Sources(Protocol):
    """The sources that this machine can ask. `cregraph.sources.configured` implements it; tests use file:// and loopback.

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
        """Download a file whose sha256 is not known yet into the store, and return what it is."""

    def read(self, *, kind: str, source: str, file: str, limit: int = 256 << 20) -> bytes:
        """Return a small file of an index without keeping it.

        Raises:
            NotThere: The source does not have the file.
        """


class LocationRules(Protocol):
    """What sources/ asks of a kind."""

    def locations(self, artifact: Artifact, sources: Sources) -> tuple[str, ...]:
        """Return where an artifact of this kind may be fetched from on this machine, best first.

        Raises:
            NotThere: No source has it.
        """
