"""Debian's Python 3.11 for arm64 with the wheels that an image's assembly needs, as a tree that qemu-user can run.

Nothing is installed: packages are unpacked into a folder beside the environment, wheels beside them.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import zipfile
from pathlib import Path

from .apt import Suite, archive_address
from .command import run
from .environment import place
from .parts import EnvironmentUnavailable, Progress, alone, part, sweep, words

VERSION = "aarch64-1"  # of what the tree holds
_DEBS = words("""
    python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libbz2-1.0
    liblzma5 libssl3 libffi8 libcrypt1 libuuid1
""")
_WHEELS = words("""
    deflate zstandard pyyaml packaging typer click shellingham rich pygments markdown-it-py mdurl typing-extensions
    annotated-doc
""")
_TAGS = ("manylinux2014_aarch64", "manylinux_2_28_aarch64")


def interpreter(progress: Progress = lambda said: None) -> tuple[Path, Path, Path]:
    """The root that qemu is told of, the interpreter in it, and the folder of its packages; made where they are missing.

    Raises EnvironmentUnavailable when this machine cannot: no apt, no archive, no package index.
    """
    if shutil.which("dpkg-deb") is None or shutil.which("apt-get") is None:
        raise EnvironmentUnavailable("Debian's Python for arm64 needs apt-get and dpkg-deb")
    folder = place().parent / VERSION
    with alone(folder):
        sweep(folder)
        part(folder, "root", lambda into: _root(folder / "downloads", into), progress)
        # Versions are those of the environment that runs the tests; another one there, another folder here.
        versions = _versions()
        key = "-".join(f"{name}{versions[name]}" for name in ("deflate", "zstandard", "pyyaml"))
        site = part(folder, f"site-{key}", lambda into: _site(versions, into), progress)
    return folder / "root", folder / "root/usr/bin/python3.11", site


def _root(downloads: Path, into: Path) -> None:
    suite = Suite.open(downloads, "bookworm", archive_address(), architecture="arm64")
    for deb in suite.debs(_DEBS).values():
        run("dpkg-deb", "--extract", deb, into)
    shutil.rmtree(downloads)
    for folder in ("share", "lib/python3/dist-packages"):
        shutil.rmtree(into / "usr" / folder, ignore_errors=True)


def _versions() -> dict[str, str]:
    found = {}
    for name in _WHEELS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # not every release of typer needs all of them
            continue
    return found


def _site(versions: dict[str, str], into: Path) -> None:
    wheels = into / "wheels"
    platforms = [word for tag in _TAGS for word in ("--platform", tag)]
    asked = [f"{name}=={version}" for name, version in versions.items()]
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", "3.11")
    run(*pip, *platforms, "--dest", wheels, *asked)
    for wheel in wheels.iterdir():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(into)
    shutil.rmtree(wheels)
