"""A layer's blob read as a tar, while its plain bytes are hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_as_file, bounded, inflated
from cregraph.formats.untrusted_tar import IMAGE, Reader

__all__ = ["LayerTar", "check_diff_id"]


class LayerTar:
    """A layer, compressed or not. Iterate over `tar` first; then `sha256` returns the digest of the plain bytes.

    `progress` is called with the number of compressed bytes that were read.
    """

    def __init__(self, blocks: Iterable[bytes], *, what: str, progress: Callable[[int], None] | None = None) -> None:
        self._compressed = 0
        self._progress = progress or (lambda _n: None)
        self._hash = hashlib.sha256()
        self.tar = Reader(blocks_as_file(self._plain(blocks, what)), what=what, policy=IMAGE)

    def sha256(self) -> str:
        """Return the sha256 of the plain bytes as hex."""
        return self._hash.hexdigest()

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


def check_diff_id(found: str, diff_id: str, *, what: str) -> None:
    """Raise CregraphError unless the sha256 `found` is the config's `diff_id`."""
    if found != diff_id.removeprefix("sha256:"):
        raise CregraphError(
            f"{what}: its plain bytes have sha256:{found}, but the config says {diff_id}",
            "the image is damaged or was put together wrongly; build or pull it again",
        )
