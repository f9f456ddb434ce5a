"""Bounded decompression of files and streams into blocks, and blocks as a file that is read forward.

Any correct decompressor is suitable, because inflated bytes never enter a digest of cregraph.
"""

from __future__ import annotations

import errno
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from cregraph.errors import CregraphError
from cregraph.formats.untrusted_tar import Policy

__all__ = ["blocks_as_file", "bounded", "inflated", "inflated_file", "part", "part_of"]

_BLOCK = 1 << 20
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
#: Largest window that a zstd frame may ask for, in bytes.
_WINDOW = 1 << 27
#: Largest ratio of inflated to compressed size, past `Policy.free`.
_RATIO = 1100


class _Blocks(io.RawIOBase):
    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._left:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def blocks_as_file(blocks: Iterable[bytes]) -> IO[bytes]:
    """Return a file that reads forward through `blocks`."""
    return io.BufferedReader(_Blocks(blocks), _BLOCK)


def part(file: IO[bytes], start: int, size: int) -> Iterator[bytes]:
    """Yield `size` bytes of `file` from `start`. Raises OSError if there are fewer."""
    file.seek(start)
    while size > 0:
        block = file.read(min(_BLOCK, size))
        if not block:
            raise OSError(errno.EIO, "a file shrank while it was read")
        size -= len(block)
        yield block


def part_of(path: Path, start: int, size: int) -> Iterator[bytes]:
    """Yield `size` bytes of the file at `path` from `start`, as `part` does."""
    with path.open("rb") as file:
        yield from part(file, start, size)


def inflated(blocks: Iterable[bytes], *, what: str) -> Iterator[bytes]:
    """Return the plain bytes of a tar, gzip (any number of members) or zstd stream. The first bytes decide which it is.

    An inflated block has at most 1 MiB. Raises CregraphError, beginning with `what`, for a damaged or cut stream.
    """
    source = iter(blocks)
    head = b""
    while len(head) < 4 and (block := next(source, None)) is not None:
        head += block
    whole = chain((head,) if head else (), source)
    return _inflated(whole, head, what) if head.startswith((_GZIP, _ZSTD)) else whole


def _inflated(blocks: Iterable[bytes], head: bytes, what: str) -> Iterator[bytes]:
    import gzip

    import zstandard

    file = blocks_as_file(blocks)
    stream: Any
    if head.startswith(_GZIP):
        stream = gzip.GzipFile(fileobj=file)
    else:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        stream = decompressor.stream_reader(file, read_size=1 << 18, read_across_frames=True)
    try:
        while plain := stream.read(_BLOCK):
            yield plain
    except EOFError:
        raise CregraphError(f"{what}: ends in the middle of its compressed bytes") from None
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise CregraphError(f"{what}: is damaged: {error}") from None


def inflated_file(path: Path, *, what: str, policy: Policy) -> Iterator[bytes]:
    """Yield the plain bytes of a gzip, bzip2, xz or zstd file. Yield any other file unchanged.

    Raises CregraphError, beginning with `what`, for a damaged file or one past the bounds of `policy`. An OSError of this
    machine (a full disk) is raised unchanged.
    """
    from lzma import LZMAError

    with path.open("rb") as file:
        magic = file.read(6)
    broken: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, zlib.error, LZMAError)
    if magic.startswith(_ZSTD):
        from zstandard import ZstdError

        broken += (ZstdError,)
    size = path.stat().st_size
    try:
        with _opener(magic)(path, "rb") as stream:
            blocks = iter(lambda: stream.read(_BLOCK), b"")
            yield from bounded(blocks, compressed=lambda: size, what=what, policy=policy)
    except broken as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise CregraphError(f"{what} cannot be inflated: {error}") from None


def _opener(magic: bytes) -> Callable[[Path, str], Any]:
    import bz2
    import gzip
    import lzma

    forms = ((_GZIP, gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
    if magic.startswith(_ZSTD):
        import zstandard

        return zstandard.open
    return next((opener for begin, opener in forms if magic.startswith(begin)), open)


def bounded(blocks: Iterable[bytes], *, compressed: Callable[[], int], what: str, policy: Policy) -> Iterator[bytes]:
    """Yield `blocks`. Raises CregraphError once they are past the bounds of `policy`.

    `compressed` returns the number of compressed bytes that were read so far.
    """
    total = 0
    for block in blocks:
        total += len(block)
        if total > policy.bytes:
            raise CregraphError(f"{what}: unpacks to more than {policy.bytes >> 30} GiB")
        if total > policy.free and total > _RATIO * compressed():
            raise CregraphError(f"{what}: unpacks to more than {_RATIO} times its size")
        yield block
