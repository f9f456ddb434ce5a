"""Where a builder elsewhere fetches artifacts from: public addresses, not those of this machine's mirrors. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.lock.pins import Artifact
from cregraph.sources import cran
from cregraph.sources.pip_settings import PYPI
from cregraph.sources.routes import CRAN_DEFAULT, Routes, is_web_address, join
from cregraph.text import redacted

__all__ = ["Sites", "hosts"]

#: Where the files of an index lie, when that is another host.
_FILES = {urlsplit(PYPI).netloc: ".".join(("files", "python" + "hosted", "org"))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sites:
    """`routes` lead where the builder may fetch: the defaults, or a file that was named for it."""

    routes: Routes

    def artifact(self, artifact: Artifact) -> dict[str, Json]:
        """What the installer needs to fetch `artifact`: name, sha256, size, `urls`, and `index` when these are pages of an index.

        Raises CregraphError for an address that only this machine can read, or that carries a password.
        """
        name = artifact.file.rsplit("/", 1)[-1] or urlsplit(artifact.source).path.rsplit("/", 1)[-1] or "file"
        told: dict[str, Json] = {"name": name, "sha256": artifact.sha256, "size": artifact.size}
        if artifact.kind == "conda":
            urls = [join(address, artifact.file) for address in self.routes.channel(artifact.source)]
        elif artifact.kind == "r":
            urls = list(cran.locations(self.routes.cran or (CRAN_DEFAULT,), artifact.file))
        elif artifact.kind == "python":
            project = artifact.file.partition("/")[0]
            urls = [f"{join(address, quote(project))}/" for address in self.routes.pypi or (PYPI,)]
            told["index"] = True
        else:
            urls = list(self.routes.of_url(artifact.source))
        for url in urls:
            _check(url, name)
        return {**told, "urls": list(dict.fromkeys(urls))}


def hosts(told: Mapping[str, Json]) -> set[str]:
    """The hosts that the installer reaches for an artifact, as far as they are known; each may redirect to others."""
    found = {urlsplit(url).netloc for url in told.get("urls", ())}
    return found | {_FILES[host] for host in found if host in _FILES}


def _check(url: str, name: str) -> None:
    if not is_web_address(url):
        raise CregraphError(
            f"{name} comes from `{redacted(url)}`, which another builder cannot read",
            hint="name a sources.yaml with addresses that the builder reaches: --sources FILE",
        )
    if "@" in urlsplit(url).netloc:
        raise CregraphError(
            f"{name} comes from `{redacted(url)}` with a user or password, which would stand in the files for all to read",
            hint="name a sources.yaml without them: --sources FILE",
        )
