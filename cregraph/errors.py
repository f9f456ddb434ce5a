"""The errors that a user sees.

    CregraphError     no answer: unreadable input, unreachable source, failed build   exit 2
    +- Refused        the answer is no: stale, different, invalid, a check failed     exit 1

Any other exception that reaches the command line is a fault of cregraph (exit 3).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["CregraphError", "Refused", "Several", "did_you_mean", "nearest"]


class CregraphError(Exception):
    """A problem in words. `message` names file, field and problem; `hint` says how to fix it."""

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class Refused(CregraphError):
    """An answer of no to a valid question."""

    exit_code = 1


class Several(CregraphError):
    """Problems that one run found, numbered below `title` and followed by `notes`. A single one has no number.

    `errors` holds each of them, also those of another `Several`. Without `title` there are no numbers.
    """

    errors: Sequence[CregraphError]

    def __init__(self, errors: Iterable[CregraphError], title: str = "", notes: Sequence[str] = ()) -> None:
        flat = [part for error in errors for part in (error.errors if isinstance(error, Several) else [error])]
        self.errors = list({error.message: error for error in flat}.values())
        several = bool(title) and len(self.errors) > 1
        numbered = [(f"{number}. " if several else "", error) for number, error in enumerate(self.errors, 1)]
        lines = [f"{number}{error.message}".replace("\n", "\n   " if number else "\n") for number, error in numbered]
        hints = [f"{number}{error.hint}".replace("\n", "\n   " if number else "\n") for number, error in numbered if error.hint]
        head = [f"{title}: {len(self.errors)} problems"] if several else []
        super().__init__("\n".join([*head, *lines, *notes]), "\n".join(dict.fromkeys(hints)) or None)


def did_you_mean(name: str, known: Iterable[str], otherwise: str | None = None) -> str | None:
    """Return a hint with the known name that `name` was probably meant to be, else `otherwise`."""
    near = nearest(name, known)
    return f"write `{near}` instead" if near else otherwise


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` was probably meant to be, or None."""
    names = sorted(set(known))
    folded = {n.lower(): n for n in reversed(names)}
    found = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None
