"""The lines of .gitattributes that keep git from changing line endings in locks/ and bases/, whose bytes are pinned."""

from __future__ import annotations

from pathlib import Path

from cregraph.errors import CregraphError
from cregraph.store.atomic_file import write_file

__all__ = ["ATTRIBUTES", "keep_line_endings"]

#: Without them, a checkout with `core.autocrlf=true` holds other bytes than those that locks name.
ATTRIBUTES = "locks/** -text\nbases/** -text\n"


def keep_line_endings(folder: Path) -> None:
    """Add the missing lines of `ATTRIBUTES` to .gitattributes in `folder`. Other lines stay."""
    file = folder / ".gitattributes"
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        missing = [line for line in ATTRIBUTES.splitlines() if line not in text.splitlines()]
        if missing:
            start = text if not text or text.endswith("\n") else f"{text}\n"
            write_file(file, (start + "\n".join(missing) + "\n").encode())
    except (OSError, UnicodeDecodeError) as error:
        raise CregraphError(f"`{file.as_posix()}` cannot be changed: {getattr(error, 'strerror', None) or error}") from None
