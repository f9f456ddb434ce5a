"""Names of Python distributions and their files."""

from __future__ import annotations

import re

__all__ = ["is_place", "normal"]


def normal(name: str) -> str:
    """Return the normal form of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_place(file: str) -> bool:
    """Return whether `file` has the form `numpy/numpy-2.0.0-….whl`: a distribution's normal name and a plain file name."""
    return re.fullmatch(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?/[A-Za-z0-9][A-Za-z0-9._+!-]{0,254}", file) is not None
