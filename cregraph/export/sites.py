"""The addresses from which a builder elsewhere fetches artifacts: public ones, not those of this machine's mirrors."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.kinds import KINDS
from cregraph.lock.pins import Artifact
from cregraph.sources.pip_settings import PYPI
from cregraph.sources.routes import Routes, is_web_address
from cregraph.text import redacted

__all__ = ["hosts", "sites_of"]

#: Where the files of an index lie, when that is another host.
_FILES = {urlsplit(PYPI).netloc: ".".join(("files", "python" + "hosted", "org"))}


def sites_of(artifact: Artifact, routes: Routes) -> dict[str, Json]:
    """Return what the installer needs to fetch `artifact`: name, sha256, size, `urls`, and `index` if these are index pages.

    `routes` are the addresses that the builder may use: the defaults, or those of a file that was named for it. Raise
    CregraphError for an address that only this machine can read, or that contains a password.
    """
    name = artifact.file.rsplit("/", 1)[-1] or urlsplit(artifact.source).path.rsplit("/", 1)[-1] or "file"
    rules = KINDS.get(artifact.kind)
    found = rules.locations(artifact, routes) if rules else routes.of_url(artifact.source)
    for url in found:
        _check(url, name)
    told = {"name": name, "sha256": artifact.sha256, "size": artifact.size, "urls": list(dict.fromkeys(found))}
    return {**told, "index": True} if rules and rules.INDEXED else told


def hosts(told: Mapping[str, Json]) -> set[str]:
    """Return the hosts that the installer asks for an artifact. Each may redirect to others."""
    found = {urlsplit(url).netloc for url in told.get("urls", ())}
    return found | {_FILES[host] for host in found if host in _FILES}


def _check(url: str, name: str) -> None:
    if not is_web_address(url):
        raise CregraphError(
            f"{name} comes from `{redacted(url)}`, which another builder cannot reach",
            hint="use --sources FILE with addresses that the builder reaches",
        )
    if "@" in urlsplit(url).netloc:
        raise CregraphError(
            f"{name} comes from `{redacted(url)}` with a user or password, which the files must not contain",
            hint="use --sources FILE with addresses without them",
        )
