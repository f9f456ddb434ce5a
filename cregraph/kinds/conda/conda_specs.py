"""Conda match specs as people write them, in one normal form, without a solver at hand.

    name                           any version
    name =1.2    name 1.2.*        1.2 and what starts with it
    name ==1.2   name 1.2          exactly 1.2
    name >=1.2,<2                  a range; `|` is "or"
    name 1.2 build   name=1.2=build

The normal form is `name`, `name <versions>` or `name <versions> <build>`, single spaces, lower-case name. CRAN writes dashes in
versions and conda cannot: in specs of `r-*` packages `1.1-35` means `1.1_35`, as conda-forge builds it.
Brackets, channels and regular expressions of the full grammar are refused: channels have a field of their own.
"""

from __future__ import annotations

import re

__all__ = ["normal_spec", "spec_name"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*?(?=[ =<>!~]|$)")
_REST = re.compile(r"[A-Za-z0-9_.+!*<>=~,|() -]*")
_VERSIONS = re.compile(r"\(*(?:[<>]=?|[=!]=|=|~=)?[0-9A-Za-z*][0-9A-Za-z_.+!*-]*\)*")
_BUILD = re.compile(r"=?[A-Za-z0-9_.+*]+")
_DASH = re.compile(r"(?<=[0-9])-(?=[0-9])")


def normal_spec(text: str) -> str:
    """Return `text` in the normal form. Raise ValueError with the problem, as it follows the place and the text in a message."""
    text = " ".join(text.split(" ")).strip()
    if not text:
        raise ValueError("is empty (expected a package name)")
    if "::" in text:
        raise ValueError("names a channel; list channels under `channels` in order of priority")
    if "[" in text:
        raise ValueError("has brackets; write `name version build`")
    found = _NAME.match(text)
    if found is None:
        raise ValueError("does not start with a package's name (letters, digits and . _ - +)")
    name, rest = found[0].lower(), text[found.end() :].strip()
    if name.startswith("__"):
        raise ValueError("is a virtual package; those follow from the base image")
    odd = sorted({c for c in rest if not _REST.fullmatch(c)})
    if odd:
        raise ValueError(f"holds {', '.join(repr(c) for c in odd)}, which is not allowed in a conda spec")
    versions, build = _parts(rest)
    if name.startswith("r-"):
        versions = _DASH.sub("_", versions)
    if "-" in versions:
        raise ValueError("has a dash in its version; write `_` as conda does")
    for version in re.split(r"[,|]", versions) if versions else []:
        if not _VERSIONS.fullmatch(version):
            raise ValueError(f"has a version that cannot be read: {version!r}; write `=1.2`, `==1.2.3`, `>=1.2,<2`")
    if versions.count("(") != versions.count(")"):
        raise ValueError("has an unmatched bracket")
    if build and not _BUILD.fullmatch(build):
        raise ValueError(f"has a build that cannot be read: {build!r}")
    return " ".join(part for part in (name, versions, build) if part)


def spec_name(spec: str) -> str:
    return spec.partition(" ")[0]


def _parts(rest: str) -> tuple[str, str]:
    """Return the versions without spaces, and the build."""
    if exact := re.fullmatch(r"={1,2}([^=<>!~\s]+)=([^=<>!~\s]+)", rest):  # name=1.2=build is exact
        return f"=={exact[1]}", exact[2]
    rest = re.sub(r" *([,|]) *", r"\1", rest)
    rest = re.sub(r"([<>=!~]) +", r"\1", rest)
    words = rest.split()
    if len(words) > 2:
        raise ValueError("has more than name, version and build; separate versions with a comma")
    if words and (words[0][-1] in "<>=!~,|" or words[0][0] in ",|"):
        raise ValueError("has an operator without a version")
    return (words[0] if words else ""), (words[1] if len(words) > 1 else "")
