"""Digests and keys: always sha256, as 64 lower-case hex digits (OCI puts `sha256:` before them)."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

__all__ = ["ASSEMBLY", "Json", "canonical", "is_sha256", "key_of", "sha256"]

#: Number of the byte rules that this version uses: tar form, compressor, splitting, normalisation. A lock states its own.
ASSEMBLY = 1

Json = Any  # str | int | bool | None | list[Json] | dict[str, Json]; mypy cannot hold recursive types cheaply

_SHA256 = re.compile(r"[0-9a-f]{64}")


def canonical(value: Json) -> bytes:
    """Return the one byte string of `value`: JSON with sorted keys, no white space, UTF-8.

    Raises TypeError for a float. The text of a float depends on the library that prints it.
    """
    _refuse_floats(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def key_of(value: Json) -> str:
    """Return the key of `value`: the sha256 of its canonical bytes."""
    return hashlib.sha256(canonical(value)).hexdigest()


def sha256(data: bytes) -> str:
    """Return the sha256 of `data` as hex."""
    return hashlib.sha256(data).hexdigest()


def is_sha256(text: object) -> bool:
    """Return whether `text` is a sha256 of 64 lower-case hex digits."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def _refuse_floats(value: Json) -> None:
    if isinstance(value, str):
        return
    if isinstance(value, float):
        raise TypeError("a key cannot depend on a float")
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            if type(item) is not str:
                _refuse_floats(item)
