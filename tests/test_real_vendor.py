"""What `vendor` copies of a real project, read by real R and locked against.

That it is enough for a build without network is shown by the test of circumstances in test_real_image.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cregraph.kinds import KINDS
from cregraph.lock import lock_file as locks
from cregraph.lock.lock_file import Lock
from tests.environment import Environment
from tests.environment.command import run_in
from tests.real_project import RealProject

pytestmark = [pytest.mark.environment]


@pytest.fixture(scope="module")
def vendored(built: RealProject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vendor") / "vendor"
    built.ok("vendor", str(folder), "team.yaml")
    return folder


@pytest.fixture(scope="module")
def locked(built: RealProject) -> Lock:
    return locks.loads(built.lock.read_text(), name="team.lock.json", kinds=KINDS)


@pytest.fixture
def r_root(built: RealProject, tmp_path: Path) -> Iterator[Path]:
    """The build root with the locked R in it, as tasks see it. The files are the store's own: they are only read."""
    store = Path(built.env["CREGRAPH_CACHE"])
    root = tmp_path / "root"
    prefix = built.environment.versions["prefix"].lstrip("/")
    environment = next(tree for tree in (store / "environments").glob("*/*") if (tree / prefix / "bin/R").exists())
    trees = [next((store / "roots").glob("*/*")), environment]
    for tree in trees:
        subprocess.run(["cp", "-al", f"{tree}/.", root], check=True)
    yield root
    shutil.rmtree(root)


def test_every_artifact_of_the_lock_is_there_and_nothing_else(vendored: Path, locked: Lock) -> None:
    wanted = {
        pin.artifact.sha256: pin.artifact.size
        for target in locked.targets
        for pin in target.pins
        if pin.artifact.kind not in ("path", "image")
    }
    indexes = ("repodata.json", "PACKAGES", "PACKAGES.gz", "index.html", "index.json", "sources.yaml")
    files = [
        path
        for path in vendored.rglob("*")
        if path.is_file()
        and not {"images", "recipes"} & set(path.relative_to(vendored).parts)
        and path.name not in indexes
        and path.suffix != ".metadata"
    ]
    assert sorted(path.stat().st_size for path in files) == sorted(wanted.values())
    named = {entry["digest"] for entry in json.loads((vendored / "images" / "index.json").read_text())["manifests"]}
    assert named == {f"sha256:{pin.artifact.sha256}" for pin in (locked.base, locked.build_root)}


def test_upgrading_against_it_moves_nothing(built: RealProject, vendored: Path, tmp_path: Path) -> None:
    project = RealProject.make(tmp_path / "p", built.environment)
    for name in ("locks", "bases"):
        shutil.copytree(built.folder / name, project.folder / name)
    (project.folder / "environment").unlink()
    before = project.lock.read_bytes()
    project.ok("lock", "team.yaml", "--upgrade", "--sources", str(vendored / "sources.yaml"), prefix=("unshare", "--net"))
    assert project.lock.read_bytes() == before


def test_r_reads_the_index_and_installs_from_it(vendored: Path, locked: Lock, r_root: Path, environment: Environment) -> None:
    (target,) = [target for target in locked.targets if target.kind == "r"]
    pins = {pin.name: pin.version for pin in target.pins if pin.artifact.source == "cran"}
    shutil.copytree(vendored / "cran", r_root / "cran")
    code = (
        'repos <- "file:///cran/2025-08-09"; found <- available.packages(repos = repos);'
        'cat(paste0(found[, "Package"], "=", found[, "Version"], "\\n"), sep = "");'
        'got <- download.packages("caTools", "/tmp", repos = repos, quiet = TRUE); cat(got[, 2], "\\n")'
    )
    said = run_in(r_root, f"{environment.versions['prefix']}/bin/Rscript", "--vanilla", "-e", code)
    *listed, got = said.split()
    assert dict(line.split("=") for line in listed) == pins
    assert (r_root / got.lstrip("/")).is_file()


def test_rattler_solves_the_whole_environment_from_the_channel(vendored: Path, locked: Lock) -> None:
    import asyncio

    import rattler

    (target,) = [t for t in locked.targets if t.kind == "conda" and any(pin.name == "r-base" for pin in t.pins)]
    channel = rattler.Channel((vendored / "conda" / "conda-forge").as_uri())
    virtual = [rattler.GenericVirtualPackage(rattler.PackageName("__glibc"), rattler.Version("2.36"), rattler.BuildString("0"))]
    solved = asyncio.run(
        rattler.solve(
            [channel], [str(ask.what) for ask in target.asks], platforms=["linux-64", "noarch"], virtual_packages=virtual
        )
    )
    assert {r.name.normalized: r.sha256.hex() for r in solved if r.sha256} == {p.name: p.artifact.sha256 for p in target.pins}
