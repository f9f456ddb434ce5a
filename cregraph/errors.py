"""The errors that a user sees.

    CregraphError     no answer: unreadable input, unreachable source, failed build   exit 2
    +- Refused        the answer is no: stale, different, invalid, a check failed     exit 1

Any other exception that reaches the command line is a fault of cregraph (exit 3).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["CregraphError", "Refused", "did_you_mean", "nearest", "together"]


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


def together(errors: Sequence[CregraphError], title: str, notes: Sequence[str] = ()) -> CregraphError:
    """Return one error with the problems of `errors` numbered below `title`, and then `notes`. A single one has no number."""
    if len(errors) == 1:
        return CregraphError("\n".join([errors[0].message, *notes]), errors[0].hint)
    lines = [f"{number}. {error.message}".replace("\n", "\n   ") for number, error in enumerate(errors, 1)]
    hints = [f"{number}. {error.hint}".replace("\n", "\n   ") for number, error in enumerate(errors, 1) if error.hint]
    return CregraphError("\n".join([f"{title}: {len(errors)} problems", *lines, *notes]), "\n".join(hints) or None)


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
