"""Digests and keys: sha256, always, as 64 lower-case hex digits (OCI writes `sha256:` before them)."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

__all__ = ["ASSEMBLY", "Json", "canonical", "is_sha256", "key_of", "sha256"]

#: The byte rules that this version writes: tar form, compressor, splitting, normalisation. A lock names its own.
ASSEMBLY = 1

Json = Any  # str | int | bool | None | list[Json] | dict[str, Json]; mypy cannot hold recursive types cheaply

_SHA256 = re.compile(r"[0-9a-f]{64}")


def canonical(value: Json) -> bytes:
    """One value, one byte string: sorted keys, no white space, UTF-8.

    Floats are refused: their text depends on who prints them.
    """
    _refuse_floats(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def key_of(value: Json) -> str:
    """The key of what `value` describes."""
    return hashlib.sha256(canonical(value)).hexdigest()


def sha256(data: bytes) -> str:
    """The sha256 of `data` as hex."""
    return hashlib.sha256(data).hexdigest()


def is_sha256(text: object) -> bool:
    """Whether `text` is a sha256 in the one form that cregraph writes."""
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
