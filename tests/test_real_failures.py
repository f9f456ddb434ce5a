"""Packages that do not compile, in the real sandbox with a real R: what is said, kept, skipped. And what `plan` says there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

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


def with_tarballs(built: RealProject, tmp_path: Path, own: Mapping[str, tuple[str, str]]) -> RealProject:
    """A project with R packages of its own, which is not locked yet."""
    made = RealProject.make(tmp_path / "p", built.environment, store=Path(built.env["CREGRAPH_CACHE"]))
    for name in ("locks", "bases"):
        shutil.copytree(built.folder / name, made.folder / name)
    for name, (source, fields) in own.items():
        folder = made.folder / name
        (folder / "src").mkdir(parents=True)
        text = f"Package: {name}\nVersion: 1.0\nTitle: Ours\nLicense: MIT\nNeedsCompilation: yes\n{fields}"
        (folder / "DESCRIPTION").write_text(text)
        (folder / "NAMESPACE").write_text(f"useDynLib({name})\n" + (f"import({fields.split()[1]})\n" if fields else ""))
        (folder / "src" / "a.c").write_text(source)
    made.edit({"tarballs": {"snowflakeR": made_url(built), **{name: f"./{name}" for name in own}}})
    return made


@pytest.fixture
def project(built: RealProject, tmp_path: Path) -> RealProject:
    made = with_tarballs(built, tmp_path, OWN)
    (made.folder / "blibrary/src/Makevars").write_text("PKG_LIBS = -ludunits2\n")
    configure = made.folder / "enetwork/configure"
    configure.write_text(
        "#!/bin/sh\ncat </dev/tcp/192.0.2.1/80 2>/dev/null; echo 'curl: (6) Could not resolve host: files.example' >&2; exit 1\n"
    )
    configure.chmod(0o755)
    shutil.copyfile(built.lock, made.folder / "locks" / "before.lock.json")
    made.ok("lock", "team.yaml")
    return made


def made_url(built: RealProject) -> str:
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
    assert "aheader: add libxml2-devel (libxml2 where the channel has no such) to extras.conda_r: the header" in done.err
    assert "add udunits2 to extras.conda_r: the library udunits2 (-ludunits2) is missing" in done.err
    assert "the build needs the network, which no task has" in done.err
    assert "skipped because of it: cneeds" in done.err
    failed = "R package `aheader` 1.0: compilation failed (exit 1, after "
    at = next(i for i, line in enumerate(done.err.splitlines()) if failed in line)
    assert re.match(r"  team\.yaml:\d+: tarballs\.aheader: ", done.err.splitlines()[at + 1])
    assert "the conda package r-aheader" not in done.err  # the channel's index lists none
    log = next(Path(line.partition("full log is ")[2]) for line in done.err.splitlines() if "full log is " in line)
    assert log.is_file()
    assert sorted(project.ok("plan", "team.yaml", "--json").json["tasks"]["make"]) == [
        "aheader",
        "blibrary",
        "cneeds",
        "enetwork",
    ]  # dgood is kept

    first = project.run("build", "team.yaml", "--jobs", "1")
    assert first.code == 2
    assert first.err.count("compilation failed (exit 1, after ") == 1  # nothing new was begun after it
    assert "not begun: " in first.err


def test_the_hints_of_a_missing_header_work(built: RealProject, tmp_path: Path) -> None:
    project = with_tarballs(built, tmp_path, {"fheader": ("#include <nlopt.h>\n", "")})
    project.ok("lock", "team.yaml")
    failed = project.run("build", "team.yaml")
    first, line, *rest = failed.err[failed.err.index("error: ") :].splitlines()
    assert (failed.code, first.startswith("error: R package `fheader` 1.0: compilation failed (exit 1, after ")) == (2, True)
    assert re.match(r"  team\.yaml:\d+: tarballs\.fheader: ", line)
    assert any(text.startswith("  | ") and "fatal error: nlopt.h: No such file or directory" in text for text in rest)
    (log,) = re.findall(r"^  the full log is (.+)$", failed.err, re.MULTILINE)
    assert Path(log).is_file()

    (command,) = re.findall(r"run `cregraph (shell [0-9a-f]{8} --profile team\.yaml)` to open the sandbox", failed.err)
    project.ok(*command.split(), "--", "/bin/true")
    ((package, field),) = re.findall(
        r"^hint: add (\S+) to extras\.(\w+): the header nlopt\.h is missing$", failed.err, re.MULTILINE
    )
    extras = yaml.safe_load((project.folder / "team.yaml").read_text())["extras"]
    project.edit(**{field: [*(extras.get(field) or []), package]})
    project.ok("lock", "team.yaml")  # the environment's nlopt has no header, so the build itself proves nothing here


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
