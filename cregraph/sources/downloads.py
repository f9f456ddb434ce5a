"""Downloads from the first address that has a file: resumed, retried, verified.

A download stays in the store's partial/ until its sha256 is right; a later run resumes it. Artifacts leave this module
only after they are verified or, while locking, hashed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cregraph.errors import CregraphError
from cregraph.http import Passing, Retries
from cregraph.sources.protocol import NotThere
from cregraph.sources.transfer import TooMuch, Transfer, Unreachable
from cregraph.store import Store
from cregraph.text import redacted

__all__ = ["Fetcher", "NotThere"]

T = TypeVar("T")


class _Differing(CregraphError):
    """Error: the received bytes have another digest than expected."""


class Fetcher:
    """Downloader into `store`. Calls `on_bytes` with the number of bytes received, from any thread."""

    def __init__(self, store: Store, *, offline: bool = False, on_bytes: Callable[[int], None] | None = None) -> None:
        self.store = store
        self.offline = offline
        self._transfer = Transfer(offline=offline, on_bytes=on_bytes or (lambda _n: None))
        self._retries = Retries()

    def fetch(self, addresses: Sequence[str], *, sha256: str, size: int, what: str) -> Path:
        """Return the path of object `sha256`, from the store or the first address that has it.

        Raises CregraphError with both digests and the source if the bytes differ, else with each address and its failure.
        """
        if self.store.has(sha256):
            with contextlib.suppress(CregraphError):
                return self.store.verified(sha256, what)
        with self.store.lock(f"fetch-{sha256}"):
            if self.store.has(sha256):
                return self.store.verified(sha256, what)
            partial = self._partial(sha256)

            def attempt(address: str) -> Path:
                begun = partial.exists()
                try:
                    self._receive(address, partial, limit=size)
                    found = f"sha256:{_digest(partial)}"
                except TooMuch as error:
                    found = error.message
                if found != f"sha256:{sha256}":
                    partial.unlink(missing_ok=True)
                    if begun:  # the bytes of an earlier try may be wrong
                        raise Passing(f"the server cannot continue the partial download of {what}")
                    raise _Differing(
                        f"{what} has {found}, but the lock pins sha256:{sha256} ({size} bytes)\n  from {redacted(address)}",
                        hint="if you expect new bytes, run "
                        "`cregraph lock --upgrade-package NAME` and review the change with `cregraph diff`",
                    )
                return self.store.adopt(partial, sha256)

            return self._first(addresses, attempt, what, kept=True)

    def take(self, addresses: Sequence[str], *, what: str, md5: str | None = None, limit: int = 1 << 36) -> tuple[str, int, Path]:
        """Download a file of unknown sha256; return (sha256, size, path). `md5`, which CRAN's index states, is checked.

        Each try starts at the first byte: a file that cannot be verified is never assembled from parts.
        """
        with self.store.scratch_folder() as folder:
            partial = folder / "download"

            def attempt(address: str) -> tuple[str, int, Path]:
                partial.unlink(missing_ok=True)
                self._receive(address, partial, limit=limit)
                size = partial.stat().st_size
                found_md5 = _digest(partial, "md5") if md5 else None
                if md5 and found_md5 != md5.lower():
                    raise _Differing(
                        f"{what} has md5 {found_md5}, but its index says {md5}\n  from {redacted(address)}",
                        hint="try again later, or name another mirror in sources.yaml: this one does not match its index",
                    )
                found = _digest(partial)
                return found, size, self.store.adopt(partial, found)

            return self._first(addresses, attempt, what)

    def read(self, addresses: Sequence[str], *, what: str, limit: int) -> bytes:
        """Return the bytes of a small index file. Each call asks the source."""
        with self.store.scratch_folder() as folder:
            partial = folder / "index"

            def attempt(address: str) -> bytes:
                partial.unlink(missing_ok=True)
                self._receive(address, partial, limit=limit)
                return partial.read_bytes()

            return self._first(addresses, attempt, what)

    def _first(self, addresses: Sequence[str], attempt: Callable[[str], T], what: str, *, kept: bool = False) -> T:
        failures: list[tuple[str, str]] = []
        absent = 0
        differing: _Differing | None = None
        for address in addresses:
            try:
                return self._retries.run(functools.partial(attempt, address))
            except NotThere as error:
                absent += 1
                failures.append((address, error.message))
            except Passing as error:
                failures.append((address, str(error)))
            except _Differing as error:
                differing = differing or error
            except TooMuch as error:
                failures.append((address, f"has {error.message}"))
            except Unreachable as error:
                failures.append((address, error.message))
        if differing is not None:
            raise differing
        told = "".join(f"\n  {redacted(address)}: {why}" for address, why in failures)
        if absent == len(failures):
            raise NotThere(f"{what} is not there{told}", hint="check the name, or the address in sources.yaml")
        if self.offline:
            hint = "run once without --offline"
        else:
            hint = "check the network and sources.yaml" + ("; the next run continues the download" * kept)
        raise CregraphError(f"{what} cannot be fetched{told}", hint=hint)

    def _partial(self, sha256: str) -> Path:
        folder = self.store.root / "partial"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / sha256

    def _receive(self, address: str, partial: Path, *, limit: int) -> None:
        with self.store.explained():
            self._transfer.receive(address, partial, limit=limit)


def _digest(path: Path, name: str = "sha256") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()
