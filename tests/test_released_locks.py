"""`locks/` at the root: the demo's lock as each released version wrote it. This version reads and builds all of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cregraph

LOCKS = Path(__file__).parent.parent / "locks"
HERE = LOCKS / f"demo-{cregraph.__version__}"
RELEASES = sorted(path.name for path in LOCKS.iterdir() if path.is_dir())


def ran(*words: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-m", "cregraph", *words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_this_version_writes_the_lock_that_the_repository_holds(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """`pytest --update-golden` replaces it. After a release, that is allowed in the folder of the next version only."""
    reference = ran("demo", "demo", cwd=tmp_path)
    made = tmp_path / "demo"
    if request.config.getoption("--update-golden"):
        shutil.rmtree(HERE, ignore_errors=True)
        ran("vendor", str(HERE / "sources"), "demo.yaml", cwd=made)
        for path in (Path("demo.yaml"), Path("locks/demo.lock.json"), *(p.relative_to(made) for p in (made / "bases").iterdir())):
            (HERE / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made / path, HERE / path)
        (HERE / "reference.txt").write_text(reference, encoding="utf-8")
    assert (HERE / "reference.txt").read_text(encoding="utf-8") == reference
    assert (HERE / "locks/demo.lock.json").read_bytes() == (made / "locks/demo.lock.json").read_bytes()


@pytest.mark.parametrize("release", RELEASES)
def test_a_released_lock_is_fresh_and_builds_to_the_same_digest(release: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(LOCKS / release, project)
    (project / "cache").mkdir()  # a store of its own
    sources = ("--sources", "sources/sources.yaml")
    assert ran("lock", "demo.yaml", "--check", *sources, cwd=project) == "locks/demo.lock.json is fresh\n"
    built = ran("build", "demo.yaml", "--output", "oci:image", *sources, cwd=project)
    assert built == (project / "reference.txt").read_text(encoding="utf-8")
