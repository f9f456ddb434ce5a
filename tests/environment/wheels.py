"""Distributions of the Python index, fetched with the ordinary clients as they are set up on the machine."""

from __future__ import annotations

import sys
from pathlib import Path

from .command import run
from .parts import EnvironmentUnavailable

_TARGET = ("--python-version", "3.11", "--only-binary", ":all:", "--implementation", "cp", "--abi", "cp311")
_PLATFORMS = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)]
_PLATFORMS += ["--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64", "--platform=linux_x86_64"]


def uv() -> Path:
    """The uv program of this environment."""
    try:
        from uv import find_uv_bin
    except ImportError as missing:
        raise EnvironmentUnavailable("uv is not installed in this environment") from missing
    return Path(find_uv_bin())


def fetch(requirements: list[str], into: Path, *, resolve: bool = False) -> None:
    """Download wheels for CPython 3.11 on Linux (glibc 2.28, x86-64); `resolve` first finds what else they need."""
    if resolve:
        wanted = into.with_name(into.name + ".in")
        wanted.write_text("\n".join(requirements))
        command = (uv(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-python-downloads", wanted)
        target = ("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28")
        requirements = run(*command, *target).split()
        wanted.unlink()
    download(requirements, into, *_TARGET, "--abi", "abi3", "--abi", "none", *_PLATFORMS)


def download(requirements: list[str], into: Path, *options: str) -> None:
    """`pip download` of exactly these, nothing that they need."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps")
    run(*pip, "--dest", into, *options, *requirements)
