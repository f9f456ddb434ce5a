"""What is said of a lock's packages on stderr: link scripts that nobody runs, sources where built packages are asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden_tiny import TINY
from tests.test_conda_kind import Made, Part
from tests.test_r_kind import description, tarball

SCRIPTS = "cregraph does not run these link scripts: tiny-odd 1.0 (bin/.tiny-odd-post-link.sh)\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    shutil.copytree(TINY, tmp_path / "tiny")
    return tmp_path / "tiny"


def cregraph(folder: Path, *words: str) -> str:
    """What a command that succeeds says on stderr."""
    env = {**os.environ, "CREGRAPH_CACHE": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-m", "cregraph", *words], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_link_scripts_are_said_when_their_package_is_put_together_and_by_each_lock_that_knows_it(own: Path) -> None:
    assert SCRIPTS in cregraph(own, "build", "tiny.yaml")
    assert SCRIPTS not in cregraph(own, "build", "tiny.yaml")  # nothing was put together
    assert SCRIPTS in cregraph(own, "lock", "tiny.yaml", "--upgrade")
    assert SCRIPTS not in cregraph(own, "lock", "tiny.yaml")  # fresh


def test_a_name_of_a_link_script_cannot_command_the_terminal(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cregraph.cli.notes import tell
    from cregraph.kinds import KINDS
    from cregraph.lock.lock_file import loads
    from cregraph.store import Store

    lock = (own / "locks/tiny.lock.json").read_text()
    made = Made(name="tiny-odd", parts=[Part(path="bin/.\x1b[2Jx-post-link.sh")]).write(own / "evil")
    store = Store(own / "cache")
    digest = store.add(made.read_bytes())
    (old,) = (line.split('"sha256": "')[1][:64] for line in lock.splitlines() if line.startswith('{"name": "tiny-odd"'))

    tell(loads(lock.replace(old, digest), name="x", kinds=KINDS), store)

    said = capsys.readouterr().err
    assert r"bin/.\x1b[2Jx-post-link.sh" in said and "\x1b" not in said


def test_what_is_compiled_though_built_packages_are_asked_for_is_said_with_the_reason_once(own: Path) -> None:
    recipe = own / "recipes/tiny.yaml"
    recipe.write_text(recipe.read_text().replace("binaries: bookworm", "binaries: jammy"))
    (own / "world/cran/2025-06-01/src/contrib/tinybuilt_1.0-2.tar.gz").write_bytes(tarball(description("tinybuilt", "1.0-2")))
    said = "compiled, because the built package is not usable (jammy/4.4: the repository does not have it): tinybuilt\n"
    assert said in cregraph(own, "lock", "tiny.yaml")
    assert said not in cregraph(own, "lock", "tiny.yaml", "--upgrade-package", "tiny-odd")
