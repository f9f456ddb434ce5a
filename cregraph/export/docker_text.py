"""Text for Dockerfiles. Every name and value is quoted or refused here.

In double quotes, a backslash escapes a backslash, `"` and `$`. A line break cannot be written, so a value with one is refused.

Source: BuildKit's Dockerfile reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from cregraph.errors import CregraphError
from cregraph.text import printable

__all__ = ["comment", "exec_form", "pairs", "quoted"]

_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def comment(text: str) -> str:
    return "# " + printable(text)


def quoted(text: str, *, what: str) -> str:
    """Return `text` in double quotes, without substitution. Raise CregraphError, naming `what`, for a control character."""
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 or c in "\x85\u2028\u2029" for c in text):
        raise CregraphError(
            f"{what} contains a line break or another control character, which a Dockerfile cannot express",
            hint="remove it from the recipe or profile, or publish with `cregraph build --output registry`",
        )
    return '"' + re.sub(r'([\\"$])', r"\\\1", text) + '"'


def pairs(word: str, values: Mapping[str, str]) -> list[str]:
    """Return an `ENV` or `LABEL` line for each name, sorted. Raise CregraphError for a name or value that cannot be written."""
    lines = []
    for name, value in sorted(values.items()):
        if not _ENV.fullmatch(name):
            raise CregraphError(f"{word}: `{name!a}` is not a valid name in a Dockerfile", hint="rename it in the recipe")
        lines.append(f"{word} {name}={quoted(value, what=f'{word} {name}')}")
    return lines


def exec_form(argv: Sequence[str]) -> str:
    """Return a command as a JSON array, which no shell reads. It is ASCII, so that no character ends the line."""
    return json.dumps(list(argv), ensure_ascii=True)
