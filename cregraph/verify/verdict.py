"""The result of a verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Subject", "Verdict", "What"]

What = Literal["missing", "extra", "version", "changed"]
Subject = Literal["base", "config", "variable", "label", "package", "directory", "file"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between an image and its lock. `name` is a package, path, variable, label or part of the config."""

    what: What
    subject: Subject
    name: str
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What was compared with the lock, and the differences. `by` is "digest" for the whole image, "content" for its parts.

    Attributes:
        packages: Number of packages that have the locked version.
        files: Number of files that are equal to the byte.
        unread: Number of packages whose files this store does not know; the image's own records were used for them.
        other: Number of files of compiled packages that have other bytes.
    """

    by: Literal["digest", "content"]
    findings: tuple[Finding, ...] = ()
    packages: int = 0
    files: int = 0
    unread: int = 0
    other: int = 0
