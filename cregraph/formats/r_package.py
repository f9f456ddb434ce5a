"""R packages: DESCRIPTION of source and built packages, and packing a folder as a tar.

A package is a tar, mostly gzip, whose only top folder has the package's name and holds DESCRIPTION ("Writing R Extensions",
1.1). A tarball is untrusted, so it is read without unpacking. Paths and links that lead out, devices and decompression bombs
are refused by name.

A built package holds the installed files, as `R CMD INSTALL --build` writes them and dated repositories of Linux binaries hold
them. Only built packages have the field `Built` ("R Administration and Installation", 6.3; `.install_packages` of R's tools):

    Built: R 4.2.2; x86_64-pc-linux-gnu; 2025-06-01 00:00:00 UTC; unix       the platform is empty if nothing is compiled

Its files enter the image unchanged, so cregraph also reads the needs of its libraries.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cregraph.errors import CregraphError
from cregraph.formats import dcf
from cregraph.formats.elf import MAGIC, library
from cregraph.formats.tarball import Scanned, files, scan
from cregraph.formats.untrusted_tar import leads_out

__all__ = ["Built", "Description", "pack_folder", "read_built", "read_tarball", "unfit"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9.]*[A-Za-z0-9]")
_VERSION = re.compile(r"[0-9]+(?:[.-][0-9]+)+")

#: Files of editors, version control and compilers. They are not part of a package; R CMD build drops them too.
_LEFT_OUT = {".git", ".svn", ".hg", ".Rproj.user", ".Rhistory", ".RData", ".DS_Store", "__MACOSX", ".Rcheck"}
_COMPILED = (".o", ".so", ".sl", ".dylib", ".dll", ".a")
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
class Description:
    """Fields of DESCRIPTION. `depends` joins Depends and Imports. It and `linking` hold all entries, `R` included."""

    name: str
    version: str
    depends: tuple[dcf.Dependency, ...]
    linking: tuple[dcf.Dependency, ...]
    compiles: bool


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


def read_tarball(path: Path, *, what: str) -> Description:
    """Return the description of the source package at `path`. Checks every member and writes nothing.

    Raises CregraphError, naming `what` and the member, if it is unsafe to unpack.
    """
    _, fields, found = _scanned(path, what, hint="give a .tar.gz made by `R CMD build`")
    if "Built" in fields:
        raise CregraphError(
            f"{what} is a built package (DESCRIPTION: Built; expected a source package)",
            hint="give the .tar.gz made by `R CMD build`. For built packages of a dated snapshot, set extras.cran_binaries",
        )
    return found


def read_built(path: Path, *, what: str) -> Built | None:
    """Return the built package at `path`, or None for a source package. Checks every member and writes nothing.

    Raises CregraphError, naming `what` and the member, if it is unsafe to unpack or the tarball is not an R package.
    """
    held, fields, found = _scanned(path, what, hint="check the repository: the file is not an R package")
    field = fields.get("Built")
    if field is None:
        return None
    match = _BUILT.fullmatch(field.strip())
    if match is None:
        raise CregraphError(f"{what}: DESCRIPTION: Built: `{field[:120]}` does not have the form that R writes")
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


def _scanned(path: Path, what: str, *, hint: str) -> tuple[Scanned, dict[str, str], Description]:
    """Return the members of a package, and its DESCRIPTION as fields and parsed. `hint` is the hint of every error."""
    held = scan(path, what=what, wanted={"DESCRIPTION"}, hint=hint)
    if "DESCRIPTION" not in held.read:
        raise CregraphError(f"{what} has no DESCRIPTION in its top folder, so it is not an R package", hint=hint)
    fields = dcf.paragraph(dcf.decode(held.read["DESCRIPTION"]), what=f"{what}: DESCRIPTION")
    found = _describe(fields, what=what, has_src=any(name.startswith("src/") for name in held.files))
    if found.name != held.top:
        raise CregraphError(
            f"{what}: the top folder is `{held.top}`, but DESCRIPTION names the package `{found.name}`",
            hint="make it with `R CMD build`, which names the folder after the package",
        )
    return held, fields, found


def unfit(found: Built, *, r_minor: str, glibc: str | None) -> str | None:
    """Return why R `r_minor` (`4.2`) on x86-64 Linux with `glibc` cannot use a built package, or None if it can."""
    if not found.whole:
        return "does not contain Meta/package.rds"
    if ".".join(found.r.split(".")[:2]) != r_minor:
        return f"is built for R {found.r}"
    if found.os != "unix" or not re.fullmatch(r"|x86_64-[a-z0-9_]+-linux-gnu|x86_64-linux-gnu", found.platform):
        return f"is built for {found.platform or found.os}"
    if not found.x86_64:
        return "contains libraries for another processor"
    if found.needed:
        return f"needs {', '.join(found.needed)}"
    if glibc and found.glibc and _numbers(found.glibc) > _numbers(glibc):
        return f"needs glibc {found.glibc}, but the base has {glibc}"
    return None


def pack_folder(folder: Path) -> bytes:
    """Return the R package in `folder` as a tar. Equal files and execute bits give equal bytes.

    The top folder is the package's name. Files of version control, editors and compilers are left out.
    Raises CregraphError, naming the path, for a link that leads out of the folder or a special file such as a device.
    """
    if not (folder / "DESCRIPTION").is_file():
        raise CregraphError(f"`{folder}` has no DESCRIPTION, so it is not an R package")
    fields = dcf.paragraph(dcf.decode((folder / "DESCRIPTION").read_bytes()), what=f"`{folder}`: DESCRIPTION")
    top = _describe(fields, what=f"`{folder}`", has_src=False).name
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(_walk(folder), key=lambda p: p.relative_to(folder).as_posix().encode()):
            inner = path.relative_to(folder).as_posix()
            info = tarfile.TarInfo(f"{top}/{inner}")
            if path.is_symlink():
                info.type = tarfile.SYMTYPE
                info.linkname = str(path.readlink())
                if leads_out(info.name, info.linkname, top):
                    raise CregraphError(f"`{path}` is a link to `{info.linkname}`, outside of the package's folder")
                tar.addfile(info)
                continue
            if not path.is_file():
                raise CregraphError(f"`{path}` is neither a file nor a folder")
            data = path.read_bytes()
            info.size = len(data)
            info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _describe(fields: Mapping[str, str], *, what: str, has_src: bool) -> Description:
    """Parse the fields of a DESCRIPTION. Raises CregraphError, naming `what`, for a name or version that R refuses."""
    name, version = fields.get("Package", ""), fields.get("Version", "")
    if not _NAME.fullmatch(name):
        raise CregraphError(f"{what}: DESCRIPTION: Package: `{name[:80]}` is not the name of an R package")
    if not _VERSION.fullmatch(version):
        raise CregraphError(
            f"{what}: DESCRIPTION: Version: `{version[:80]}` is not a version that R accepts (expected 1.2 or 1.2-3)"
        )
    depends, linking = dcf.needs(fields, what=f"{what}: DESCRIPTION")
    return Description(
        name=name,
        version=version,
        depends=depends,
        linking=linking,
        compiles=has_src or fields.get("NeedsCompilation", "").lower() in ("yes", "true"),
    )


def _walk(folder: Path) -> list[Path]:
    found = []
    for here, folders, names in os.walk(folder):
        at = Path(here)
        links = [name for name in folders if (at / name).is_symlink()]
        folders[:] = [name for name in folders if name not in _LEFT_OUT and name not in links]
        in_src = at.relative_to(folder).parts[:1] == ("src",)
        for name in [*names, *links]:
            if name in _LEFT_OUT or name.endswith("~") or (in_src and name.endswith(_COMPILED)):
                continue
            found.append(at / name)
    return found


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
