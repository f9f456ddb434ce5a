"""Packages that do not compile, in the real sandbox with a real R: what is said, kept, skipped. And what `plan` says there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.real_project import RealProject

pytestmark = [pytest.mark.environment]

#: R packages of the project: what their C file is, and what their DESCRIPTION says beyond the usual.
OWN = {
    "aheader": ("#include <libxml/parser.h>\n", ""),
    "blibrary": ("void nothing(void) {}\n", ""),
    "cneeds": ("void nothing(void) {}\n", "Imports: aheader\n"),
    "dgood": ("void nothing(void) {}\n", ""),
    "enetwork": ("void nothing(void) {}\n", ""),
}


@pytest.fixture
def project(built: RealProject, tmp_path: Path) -> RealProject:
    made = RealProject.make(tmp_path / "p", built.environment, store=Path(built.env["CREGRAPH_CACHE"]))
    for name in ("locks", "bases"):
        shutil.copytree(built.folder / name, made.folder / name)
    for name, (source, fields) in OWN.items():
        folder = made.folder / name
        (folder / "src").mkdir(parents=True)
        text = f"Package: {name}\nVersion: 1.0\nTitle: Ours\nLicense: MIT\nNeedsCompilation: yes\n{fields}"
        (folder / "DESCRIPTION").write_text(text)
        (folder / "NAMESPACE").write_text(f"useDynLib({name})\n" + (f"import({fields.split()[1]})\n" if fields else ""))
        (folder / "src" / "a.c").write_text(source)
    (made.folder / "blibrary/src/Makevars").write_text("PKG_LIBS = -ludunits2\n")
    configure = made.folder / "enetwork/configure"
    configure.write_text(
        "#!/bin/sh\ncat </dev/tcp/192.0.2.1/80 2>/dev/null; echo 'curl: (6) Could not resolve host: files.example' >&2; exit 1\n"
    )
    configure.chmod(0o755)
    shutil.copyfile(built.lock, made.folder / "locks" / "before.lock.json")
    made.edit({"tarballs": {"snowflakeR": made_url(built), **{name: f"./{name}" for name in OWN}}})
    made.ok("lock", "team.yaml")
    return made


def made_url(built: RealProject) -> str:
    import yaml

    return str(yaml.safe_load((built.folder / "team.yaml").read_text())["tarballs"]["snowflakeR"])


def test_packages_that_fail_are_told_with_cause_way_out_log_and_what_is_skipped(project: RealProject) -> None:
    planned = project.ok("plan", "team.yaml", "--against", "locks/before.lock.json", "--json").json
    assert sorted(planned["tasks"]["make"]) == sorted(OWN)
    assert {
        row["cause"]["roots"][0]["how"] for row in planned["things"] if row["subject"] == "task" and row["what"] == "make"
    } == {"added"}
    assert planned["seconds"]["expected"] > 0  # by the weight of other packages

    done = project.run("build", "team.yaml", "--keep-going", "--jobs", "2")

    assert done.code == 2
    assert "fatal error: libxml/parser.h: No such file or directory" in done.err
    assert "aheader: the header libxml/parser.h is missing: ask for conda's libxml2-devel" in done.err
    assert "the library udunits2 (-ludunits2) is missing: ask for conda's udunits2 in extras.conda_r" in done.err
    assert "the build needs the network, which no task has" in done.err
    assert "skipped because of it: cneeds" in done.err
    assert "the conda package r-aheader" not in done.err  # the channel's index lists none
    log = next(Path(line.partition("its log, ")[2].rstrip(":")) for line in done.err.splitlines() if "its log, " in line)
    assert log.is_file()
    assert sorted(project.ok("plan", "team.yaml", "--json").json["tasks"]["make"]) == [
        "aheader",
        "blibrary",
        "cneeds",
        "enetwork",
    ]  # dgood is kept

    first = project.run("build", "team.yaml", "--jobs", "1")
    assert first.code == 2
    assert first.err.count("failed: ") == 1  # nothing new was begun after it
    assert "not begun: " in first.err


def test_a_bump_on_real_packages_is_led_back_to_its_line_and_takes_as_long_as_it_took(built: RealProject, tmp_path: Path) -> None:
    project = RealProject.make(tmp_path / "p", built.environment, store=Path(built.env["CREGRAPH_CACHE"]))
    for name in ("locks", "bases"):
        shutil.copytree(built.folder / name, project.folder / name)
    (tmp_path / "before.json").write_bytes(project.lock.read_bytes())
    project.edit(cran=["doParallel", "caTools", "xts", "lmtest", "reshape2", "bitops==1.0-7"])
    project.ok("lock", "team.yaml")
    shutil.copyfile(tmp_path / "before.json", project.folder / "locks" / "before.lock.json")
    planned = project.ok("plan", "team.yaml", "--against", "locks/before.lock.json", "--json").json
    tasks = {row["name"]: row for row in planned["things"] if row["subject"] == "task"}

    why = "bitops 1.0-9 -> 1.0-7 (extras.cran of team.yaml)"
    assert tasks["bitops"]["cause"]["words"] == why
    assert tasks["caTools"]["cause"]["words"] == f"its needed task {why}"
    assert [row["name"] for row in tasks.values() if row["cause"]] == ["bitops", "caTools"]
    made = {row["name"]: row["basis"] for row in tasks.values() if row["what"] == "make"}
    assert set(made.values()) <= {"package", "task"}
    layers = [row for row in planned["things"] if row["subject"] == "layer" and row["cause"]]
    assert {root["name"] for row in layers for root in row["cause"]["roots"]} <= {"bitops"}
