"""Bounded decompression of files and streams, files as blocks, and blocks as a file that is read forward.

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
from cregraph.formats.untrusted_tar import PACKAGE, Policy

__all__ = ["blocks_as_file", "blocks_of", "bounded", "inflated", "inflated_file", "part", "part_of"]

_BLOCK = 1 << 20
#: Compressed bytes that the zstd decoder gets at once: 4 bytes can become 128 KiB, so this bounds memory.
_ZSTD_PIECE = 256
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
    return io.BufferedReader(_Blocks(blocks), _BLOCK)


def blocks_of(path: Path, start: int = 0) -> Iterator[bytes]:
    """Yield the bytes of the file at `path` from `start` on, in blocks of at most 1 MiB."""
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(_BLOCK):
            yield block


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


def inflated(blocks: Iterable[bytes], *, what: str, hint: str | None = None) -> Iterator[bytes]:
    """Yield the plain bytes of a gzip, bzip2, xz or zstd stream, of one or more members. Yield any other stream unchanged.

    The first bytes decide which it is. Raises CregraphError, beginning with `what`, for a damaged or cut stream. An OSError of
    this machine (a full disk) is raised unchanged.
    """
    source = iter(blocks)
    head = b""
    while len(head) < 6 and (block := next(source, None)) is not None:
        head += block
    whole = chain((head,), source)
    opened = _opened(blocks_as_file(whole), head)
    if opened is None:
        yield from (block for block in whole if block)
        return
    stream, damage = opened
    try:
        with stream:
            yield from iter(lambda: stream.read(_BLOCK), b"")
    except EOFError:
        raise CregraphError(f"{what}: ends in the middle of its compressed bytes", hint) from None
    except (OSError, ValueError, damage) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise CregraphError(f"{what}: is damaged: {error}", hint) from None


def _opened(file: IO[bytes], head: bytes) -> tuple[Any, type[Exception]] | None:
    """Return a file of the plain bytes, and the error of damaged ones besides OSError and ValueError. None: not compressed."""
    if head.startswith(b"\x1f\x8b"):
        import gzip

        return gzip.GzipFile(fileobj=file), zlib.error
    if head.startswith(b"BZh"):
        import bz2

        return bz2.BZ2File(file), OSError
    if head.startswith(b"\xfd7zXZ\0"):
        import lzma

        return lzma.LZMAFile(file), lzma.LZMAError
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return blocks_as_file(_frames(file)), zstandard.ZstdError
    return None


def _frames(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the bytes of zstd frames. Raises EOFError for a cut frame, which the library's own files do not notice."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    frame = decompressor.decompressobj()
    while data := frame.unused_data or file.read(_ZSTD_PIECE):
        if frame.eof:
            frame = decompressor.decompressobj()
        yield frame.decompress(data)
    if not frame.eof:
        raise EOFError


def inflated_file(path: Path, *, what: str, hint: str | None = None) -> Iterator[bytes]:
    """Yield the plain bytes of a file as `inflated` does. Raises CregraphError for one past the bounds of `PACKAGE`."""
    size = path.stat().st_size
    return bounded(inflated(blocks_of(path), what=what, hint=hint), compressed=lambda: size, what=what, policy=PACKAGE)


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
