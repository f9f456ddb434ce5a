"""Fields of a tar header (POSIX.1-2001 and GNU), and names in a layer that hide files of the layers below.

The functions that read fields raise ValueError for bytes that break the format.
"""

from __future__ import annotations

__all__ = ["BLOCK", "OPAQUE", "check_sum", "decimal", "decoded", "number", "records", "whiteout"]

BLOCK = 512
_OCTAL = b"01234567"

#: Result of `whiteout` for the name that hides everything of the lower layers in its folder.
OPAQUE = "/"


def check_sum(block: bytes) -> None:
    """Raise ValueError unless the 512 bytes are a header."""
    stated = block[148:156].strip(b" \0")
    if not stated or stated.translate(None, _OCTAL) or int(stated, 8) != sum(block) - sum(block[148:156]) + 8 * 32:
        raise ValueError("is not a tar or is damaged (the checksum of a header is wrong)")


def number(field: bytes) -> int:
    """Return the number in a field: octal digits, or GNU's base-256 (big endian, two's complement)."""
    first = field[0]
    if first in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big")
        if first == 0xFF:
            return value - (1 << (8 * (len(field) - 1)))
        if value >= 1 << 62:
            raise ValueError("has a header with a number that is too large")
        return value
    text = field.partition(b"\0")[0].strip(b" ")
    if text.translate(None, _OCTAL):
        raise ValueError("has a header with an invalid number")
    return int(text, 8) if text else 0


def decimal(text: str) -> int:
    """Return the number of a pax record, rounded down."""
    whole, _, part = text.partition(".")
    negative = whole.startswith("-")
    digits = whole[negative:]
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise ValueError(f"has an extended header with an invalid number: {text[:40]!r}")
    value = int(digits)
    return -value - (1 if part.strip("0") else 0) if negative else value


def records(data: bytes) -> dict[str, str]:
    """Return the records of a pax header: lines of `<length> <key>=<value>`."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at : at + 1] != b"\0":
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[space + 1 : end].partition(b"=")
        if not space < end <= len(data) or not equals or not value.endswith(b"\n"):
            raise ValueError("has a damaged extended header")
        found[decoded(key)] = decoded(value[:-1])
        at = end
    return found


def decoded(name: bytes) -> str:
    """Return a name as text; bytes that are not UTF-8 become surrogates (PEP 383)."""
    return name.decode("utf-8", "surrogateescape")


def whiteout(name: str) -> str | None:
    """Return the name that a layer's member `name` (without folder) hides in its folder, or None if it is not a whiteout.

    The result is OPAQUE for everything in the folder. It is empty for a name that hides nothing (`.wh.`, aufs' `.wh..wh.…`).
    Source: OCI image specification 1.1, layer.md, "Whiteouts".
    """
    if not name.startswith(".wh."):
        return None
    if name == ".wh..wh..opq":
        return OPAQUE
    return "" if name.startswith(".wh..wh.") else name.removeprefix(".wh.")
