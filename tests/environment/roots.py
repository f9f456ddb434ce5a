"""Root file systems of Debian, trimmed, and the build root among them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from . import oci
from .command import run
from .parts import EPOCH, Progress, part, words

_TRIM = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/i18n/*",
]
_LEFTOVERS = [
    "var/log/dpkg.log",
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/log/apt",
    "var/cache/ldconfig/aux-cache",
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/cache/debconf/templates.dat-old",
    "var/cache/debconf/config.dat-old",
    "etc/resolv.conf",
    "etc/hostname",
]
# What compiling R packages needs: the compilers and what configure scripts and makefiles call. No R, no Python.
_BUILD = words("gcc g++ gfortran make libc6-dev binutils bzip2 xz-utils zip unzip patch file pkgconf gawk")


def debootstrap(into: Path, address: str, include: list[str]) -> None:
    """A trimmed minimal Debian 12 with `include`, in the folder `into`."""
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in _TRIM]
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    run(
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory", "--architectures=amd64"),
        *(["--keyring=" + str(keyring)] if keyring.exists() else []),
        *("--components=main", '--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "3"', *excluded),
        *(["--include=" + ",".join(include)] if include else []),
        *("bookworm", into, f"deb {address} bookworm main"),
        env={"SOURCE_DATE_EPOCH": str(EPOCH)},
    )
    for left in _LEFTOVERS:
        path = into / left
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
        os.chown(into / folder, 0, 0)  # apt's or root's, as it happened
    (into / "etc/apt/sources.list").write_text("")  # no address of this machine goes into an image


def build_root(root: Path, address: str, progress: Progress) -> tuple[Path, Path]:
    """The build root as an OCI layout (tag `bookworm`), and unpacked, as a place to compile in."""

    def tree(into: Path) -> None:
        debootstrap(into / "root", address, _BUILD)

    def layout(into: Path) -> None:
        one = oci.layer(tree_ / "root", into, before={}, created_by="Debian 12 with compilers")
        config: dict[str, object] = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
        labels = {"org.opencontainers.image.title": "build root of cregraph's tests"}
        oci.finish(into, [one], tag="bookworm", config=config, labels=labels)

    if (root / "build-root").exists() and (root / "conda").exists():  # then nobody compiles any more
        return root / "build-root", root / "trees/build/root"
    tree_ = part(root, "trees/build", tree, progress)
    return part(root, "build-root", layout, progress), tree_ / "root"
