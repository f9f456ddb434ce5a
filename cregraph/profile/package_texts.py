"""Texts that name packages: an R package with a version, a source tarball, a requirement of Python.

Each function raises CregraphError without the place, which the caller knows.
"""

from __future__ import annotations

import re

from cregraph.errors import CregraphError
from cregraph.text import printable

__all__ = ["ADDRESS", "is_r_name", "is_r_version", "plain_requirement", "r_package", "r_tarball", "requirement"]

# "Writing R Extensions", 1.1.1: a name has two characters or more, a version two numbers or more.
_R_NAME = re.compile(r"[A-Za-z][A-Za-z0-9.]{0,98}[A-Za-z0-9]")
_R_VERSION = re.compile(r"[0-9]+(?:[.-][0-9]+)+")
_R_PACKAGE = re.compile(rf"({_R_NAME.pattern})(?: *(==|>=) *({_R_VERSION.pattern}))?")
#: The beginning of an address.
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_CLAUSE = r"(?:==|>=|<=|<|>|!=) ?[0-9]+(?:\.[0-9]+)*"
_PLAIN_REQUIREMENT = re.compile(rf"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?) ?({_CLAUSE}(?:, ?{_CLAUSE})*)?")


def is_r_name(text: str) -> bool:
    """Return whether `text` can be the name of an R package."""
    return _R_NAME.fullmatch(text) is not None


def is_r_version(text: str) -> bool:
    """Return whether R accepts `text` as the version of a package."""
    return _R_VERSION.fullmatch(text) is not None


def r_package(text: str) -> tuple[str, str, str]:
    """Return name, operator and version of an item such as `dplyr >=1.1`; the last two are empty for a bare name."""
    found = _R_PACKAGE.fullmatch(text)
    if found is None:
        raise CregraphError(
            f"`{printable(text, 120)}` is not an R package with a version",
            hint="write name, name==1.2.3 or name>=1.2, with a version of two numbers or more; a tarball goes under `tarballs`",
        )
    return found[1], found[2] or "", found[3] or ""


def r_tarball(text: str) -> str:
    """Return `text` if it can be the address of a source tarball on the web, or its path in the project."""
    address = ADDRESS.match(text)
    host = text[address.end() :].split("/")[0] if address else ""
    if "@" in host:
        raise CregraphError(
            "the address contains a user or password, which the lock must not contain", hint="put them into ~/.netrc"
        )
    if (address and not (host and text.startswith(("https://", "http://")))) or text.startswith("/"):
        raise CregraphError(
            f"`{printable(text, 120)}` is not an address of a tarball or a path in the project",
            hint="write https://…, or ./file for a file next to the profile",
        )
    return text


def plain_requirement(text: str) -> tuple[str, list[str]] | None:
    """Return name and version clauses of a requirement in its most common form; None for any other text.

    packaging reads every form, but takes longer to load than most commands run.
    """
    found = _PLAIN_REQUIREMENT.fullmatch(text)
    if found is None:
        return None
    clauses = [part.replace(" ", "") for part in found[2].split(",")] if found[2] else []
    return (found[1], clauses) if len(set(clauses)) == len(clauses) else None


def requirement(text: str) -> str:
    """Return `text` if it is a requirement of Python (PEP 508)."""
    if plain_requirement(text) is None:
        from packaging.requirements import InvalidRequirement, Requirement

        try:
            Requirement(text)
        except InvalidRequirement:
            raise CregraphError(
                f"`{printable(text, 120)}` is not a Python requirement (PEP 508)", "write name, name==1.2.3 or name>=1.2,<2"
            ) from None
    return text
