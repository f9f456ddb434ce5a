"""Files by URL in a vendor folder: a tree by host and path, and the section `url` of sources.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from cregraph.lock.pins import Artifact

__all__ = ["FOLDER", "mapping", "places"]

FOLDER = "files"

_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~@,=!-]{0,200}")
_EXACT = f"{FOLDER}/by-sha256/"


def places(addresses: Mapping[str, Artifact]) -> dict[str, str]:
    """Return path to URL. The path is that of the URL below its host; if that is not portable or taken, its sha256."""
    found: dict[str, str] = {}
    folders: set[str] = set()
    for url, artifact in sorted(addresses.items()):
        path = _path(url)
        if path is not None:
            above = {"/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 1)}
            if path not in found and path not in folders and not above & found.keys():
                found[path] = url
                folders |= above
                continue
        found[f"{_EXACT}{artifact.sha256}/{_name(url)}"] = url
    return found


def mapping(folder: Path, wanted: Mapping[str, Artifact], before: Mapping[str, str]) -> dict[str, str]:
    """Return the section `url`: each host that has files, and each URL whose file lies by sha256. `before` is the earlier one."""
    found: dict[str, str] = {}
    for scheme in ("https", "http"):
        for host in sorted(path for path in (folder / FOLDER / scheme).glob("*") if path.is_dir()):
            if any(path.is_file() for path in host.rglob("*")):
                found[f"{scheme}://{host.name.replace('+', ':')}/"] = f"./{FOLDER}/{scheme}/{host.name}/"
    for url, address in before.items():
        if address.startswith(f"./{_EXACT}") and ".." not in address.split("/") and (folder / address).is_file():
            found[url] = address
    return found | {artifact.source: f"./{path}" for path, artifact in wanted.items() if path.startswith(_EXACT)}


def _path(url: str) -> str | None:
    parts = urlsplit(url)
    names = parts.path.lstrip("/").split("/")
    plain = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.netloc) and parts.path.startswith("/")
    if not plain or parts.query or parts.fragment or "?" in url or not all(_PART.fullmatch(name) for name in names):
        return None
    return f"{FOLDER}/{parts.scheme}/{parts.netloc.replace(':', '+')}/{'/'.join(names)}"


def _name(url: str) -> str:
    last = re.sub(r"[^A-Za-z0-9._+-]", "_", urlsplit(url).path.rstrip("/").rpartition("/")[2])[:100]
    return last if re.match(r"[A-Za-z0-9]", last) else f"file{last}"
