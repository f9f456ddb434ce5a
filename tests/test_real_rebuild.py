"""`build --rebuild` on real software: what comes out again, and what a package did that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.real_project import RealProject
from tests.test_real_image import copy_of

pytestmark = [pytest.mark.environment]


def package(folder: Path, name: str, code: str, *, imports: str = "", exports: str = "") -> None:
    (folder / "R").mkdir(parents=True, exist_ok=True)
    needs = f"Imports: {imports}\n" if imports else ""
    (folder / "DESCRIPTION").write_text(f"Package: {name}\nVersion: 1.0\nTitle: Ours\nLicense: MIT\n{needs}")
    taken = f"importFrom({imports}, built)\n" if imports else ""
    (folder / "NAMESPACE").write_text(f"export({exports})\n{taken}")
    (folder / "R" / "a.R").write_text(code)


def unsteady(folder: Path) -> None:
    """A package that does all that keeps a result from coming out again."""
    package(
        folder,
        "unsteady",
        "built <- Sys.time()\ndraw <- stats::runif(3)\nwhere <- tempfile()\nmixed <- sample(letters)\nsteady <- 1:3\n",
        exports="built, draw, where, mixed",
    )
    (folder / "src").mkdir()
    (folder / "src" / "a.c").write_text('#include "stamp.h"\nconst char *stamp(void) { return "built " STAMP; }\n')
    with (folder / "NAMESPACE").open("a") as file:
        file.write("useDynLib(unsteady)\n")
    configure = folder / "configure"
    configure.write_text(
        "#!/bin/sh\n"
        'printf \'#define STAMP "%s"\\n\' "$(date)" > src/stamp.h\n'
        "mkdir -p inst; date > inst/when.txt; date | gzip > inst/when.gz\n"
    )
    configure.chmod(0o755)


def test_what_does_not_come_out_again_is_named_with_file_cause_and_cure(built: RealProject, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path / "p")
    (project.folder / "locks" / "team.outputs.json").unlink()
    unsteady(project.folder / "unsteady")
    package(project.folder / "follower", "follower", "late <- built\n", imports="unsteady", exports="late")
    project.edit({"tarballs": {"unsteady": "./unsteady", "follower": "./follower"}}, cran=["bitops"])
    project.ok("lock", "team.yaml")

    done = project.run("build", "team.yaml", "--rebuild", "--json", "--output", "oci:image")
    assert done.code == 1, done.err
    answer = done.json["images"][0]["rebuild"]
    assert answer["equal"] is False
    assert answer["compared"]["tasks"] == 4 and answer["compared"]["segments"] > 200
    found = {(one["what"], one["name"]): one for one in answer["differences"]}
    assert {what for what, _ in found} == {"task", "image"}
    assert {name for what, name in found if what == "task"} == {
        "unsteady",
        "follower",
    }  # bitops and the wheel of rpy2 came out again
    assert found["task", "follower"]["because"] == ["unsteady"]
    causes = {(f["file"], f["inside"]): f["cause"] for f in found["task", "unsteady"]["findings"]}
    assert causes["R/unsteady.rdb", "built"] == "time"
    assert causes["R/unsteady.rdb", "draw"] == "random"
    assert causes["R/unsteady.rdb", "where"] == "path"
    assert causes["R/unsteady.rdb", "mixed"] == "order"
    assert causes["when.txt", "line 1"] == causes["when.gz", "line 1"] == "time"
    assert causes["libs/unsteady.so", "section .rodata"] == "time"
    assert not [inside for file, inside in causes if file.endswith(".rdb") and inside == "steady"]
    assert all(f["cure"] for f in found["task", "unsteady"]["findings"])
    assert sorted(p.name for p in Path(found["task", "unsteady"]["kept"]).iterdir()) == ["again.tar", "first.tar"]
    # Nothing of it is recorded or published.
    assert not (project.folder / "locks" / "team.outputs.json").exists()
    assert not (project.folder / "image").exists()

    package(project.folder / "unsteady", "unsteady", "built <- function() Sys.time()\n", exports="built")
    (project.folder / "unsteady" / "configure").unlink()
    (project.folder / "unsteady" / "src" / "a.c").unlink()
    project.ok("lock", "team.yaml")
    mended = project.ok("build", "team.yaml", "--rebuild")
    assert "built again, and equal to the byte: 4 tasks" in mended.err
    recorded = json.loads((project.folder / "locks" / "team.outputs.json").read_text())
    assert sorted(row["name"] for row in recorded["tasks"]) == ["bitops", "follower", "rpy2-rinterface", "unsteady"]
