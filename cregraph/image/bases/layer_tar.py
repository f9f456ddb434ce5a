"""Reader of a layer's blob as a tar, which hashes the plain bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_as_file, bounded, inflated
from cregraph.formats.untrusted_tar import IMAGE, Member, Reader

__all__ = ["LayerTar"]


class LayerTar(Reader):
    """The members of a layer, compressed or not. At their end the digest of the plain bytes must be `diff_id`.

    `progress` is called with the number of compressed bytes that were read.
    """

    def __init__(
        self, blocks: Iterable[bytes], diff_id: str, *, what: str, progress: Callable[[int], None] | None = None
    ) -> None:
        self._compressed = 0
        self._progress = progress or (lambda _n: None)
        self._hash = hashlib.sha256()
        self._diff_id = diff_id
        super().__init__(blocks_as_file(self._plain(blocks, what)), what=what, policy=IMAGE)

    def __iter__(self) -> Iterator[Member]:
        yield from super().__iter__()
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._diff_id:
            raise CregraphError(
                f"{self._what}: its plain bytes have {found}, but the config says {self._diff_id}",
                "build or pull the image again: it is damaged",
            )

    def _counted(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self._compressed += len(block)
            self._progress(len(block))
            yield block

    def _plain(self, blocks: Iterable[bytes], what: str) -> Iterator[bytes]:
        plain = inflated(self._counted(blocks), what=what)
        for block in bounded(plain, compressed=lambda: self._compressed, what=what, policy=IMAGE):
            self._hash.update(block)
            yield block
