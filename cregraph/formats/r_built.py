"""Built R packages, as `R CMD INSTALL --build` writes them and dated repositories of Linux binaries hold them.

A built package is a tarball of the installed files in one top folder, named after the package. Only built packages have the
field `Built` in DESCRIPTION ("R Administration and Installation", 6.3; written by `.install_packages` of R's tools):

    Built: R 4.2.2; x86_64-pc-linux-gnu; 2025-06-01 00:00:00 UTC; unix       the platform is empty if nothing is compiled

The tarball is untrusted and enters the image unchanged. So cregraph checks its members as in a source tarball, and reads the
needs of its libraries.
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

#: Libraries that every installation of conda's R has: those of glibc, the compilers, R, BLAS and LAPACK.
_EVERYWHERE = frozenset(
    (
        *("libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "libutil.so.1", "ld-linux-x86-64.so.2"),
        *("libgcc_s.so.1", "libstdc++.so.6", "libgfortran.so.5", "libquadmath.so.0", "libgomp.so.1"),
        *("libR.so", "libblas.so.3", "liblapack.so.3"),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A built package. `r` is the version of R that built it. `platform` is empty if nothing is compiled. `needed` are sonames
    that neither the package nor `_EVERYWHERE` has. `glibc` is the highest symbol version that it uses."""

    description: Description
    r: str
    platform: str
    os: str
    whole: bool
    x86_64: bool
    needed: tuple[str, ...]
    glibc: str | None


def built_field(text: str, *, what: str) -> str | None:
    """Return the field `Built` of a DESCRIPTION, or None for a source package."""
    return dcf.paragraph(text, what=f"{what}: DESCRIPTION").get("Built")


def read_built(path: Path, *, what: str) -> Built | None:
    """Return the built package at `path`, or None for a source package. Checks every member and writes nothing.

    Raises CregraphError, naming `what` and the member, if it is unsafe to unpack or the tarball is not an R package.
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
    """Return why R `r_minor` (`4.2`) on x86-64 Linux with `glibc` cannot use a built package, or None if it can."""
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
