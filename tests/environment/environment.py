"""The whole environment: what it has, where, and the making of it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import yaml

from . import base as base_image
from . import channel, compiled, conda, cran, debtree, oci, odd, roots, simple, tarballs
from .apt import Suite, archive_address
from .command import run
from .parts import EnvironmentUnavailable, Progress, alone, part, sweep
from .serving import Server, serve

VERSION = "4"  # of what the environment holds and of its bytes: a new one is made beside the old
INVALID = "https://example.invalid/"  # where the profile says that the tarballs are


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A made environment. All paths are folders below `root`; nothing in them may be changed."""

    root: Path
    base: Path  # OCI layout, tag 2.5.0
    build_root: Path  # OCI layout, tag bookworm
    conda: Path  # holds conda-forge/{linux-64,noarch}
    cran: Path  # holds <date>/src/contrib
    simple: Path  # a package index
    tarballs: Path  # holds what the profile has under `INVALID`
    versions: Mapping[str, str]

    def serve(self) -> AbstractContextManager[Server]:
        """Serve the whole environment over HTTP on loopback."""
        return serve(self.root)

    def sources(self, address: str | None = None) -> str:
        """The text of a `sources.yaml` for a server's address, or for `file://` without one."""
        at = address or self.root.as_uri()

        def under(path: Path) -> str:
            return f"{at}/{path.relative_to(self.root).as_posix()}"

        return yaml.safe_dump(
            {
                "conda": {"conda-forge": under(self.conda / "conda-forge")},
                "cran": under(self.cran) + "/{date}",
                "pypi": under(self.simple),
                "url": {INVALID: under(self.tarballs) + "/"},
            }
        )

    def profile(self, **changes: object) -> str:
        """The text of the environment's profile with this machine's places of the base and the build root in it.

        `changes` replace whole top-level sections.
        """
        text = (Path(__file__).parent / "profile.yaml").read_text()
        profile = yaml.safe_load(text.replace("@BASE@", str(self.base)).replace("@BUILD_ROOT@", str(self.build_root)))
        return yaml.safe_dump({**profile, **changes}, sort_keys=False)


def place() -> Path:
    """Return the folder of this version of the environment, in $CREGRAPH_TEST_ENVIRONMENT or the user's cache folder."""
    if named := os.environ.get("CREGRAPH_TEST_ENVIRONMENT"):
        return Path(named).absolute() / VERSION
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).absolute() / "cregraph-test-environment" / VERSION


def make(progress: Progress = lambda said: None) -> Environment:
    """Make the environment where it is missing, and give it.

    Raises EnvironmentUnavailable when this machine cannot: not root, not Debian 12 on x86-64, no archive, no package index.
    """
    root = place()
    if not _made(root):
        _fit()
        with alone(root):
            if not _made(root):
                sweep(root)
                _make(root, progress)
    return _world(root)


def _made(root: Path) -> bool:
    return (root / "environment.json").exists() and (root / _base_folder()).exists()


def _fit() -> None:
    if os.name != "posix" or os.geteuid() != 0:
        raise EnvironmentUnavailable("making the test environment needs root")
    if os.uname().machine != "x86_64":
        raise EnvironmentUnavailable("the test environment is made on x86-64 only")
    for program in ("apt-get", "dpkg-deb", "unshare"):
        if shutil.which(program) is None:
            raise EnvironmentUnavailable(f"making the test environment needs {program}: it is made from Debian's packages")
    if shutil.which("mmdebstrap") is None:
        if not list(Path("/var/lib/apt/lists").glob("*Packages*")):
            run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "mmdebstrap")


def _make(root: Path, progress: Progress) -> None:
    started = time.monotonic()
    address = archive_address()
    suites = {name: Suite.open(root / "downloads" / name, name, address) for name in cran.PACKAGES}
    bookworm = suites["bookworm"]
    # The root file systems are dpkg's work and mostly waiting: they are made beside the rest.
    with ThreadPoolExecutor(2) as pool:
        built = pool.submit(roots.build_root, root, address, progress)
        parts: list[Future[object]] = [
            pool.submit(part, root, "trees/tools", lambda into: _tools(bookworm, into), progress),
            pool.submit(part, root, "tarballs", tarballs.write, progress),
            pool.submit(part, root, "cran", lambda into: cran.snapshots(suites, into), progress),
            pool.submit(part, root, "downloads/simple", simple.fetch, progress),
            pool.submit(base_image.base, root, bookworm, address, progress),
        ]
        for one in parts:
            one.result()
        _, build_tree = built.result()
    part(root, "simple", lambda into: simple.index(root / "downloads/simple", into), progress)
    patchelf = root / "trees/tools/bin/patchelf"
    if not (root / "conda").exists():
        debian = part(root, "channel-debian", lambda into: _debian(bookworm, patchelf, into), progress)
        part(root, "conda", lambda into: _conda(suites["trixie"], build_tree, debian, patchelf, into), progress)
    facts = root / ".environment.json"
    facts.write_text(json.dumps(_facts(root), indent=1) + "\n")
    facts.replace(root / "environment.json")
    for folder in ("channel-debian", "trees"):  # asked for no more
        shutil.rmtree(root / folder, ignore_errors=True)
    progress(f"the test environment is made: {time.monotonic() - started:.0f} s, {root}")


def _tools(suite: Suite, into: Path) -> None:
    debtree.unpack(list(suite.debs(["patchelf"]).values()), into)


def _debian(suite: Suite, patchelf: Path, into: Path) -> None:
    channel.build(suite, channel.plan(suite), patchelf, into, into / "scratch")
    (into / "scratch").rmdir()


def _conda(trixie: Suite, build_tree: Path, debian: Path, patchelf: Path, into: Path) -> None:
    forge, workshop = into / "conda-forge", into / "workshop"
    shutil.copytree(debian, forge, copy_function=os.link)
    compiled.workshop(build_tree, forge, workshop)
    compiled.compile_all(trixie, workshop, patchelf, forge, into / "scratch")
    odd.write(workshop, forge)
    conda.index(forge)
    for folder in ("workshop", "scratch"):
        shutil.rmtree(into / folder)


def _facts(root: Path) -> dict[str, str]:
    return {
        "environment": VERSION,
        "r": "4.2.2",
        "python": "3.11",
        "python_full": "3.11.2",
        "glibc": "2.36",
        "snowbooks_tag": base_image.TAG,
        "base_digest": oci.digest(root / _base_folder()),
        "cran_first": cran.DATES[0],
        "cran_second": cran.DATES[-1],
        "snowflakeR": "0.1.0",
        "RSnowflake": "0.2.0",
        "prefix": compiled.PREFIX,
    }


def _base_folder() -> str:
    return "base-full" if os.environ.get("CREGRAPH_ENVIRONMENT_FULL_BASE") == "1" else "base"


def _world(root: Path) -> Environment:
    return Environment(
        root=root,
        base=root / _base_folder(),
        build_root=root / "build-root",
        conda=root / "conda",
        cran=root / "cran",
        simple=root / "simple",
        tarballs=root / "tarballs",
        versions=MappingProxyType(json.loads((root / "environment.json").read_text())),
    )
