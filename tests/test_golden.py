"""The bytes that assembly 1 makes of a tiny project stand in the repository: no change of them goes unnoticed."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cregraph.digest import ASSEMBLY
from tests.golden_tiny import GOLDEN, TINY, build

DIGESTS = GOLDEN / "tiny.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("golden") / "tiny"
    return folder, build(folder)


def test_these_bytes_are_this_assembly(made: tuple[Path, dict[str, Any]], request: pytest.FixtureRequest) -> None:
    """If this fails, every lock of every user would get another digest under its old tag: undo the change, or raise ASSEMBLY.

    Under the same lock and assembly the digests are not rewritten, whatever pytest is told.
    """
    found = {"assembly": ASSEMBLY, **made[1]}
    kept = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    same = (kept.get("assembly"), kept.get("lock")) == (found["assembly"], found["lock"])
    if request.config.getoption("--update-golden") and not same:
        DIGESTS.write_text(json.dumps(found, indent=1) + "\n")
        kept = found
    assert found == kept, f"these bytes are not assembly {ASSEMBLY}: raise ASSEMBLY in cregraph/digest.py, or undo the change"


def test_the_tiny_projects_lock_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cregraph", "lock", "tiny.yaml", "--check"], cwd=TINY, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "locks/tiny.lock.json is fresh\n"), done.stderr


def test_the_tiny_project_holds_what_is_odd(made: tuple[Path, dict[str, Any]]) -> None:
    """Else the digests would tie down less than they seem to."""
    folder, found = made
    members: dict[str, tarfile.TarInfo] = {}
    texts: dict[str, bytes] = {}
    sizes = []
    for digest in found["layers"][2:]:
        path = folder / "image/blobs/sha256" / digest.removeprefix("sha256:")
        sizes.append(path.stat().st_size)
        with tarfile.open(path) as tar:
            for member in tar:
                members[member.name] = member
                if member.isreg():
                    reader = tar.extractfile(member)
                    texts[member.name] = reader.read() if reader else b""
    env = "opt/tiny/env"
    assert len(sizes) >= 2
    assert max(len(name) for name in members) > 290
    assert members[f"{env}/share/Name"].isreg() and members[f"{env}/share/name"].isreg()
    assert f"{env}/share/ünd" in members
    assert members[f"{env}/share/first"].islnk() and members[f"{env}/share/first"].linkname == f"{env}/share/a-second"
    assert members[f"{env}/share/soft"].issym()
    assert texts[f"{env}/bin/R"] == b"#!/opt/tiny/env/bin/sh\n"
    library = texts[f"{env}/lib/R/lib/libR.so"]
    assert library.startswith(b"\x7fELF/opt/tiny/env\0\0") and b"\0tail\0/opt/tiny/env/x\0\0" in library
    assert members[f"{env}/lib/R/big"].size > 1 << 20  # more than one gzip member
    assert texts[f"{env}/etc/old.conf"] == b"root=/opt/tiny/env\n"
    assert f"{env}/bin/tiny" in members and f"{env}/lib/python3.11/site-packages/tiny/__init__.py" in members
    assert texts[f"{env}/lib/R/library/tinybuilt/libs/tinybuilt.so"].startswith(b"\x7fELF")
    assert any(name.endswith("/bin/my-tool") for name in members) and any(name.endswith("/bin/run") for name in members)
    assert members["opt/tiny/tree/tree/run.sh"].mode == 0o755
    assert (members["home/jupyter/.tiny/text"].uid, members["home/jupyter/.tiny"].uid) == (1000, 1000)
    assert members["opt/tiny/link"].linkname == "tree/deep"
