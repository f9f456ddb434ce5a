"""Gzip members of fixed uncompressed size: the compressed form of assembly 1.

Every MEMBER bytes become one member, compressed in one call by libdeflate level 1 (RFC 1952 header: no name, time 0, system
255). Several members in a row are one valid gzip file (RFC 1952, 2.2) and a valid layer, so compressed segments can be
joined by copying. One call of libdeflate gives equal bytes on every processor and for any division of the input. The bytes
depend on its version, so the version is pinned, and a known answer is checked before the first use.
Level 1 is twice as fast as level 6, and its output is a twelfth larger.
"""

from __future__ import annotations

import functools
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cregraph.errors import CregraphError

__all__ = ["MEMBER", "compress", "inflate"]

#: Uncompressed bytes in every member but the last of a stream.
MEMBER = 1 << 20

_LEVEL = 1
_WORKERS = 2
_AHEAD = 4  # members in flight: bounds memory
_KNOWN = "cecd738725f27f270b70b2d3d219c47767bfa05c11ce01bf504fef9b92e1f0f4"

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def compress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the members that hold the bytes of `chunks`, in order; none for no bytes.

    Neither the division into chunks nor the threads change the output. At most a few members are in memory.

    Raises CregraphError if the installed compressor does not give the bytes of this assembly.
    """
    check_compressor()
    return _in_order(_member, _cut(chunks))


def inflate(members: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of each member, in order. Raises ValueError for a damaged member or one of more than MEMBER bytes."""
    return _in_order(_content, members)


@functools.cache
def check_compressor() -> None:
    """Raise CregraphError, once in a process, unless the compressor gives the bytes of this assembly."""
    found = hashlib.sha256(b"".join(_member(part) for part in _cut([_sample()]))).hexdigest()
    if found != _KNOWN:
        raise CregraphError(
            f"the compressor gives other bytes than assembly 1 requires (sha256:{found}, not {_KNOWN}); "
            "an image built with it would have another digest",
            hint="install the pinned compressor: `pip install --force-reinstall deflate==0.9.0`; "
            "if that is what you have, please report your processor and operating system",
        )


def _member(data: bytes) -> bytes:
    import deflate

    return bytes(deflate.gzip_compress(data, _LEVEL))


def _content(member: bytes) -> bytes:
    import deflate

    # The library allocates the size that the trailer states. It is checked first, so that a forged one cannot ask for gigabytes.
    size = int.from_bytes(member[-4:], "little")
    if len(member) < 18 or size > MEMBER:
        raise ValueError("not a gzip member of this form")
    try:
        data = bytes(deflate.gzip_decompress(member, size))
    except deflate.DeflateError as error:
        raise ValueError(f"a damaged gzip member: {error}") from error
    if len(data) != size:
        raise ValueError("a gzip member has another size than it states")
    return data


def _cut(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces of MEMBER bytes."""
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        view = memoryview(chunk)
        while size + len(view) >= MEMBER:
            take = MEMBER - size
            held.append(bytes(view[:take]))
            yield b"".join(held)
            view = view[take:]
            held, size = [], 0
        if view:
            held.append(bytes(view))
            size += len(view)
    if held:
        yield b"".join(held)


def _in_order(work: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Yield `work` of each item, in the items' order, a few at a time in threads."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        running: deque[Future[_Out]] = deque()
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) >= _AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _sample() -> bytes:
    """Return bytes made by a formula: long matches, text, numbers, noise and zeros, in more than one member."""
    text = b"".join(b"lib/R/library/p%d/R/p%d.rdb\n" % (i % 97, i * i % 1009) for i in range(12000))
    noise = bytearray()
    state = 1
    for _ in range(40000):
        state = (state * 1103515245 + 12345) % (1 << 31)
        noise += (state >> 8).to_bytes(3, "little")
    numbers = b"".join((i * 2654435761 % (1 << 32) >> 12).to_bytes(4, "little") for i in range(60000))
    return (text + bytes(150000) + bytes(noise) + numbers + text[::-1]) * 2
