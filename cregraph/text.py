"""Text of other programs, files and servers, made fit for messages."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["few", "printable", "redacted", "redacted_text"]

_ADDRESS = re.compile(r"\w+://(?:[^/\s]*@)?[^\s'\"`)]*")


def printable(text: str, limit: int | None = None, *, keep: str = "") -> str:
    r"""Return `text` with every unprintable character as an escape such as `\x1b`, so that a terminal obeys nothing in it.

    A byte that was not UTF-8 (PEP 383) becomes `\x80`. Characters in `keep`, such as line breaks, stay. The result has at most
    `limit` characters; `…` replaces what is cut off.
    """
    if limit is not None:
        text = text[: limit + 1]  # escapes only make it longer
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def redacted(address: str) -> str:
    """Return `address` without user, password, conda token (`/t/TOKEN`), query and fragment. Takes any text."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        scheme, rest = "", address
    host, slash, path = rest.partition("/")
    if "@" in host:
        host = "…@" + host.rpartition("@")[2]
    return scheme + mark + re.sub("/t/[^/?#]+", "/t/…", re.split("[?#]", host + slash + path, maxsplit=1)[0])


def redacted_text(text: str) -> str:
    """Return `text` with each address in it redacted."""
    return _ADDRESS.sub(lambda found: redacted(found[0]), text)


def few(names: Iterable[str], most: int = 12) -> str:
    """Return the first `most` names, each once, in a line such as `a, b and 4 more`."""
    listed = list(dict.fromkeys(names))
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _escaped(c: str) -> str:
    return f"\\x{ord(c) & 0xFF:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else c.encode("unicode_escape", "backslashreplace").decode()
