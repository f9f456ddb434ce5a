"""The functions of `zstandard` that cregraph's readers use, with the C library of the machine.

The installer has it as its module `zstandard`. Debian, Ubuntu and Red Hat have libzstd.so.1, because apt, dpkg and rpm need it.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

__all__ = ["ZstdDecompressor", "ZstdError", "open"]

_BLOCK = 1 << 17


class ZstdError(Exception):
    """The stream is damaged, or the library is missing."""


class _Buffer(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


def _library() -> Any:
    try:
        found = ctypes.CDLL("libzstd.so.1")
    except OSError as error:
        raise ZstdError(f"this image has no libzstd.so.1, which .conda packages are read with ({error})") from None
    found.ZSTD_createDStream.restype = ctypes.c_void_p
    found.ZSTD_freeDStream.argtypes = (ctypes.c_void_p,)
    found.ZSTD_decompressStream.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer))
    found.ZSTD_decompressStream.restype = ctypes.c_size_t
    found.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    found.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    found.ZSTD_getErrorName.restype = ctypes.c_char_p
    return found


class _Reader(io.RawIOBase):
    """The decompressed bytes of any number of frames."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._lib = _library()
        self._stream = self._lib.ZSTD_createDStream()
        self._in = ctypes.create_string_buffer(_BLOCK)
        self._input = _Buffer(ctypes.cast(self._in, ctypes.c_void_p), 0, 0)
        self._open = False  # within a frame

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not len(view):
            return 0
        room = (ctypes.c_char * len(view)).from_buffer(view)
        out = _Buffer(ctypes.cast(room, ctypes.c_void_p), len(view), 0)
        while not out.pos:
            if self._input.pos == self._input.size:
                data = self._source.read(_BLOCK)
                if not data:
                    if self._open:
                        raise ZstdError("the stream ends in the middle of a frame")
                    return 0
                ctypes.memmove(self._in, data, len(data))
                self._input.size, self._input.pos = len(data), 0
            left = self._lib.ZSTD_decompressStream(self._stream, ctypes.byref(out), ctypes.byref(self._input))
            if self._lib.ZSTD_isError(left):
                raise ZstdError(self._lib.ZSTD_getErrorName(left).decode("ascii", "replace"))
            self._open = left != 0
        return int(out.pos)

    def close(self) -> None:
        if not self.closed and self._stream:
            self._lib.ZSTD_freeDStream(self._stream)
            self._stream = None
        super().close()


class ZstdDecompressor:
    """The part of `zstandard.ZstdDecompressor` that is used."""

    @contextlib.contextmanager
    def stream_reader(self, source: IO[bytes], *, read_across_frames: bool = True) -> Iterator[IO[bytes]]:
        with _Reader(source) as reader:
            yield cast("IO[bytes]", reader)


@contextlib.contextmanager
def open(path: Path, mode: str = "rb") -> Iterator[IO[bytes]]:
    with Path(path).open("rb") as file, _Reader(cast("IO[bytes]", file)) as reader:
        yield cast("IO[bytes]", io.BufferedReader(reader, _BLOCK))
