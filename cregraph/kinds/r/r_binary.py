"""Built R packages: which pins are taken built, and from which repository.

A pin records the repository (`binaries: jammy/4.2`) and, if it stayed a source, why (`no_binary`). So a lock asks again only
if the distribution or R changed, and a review sees the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.formats.r_package import Built, read_built, unfit
from cregraph.lock.pins import Artifact, Pin
from cregraph.sources import cran
from cregraph.sources.protocol import NotThere, Sources

__all__ = ["Shelf"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelf:
    """The repositories of built packages for one distribution and R; `distribution` None when none are wanted."""

    sources: Sources
    distribution: str | None
    r_minor: str
    glibc: str | None

    @property
    def name(self) -> str | None:
        """Return the repository as a pin records it: `jammy/4.2`."""
        return f"{self.distribution}/{self.r_minor}" if self.distribution else None

    def holds(self, pin: Pin) -> bool:
        """Return whether a locked pin may stay. A tarball of the team is always a source."""
        return pin.artifact.source != "cran" or pin.data.get("binaries") == self.name

    def take(self, name: str, version: str, *, date: str, path: str) -> tuple[Artifact, Path, Built] | str:
        """Return the built package of that version, or why none fits.

        Raises CregraphError for one that is unreachable or hostile, and for one of another name or version.
        """
        assert self.distribution is not None
        if not self.sources.routes("cran_binary", "cran"):
            raise CregraphError(
                f"built R packages for {self.distribution} are asked for, and no address of source `cran` has a date in it",
                hint="name their repository: `cran_binary: https://…/{distribution}/{r}/{date}` in sources.yaml",
            )
        try:
            artifact, file = cran.take_built(
                self.sources, name, version, date=date, distribution=self.distribution, r=self.r_minor, path=path
            )
        except NotThere:
            return "none is there"
        what = f"{name} {version} for {self.distribution}"
        found = read_built(file, what=what)
        if found is None:
            return "none is there"
        if (found.description.name, found.description.version) != (name, version):
            raise CregraphError(
                f"{what} turns out to be {found.description.name} {found.description.version}",
                hint="try again later, or name another repository in sources.yaml: this one does not match its index",
            )
        return unfit(found, r_minor=self.r_minor, glibc=self.glibc) or (artifact, file, found)

    def said(self, found: Built | None, why: str | None) -> dict[str, Json]:
        """Return what a pin's data record about the repository."""
        if self.name is None:
            return {}
        if found is None:
            return {"binaries": self.name, "no_binary": why or ""}
        return {"binaries": self.name, "form": "binary", "built": found.r, "platform": found.platform}
