"""The functions of `zstandard` that cregraph's readers use, with the C library of the machine.

The installer has it as its module `zstandard`. Debian, Ubuntu and Red Hat have libzstd.so.1, because apt, dpkg and rpm need it.
"""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["ZstdDecompressor", "ZstdError"]

_BLOCK = 1 << 17


class ZstdError(Exception):
    """Error: the stream is damaged, or the library is missing."""


class _Buffer(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


def _library() -> Any:
    try:
        found = ctypes.CDLL("libzstd.so.1")
    except OSError as error:
        raise ZstdError(f"this image has no libzstd.so.1, which is required for .conda packages ({error})") from None
    found.ZSTD_createDStream.restype = ctypes.c_void_p
    found.ZSTD_freeDStream.argtypes = (ctypes.c_void_p,)
    found.ZSTD_decompressStream.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer))
    found.ZSTD_decompressStream.restype = ctypes.c_size_t
    found.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    found.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    found.ZSTD_getErrorName.restype = ctypes.c_char_p
    return found


class _Frame:
    """The part of `zstandard.ZstdDecompressionObj` that is used: one frame."""

    def __init__(self, library: Any) -> None:
        self._lib = library
        self._stream = self._lib.ZSTD_createDStream()
        self._out = ctypes.create_string_buffer(_BLOCK)
        self.eof = False
        self.unused_data = b""

    def decompress(self, data: bytes) -> bytes:
        """Return the bytes that `data` adds to the frame."""
        plain: list[bytes] = []
        source = _Buffer(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data), 0)
        while not self.eof:
            out = _Buffer(ctypes.cast(self._out, ctypes.c_void_p), _BLOCK, 0)
            left = self._lib.ZSTD_decompressStream(self._stream, ctypes.byref(out), ctypes.byref(source))
            if self._lib.ZSTD_isError(left):
                raise ZstdError(self._lib.ZSTD_getErrorName(left).decode("ascii", "replace"))
            plain.append(ctypes.string_at(self._out, out.pos))
            self.eof = left == 0
            if source.pos == source.size and out.pos < out.size:
                break
        self.unused_data = data[source.pos :]
        return b"".join(plain)

    def __del__(self) -> None:
        self._lib.ZSTD_freeDStream(self._stream)


class ZstdDecompressor:
    """The part of `zstandard.ZstdDecompressor` that is used. The library's own limit of a window is 128 MiB too."""

    def __init__(self, max_window_size: int) -> None:
        pass

    def decompressobj(self) -> _Frame:
        """Return a reader of one frame."""
        return _Frame(_library())
