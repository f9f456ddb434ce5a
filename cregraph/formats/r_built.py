"""Built R packages: what `R CMD INSTALL --build` makes, and what dated repositories of Linux binaries hold.

A tarball as large as the installed package, with one top folder of the package's name. It is told from a source package by
the field `Built` of its DESCRIPTION ("R Administration and Installation", 6.3; `.install_packages` in R's own tools writes it):

    Built: R 4.2.2; x86_64-pc-linux-gnu; 2025-06-01 00:00:00 UTC; unix       the platform is empty where nothing is compiled

It comes from anywhere and goes into the image as it is, so it is looked through like a source tarball, and its libraries
are asked what they need of the system.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cregraph.errors import CregraphError
from cregraph.formats import dcf
from cregraph.formats.elf import MAGIC, library
from cregraph.formats.r_source import Description, describe
from cregraph.formats.tarball import files, scan

__all__ = ["Built", "built_field", "read_built", "unfit"]

_BUILT = re.compile(r"R ([0-9]+\.[0-9]+(?:\.[0-9]+)?); *([^;]*); *[^;]*; *(unix|windows) *")
_LIBRARY = re.compile(r".*\.so(?:\.[0-9.]+)?")
_MOST = 512 << 20  # bytes of one shared library

#: Libraries that are there wherever conda's R is: glibc's, the compilers', R's own and those that it computes with.
_EVERYWHERE = frozenset(
    (
        *("libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "libutil.so.1", "ld-linux-x86-64.so.2"),
        *("libgcc_s.so.1", "libstdc++.so.6", "libgfortran.so.5", "libquadmath.so.0", "libgomp.so.1"),
        *("libR.so", "libblas.so.3", "liblapack.so.3"),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A built package. `r` is the R that built it, `platform` empty where nothing is compiled; `needed` are the libraries
    that its own need and it does not hold, without those that are everywhere; `glibc` the highest version of its symbols."""

    description: Description
    r: str
    platform: str
    os: str
    whole: bool
    x86_64: bool
    needed: tuple[str, ...]
    glibc: str | None


def built_field(text: str, *, what: str) -> str | None:
    """The field `Built` of a DESCRIPTION, None in that of a source package."""
    return dcf.paragraph(text, what=f"{what}: DESCRIPTION").get("Built")


def read_built(path: Path, *, what: str) -> Built | None:
    """What the built package at `path` is; None for a source package. Every member is looked at, nothing is written.

    Raises CregraphError naming `what` and the member for whatever must not be unpacked, or is no R package.
    """
    held = scan(path, what=what, wanted={"DESCRIPTION"}, hint="the repository gave something else than an R package")
    if "DESCRIPTION" not in held.read:
        raise CregraphError(f"{what} holds no DESCRIPTION in its top folder, so it is no R package")
    text = dcf.decode(held.read["DESCRIPTION"])
    field = built_field(text, what=what)
    if field is None:
        return None
    found = describe(text, what=what, has_src=False)
    if found.name != held.top:
        raise CregraphError(f"{what}: the top folder is `{held.top}`, but DESCRIPTION names the package `{found.name}`")
    match = _BUILT.fullmatch(field.strip())
    if match is None:
        raise CregraphError(f"{what}: DESCRIPTION: Built: `{field[:120]}` is not as R writes it")
    needed: set[str] = set()
    versions: list[str] = []
    own = {name.rpartition("/")[2] for name in held.files}
    right = True
    for name, data in files(path, what=what, chosen=lambda name: _LIBRARY.fullmatch(name) is not None, most=_MOST):
        if not data.startswith(MAGIC):
            continue
        try:
            asks = library(data)
        except ValueError as error:
            raise CregraphError(f"{what}: `{name}` is {error}") from None
        right = right and asks.x86_64
        needed |= set(asks.needed)
        versions += [asks.glibc] if asks.glibc else []
    return Built(
        description=found,
        r=match[1],
        platform=match[2].strip(),
        os=match[3],
        whole="Meta/package.rds" in held.files,
        x86_64=right,
        needed=tuple(sorted(needed - _EVERYWHERE - own)),
        glibc=max(versions, key=_numbers, default=None),
    )


def unfit(found: Built, *, r_minor: str, glibc: str | None) -> str | None:
    """Why a built package cannot be used by R `r_minor` (`4.2`) for x86-64 Linux over a base with `glibc`; None when it can."""
    if not found.whole:
        return "holds no Meta/package.rds"
    if ".".join(found.r.split(".")[:2]) != r_minor:
        return f"is built for R {found.r}"
    if found.os != "unix" or not re.fullmatch(r"|x86_64-[a-z0-9_]+-linux-gnu|x86_64-linux-gnu", found.platform):
        return f"is built for {found.platform or found.os}"
    if not found.x86_64:
        return "holds libraries for another processor"
    if found.needed:
        return f"needs {', '.join(found.needed)}"
    if glibc and found.glibc and _numbers(found.glibc) > _numbers(glibc):
        return f"needs glibc {found.glibc}, and the base has {glibc}"
    return None


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
