"""The downloads of the installer (`cregraph.export.installer`), with the standard library only."""

from __future__ import annotations

import hashlib
import http.client
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO, Any

from cregraph.errors import CregraphError
from cregraph.sources.index_page import link_to

__all__ = ["Downloads"]

_BLOCK = 1 << 20
_AHEAD = 8  # downloads at a time, and how many wait to be installed
_PAUSES = (1, 4, 15)
_TIMEOUT = 60
_PAGE = 64 << 20
_SIMPLE = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


class Downloads:
    """A downloader that is a few files ahead of the installation, so that files need little space."""

    def __init__(self, scratch: Path, folder: Path) -> None:
        self._scratch = scratch
        self._folder = folder
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(_AHEAD)
        self.fetched = 0

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def files(self, items: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Path | None]]:
        """Return each item with the verified file of its artifact, in order. A downloaded file is removed before the next one."""
        artifacts = ((item["artifact"], number) for number, item in enumerate(items) if item.get("artifact"))
        # In the order of use: a later file never takes the place of the one that is waited for.
        waiting = deque(self._pool.submit(self._one, *one) for one in islice(artifacts, 2 * _AHEAD))
        for item in items:
            if item.get("made"):
                yield item, self._made(item["made"])
                continue
            if not item.get("artifact"):
                yield item, None
                continue
            file = waiting.popleft().result()
            try:
                yield item, file
            finally:
                if file.parent == self._scratch:
                    file.unlink()
                waiting.extend(self._pool.submit(self._one, *one) for one in islice(artifacts, 1))

    def _made(self, folder: str) -> Path:
        """Return the one file that a task left."""
        found = sorted(path for path in (self._folder / folder).rglob("*") if path.is_file())
        if len(found) != 1:
            raise CregraphError(f"a task left {len(found)} files in {folder} (expected one)")
        return found[0]

    def _one(self, artifact: Mapping[str, Any], number: int) -> Path:
        if "file" in artifact:
            path = self._folder / str(artifact["file"])
            with path.open("rb") as file:
                _same(_digest(file), path.stat().st_size, artifact, artifact["file"])
            return path
        if self._stopped.is_set():
            raise CregraphError("stopped")
        failures: list[str] = []
        for pause in (0, *_PAUSES):
            if pause and self._stopped.wait(pause):
                break
            failures = []
            for url in artifact["urls"]:
                path = self._scratch / f"{number}"
                try:
                    if artifact.get("index"):
                        url = _in_index(url, artifact["name"])
                    self.fetched += _download(url, path, artifact)
                    return path
                except (OSError, ValueError, http.client.HTTPException, CregraphError) as error:
                    failures.append(f"{_plain(url)}: {_plain(str(error))}")
        raise CregraphError(
            f"{artifact['name']} cannot be fetched\n  " + "\n  ".join(failures),
            hint="allow the builder to reach these hosts, and the hosts that they redirect to",
        )


def _download(url: str, path: Path, artifact: Mapping[str, Any]) -> int:
    hasher = hashlib.sha256()
    size = 0
    with _asked(url, {"Accept-Encoding": "identity"}) as answer, path.open("wb") as out:
        while block := answer.read(_BLOCK):
            size += len(block)
            if size > artifact["size"]:
                break
            hasher.update(block)
            out.write(block)
    _same(hasher.hexdigest(), size, artifact, "it")
    return size


def _asked(url: str, headers: Mapping[str, str]) -> Any:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("only http and https are supported")
    request = urllib.request.Request(url, headers={"User-Agent": "cregraph", **headers})  # noqa: S310
    return urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310


def _same(digest: str, size: int, artifact: Mapping[str, Any], what: str) -> None:
    if size != artifact["size"]:
        raise CregraphError(
            f"{what} has {'more' if size > artifact['size'] else 'fewer'} than the {artifact['size']} bytes of the lock"
        )
    if digest != artifact["sha256"]:
        raise CregraphError(f"{what} has sha256:{digest}, but the lock pins sha256:{artifact['sha256']}")


def _digest(file: IO[bytes]) -> str:
    hasher = hashlib.sha256()
    while block := file.read(_BLOCK):
        hasher.update(block)
    return hasher.hexdigest()


def _in_index(page: str, name: str) -> str:
    """Return the address of the file `name` on a project's page of a package index (PEP 503 and 691)."""
    try:
        data, at = _page(page, _SIMPLE)
    except urllib.error.HTTPError as error:
        if error.code not in (404, 406):  # an index that knows HTML alone may say so of the other form
            raise
        data, at = _page(page, "text/html")
    address = link_to(name, data, at, ("http", "https"))
    if address is None:
        raise CregraphError("the page does not list this file")
    return address


def _page(address: str, form: str) -> tuple[bytes, str]:
    with _asked(address, {"Accept": form}) as answer:
        return answer.read(_PAGE), str(answer.url)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:400]
