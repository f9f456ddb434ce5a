"""Unpacking Debian's binary packages into a prefix: /usr and the multiarch folders become `bin`, `lib`, `include`."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from .apt import deb_stream
from .command import run

_DROPPED = re.compile(
    r"share/(?:doc|man|info|lintian|locale|bash-completion|applications|icons|binfmts|bug|gcc|texmf|doc-base|menu|pixmaps"
    r"|gdb|perl5|python3?|apport|aclocal|metainfo)/"
    r"|lib/(?:tmpfiles\.d|systemd|udev|sysusers\.d|valgrind|mime|debug)/|etc/(?:ld\.so\.conf\.d|init\.d|X11|profile\.d)/"
    r"|s?bin/(?:update-|c_rehash)|.*\.(?:a|la)$|.*/sitecustomize\.py$"
)


def place(path: str) -> str | None:
    """Where a file of a Debian package is under a prefix; None for what is left out."""
    path = path.removeprefix("./").removeprefix("/")
    path = path.removeprefix("usr/")
    path = re.sub(r"^lib64/", "lib/", path)
    path = re.sub(r"^(lib|include)/x86_64-linux-gnu(?=/|$)", r"\1", path)
    path = re.sub(r"^lib/(?:blas|lapack)/", "lib/", path)
    path = re.sub(r"^(?:share|etc)/R/", lambda found: "lib/R/etc/" if found[0] == "etc/R/" else "lib/R/", path)
    path = path.replace("lib/R/site-library/", "lib/R/library/")
    return None if _DROPPED.match(path) or path.startswith(("var/", "boot/")) else path


def unpack(debs: list[Path], into: Path) -> None:
    """Unpack packages into one prefix; the copyright file of each goes to `info/licenses`."""
    for deb in debs:
        with deb_stream(deb) as process:
            assert process.stdout is not None
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for entry in tar:
                    _entry(tar, entry, into, deb.name.split("_")[0])
    _without_dangling(into)


def _entry(tar: tarfile.TarFile, entry: tarfile.TarInfo, into: Path, package: str) -> None:
    if entry.isdir():
        return
    name = place(entry.name)
    if entry.name.endswith("/copyright") and entry.isreg():
        name = f"info/licenses/{package}"
    if name is None:
        return
    path = into / name
    if path.exists() and "x86_64-linux-gnu" not in entry.name:
        return  # of a header and its multiarch twin the twin is the real one
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if entry.issym():
        meant = os.path.normpath(PurePosixPath("/") / PurePosixPath(entry.name).parent / entry.linkname)
        target = place(meant)
        if target is not None and target != name:
            path.symlink_to(os.path.relpath(target, str(PurePosixPath(name).parent)))
    elif entry.islnk():
        target = place(entry.linkname)
        if target is not None:
            os.link(into / target, path)
    elif entry.isreg():
        data = tar.extractfile(entry)
        assert data is not None
        with path.open("wb") as out:
            shutil.copyfileobj(data, out)
        path.chmod(0o755 if entry.mode & 0o100 else 0o644)


def _without_dangling(tree: Path) -> None:
    """Remove links to what was left out; a library's link may lead to another package's file."""
    for path in sorted(tree.rglob("*")):
        if path.is_symlink() and not path.exists() and not re.match(r"lib/lib[^/]*\.so", str(path.relative_to(tree))):
            path.unlink()


def own_libraries(tree: Path, patchelf: Path) -> None:
    """Give every program and library of a prefix a run path to the prefix's `lib`, and to R's own where it is R's."""
    groups: dict[str, list[Path]] = {}
    for path in tree.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            head = file.read(18)
        if head[:4] == b"\x7fELF" and head[16] in (2, 3):
            groups.setdefault(_run_path(str(path.relative_to(tree))), []).append(path)
    for run_path, files in sorted(groups.items()):
        run(patchelf, "--set-rpath", run_path, *sorted(files))


def _run_path(name: str) -> str:
    here = str(PurePosixPath(name).parent)

    def to(folder: str) -> str:
        way = os.path.relpath(folder, here)
        return "$ORIGIN" if way == "." else f"$ORIGIN/{way}"

    return ":".join([to("lib/R/lib"), to("lib")] if name.startswith("lib/R/") else [to("lib")])
