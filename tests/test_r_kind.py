"""Kind `r`: asks, the closure, what conda has, tarballs, tasks and their keys, entries. The sources is folders made here."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import hashlib
import io
import lzma
import shutil
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from cregraph.engines import contract
from cregraph.errors import CregraphError
from cregraph.formats.r_package import pack_folder, read_tarball
from cregraph.formats.untrusted_tar import PACKAGE
from cregraph.kinds import KINDS
from cregraph.kinds.base import PinContext, PlaceContext
from cregraph.kinds.r import r_kind as r
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact, Pin, Target
from cregraph.plan.parts import Placement
from cregraph.profile.step import Step
from cregraph.sources.configured import ConfiguredSources
from cregraph.sources.project_files import Local
from cregraph.sources.routes import Routes
from cregraph.store import Store

PREFIX = "/home/jupyter/micromamba/envs/workspace_env"
LIBRARY = f"{PREFIX}/lib/R/library"


def tarball(description: str, files: Mapping[str, str] | None = None, *, top: str | None = None) -> bytes:
    """A source package: DESCRIPTION and files, gzip."""
    name = top or description.split("Package: ")[1].split("\n")[0]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for inner, text in {"DESCRIPTION": description, "NAMESPACE": "", **(files or {})}.items():
            info = tarfile.TarInfo(f"{name}/{inner}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(out.getvalue(), mtime=0)


def description(name: str, version: str, **fields: str) -> str:
    lines = "".join(f"{key}: {value}\n" for key, value in fields.items())
    return f"Package: {name}\nVersion: {version}\n{lines}"


class Cran:
    """A CRAN of dated folders on file://, with a project beside it. Counts nothing, answers what it holds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.project = root / "project"
        self.project.mkdir(parents=True)
        self.shipped = root / "shipped"
        self.shipped.mkdir()
        self.reads: list[str] = []

    def publish(self, date: str, *packages: str, archived: Iterable[str] = ()) -> None:
        contrib = self.root / "cran" / date / "src/contrib"
        contrib.mkdir(parents=True, exist_ok=True)
        for text in packages:
            name, version = self.named(text)
            (contrib / f"{name}_{version}.tar.gz").write_bytes(tarball(text))
        for text in archived:
            name, version = self.named(text)
            folder = contrib / "Archive" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}_{version}.tar.gz").write_bytes(tarball(text))
        (contrib / "PACKAGES.gz").write_bytes(gzip.compress("\n".join(packages).encode()))

    @staticmethod
    def named(text: str) -> tuple[str, str]:
        fields = dict(line.split(": ", 1) for line in text.splitlines() if line)
        return fields["Package"], fields["Version"]

    def sources(self) -> ConfiguredSources:
        cran = self

        class Watched(ConfiguredSources):
            def read(self, *, kind: str, source: str, file: str, limit: int = 256 << 20) -> bytes:
                cran.reads.append(source)
                return super().read(kind=kind, source=source, file=file, limit=limit)

        return Watched(
            kinds=KINDS,
            store=Store(self.root / "store"),
            routes=Routes(
                cran=((self.root / "cran").as_uri() + "/{date}",), url={"https://web.example/": (self.root.as_uri() + "/",)}
            ),
            local=Local(project=self.project, shipped=self.shipped),
            offline=True,
        )


@pytest.fixture
def cran(tmp_path: Path) -> Cran:
    return Cran(tmp_path)


def conda(*packages: str, asked: Iterable[str] = ("r-base",), needs: Mapping[str, tuple[str, ...]] | None = None) -> Target:
    """The conda environment around the library: `r-base 4.4.1`, `r-cli 3.6.0`, `zlib 1.3`."""
    pins = []
    for text in ("r-base 4.4.1", *packages):
        name, version = text.split()
        token = f"r:{name[2:]}"
        provides = [f"conda:{name} {version}"] + ([f"{token} {version}"] if name.startswith("r-") else [])
        digest = hashlib.sha256(text.encode()).hexdigest()
        pins.append(
            Pin(
                name=name,
                version=version,
                artifact=Artifact(kind="conda", source="conda-forge", file=f"linux-64/{name}.conda", sha256=digest, size=1),
                needs=(needs or {}).get(name, ()),
                provides=tuple(provides),
                asked=("r: " + name,) if name in asked else (),
            )
        )
    return Target(kind="conda", place=PREFIX, pins=tuple(pins))


def step(packages: Any, stage: str = "cran", **fields: Any) -> Step:
    where = {"": f"team.yaml:9: {stage}"}
    for i, _ in enumerate(packages) if isinstance(packages, list) else ():
        where[f"packages[{i}]"] = f"team.yaml:{10 + i}: extras.cran[{i}]"
    for i, name in enumerate(packages) if isinstance(packages, dict) else ():
        where[f"packages.{name}"] = f"team.yaml:{20 + i}: tarballs.{name}"
    return Step(kind="r", stage=stage, fields={"library": LIBRARY, "from": "cran", "packages": packages, **fields}, where=where)


def target(*steps: Step) -> Target:
    asks = tuple(ask for one in steps for ask in r.ask(one))
    return Target(kind="r", place=LIBRARY, options=dict(asks[0].options) if asks else {}, asks=asks)


def pinned(cran: Cran, *steps: Step, env: Target | None = None, **given: Any) -> Target:
    context = PinContext(
        project=cran.project, shipped=cran.shipped, targets=(env or conda(),), today=given.pop("today", "2025-06-01"), **given
    )
    return r.pin(target(*steps), cran.sources(), context)


def refusal(cran: Cran, *steps: Step, **given: Any) -> CregraphError:
    with pytest.raises(CregraphError) as caught:
        pinned(cran, *steps, **given)
    return caught.value


def versions(found: Target) -> dict[str, str]:
    return {p.name: p.version for p in found.pins}


# --- asks ------------------------------------------------------------------------------------------------------------


def test_an_ask_has_one_form_however_it_is_written():
    asks = r.ask(step(["survival == 3.5-8", "dplyr>=1.1", "cli"]))

    assert [a.what for a in asks] == ["survival ==3.5-8", "dplyr >=1.1", "cli"]
    assert asks[1].where == "team.yaml:11: extras.cran[1]"
    assert asks[0].target == f"r:{LIBRARY}"
    assert asks[0].options == {"from": "cran", "snapshot": None}


def test_tarballs_are_asked_for_by_name():
    (ask,) = r.ask(step({"snowflakeR": "https://x.example/snowflakeR_0.1.0.tar.gz"}, "tarballs"))

    assert ask.what == {"name": "snowflakeR", "tarball": "https://x.example/snowflakeR_0.1.0.tar.gz"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"packages": ["dplyr=1.0"]}, "team.yaml:10: extras.cran[0]: `dplyr=1.0` is not an R package with a version"),
        ({"packages": ["https://x.example/a.tar.gz"]}, None),
        ({"packages": [3]}, "team.yaml:10: extras.cran[0]: `3` is not an R package with a version"),
        ({"packages": {"a b": "./x"}}, "team.yaml:20: tarballs.a b: `a b` is not the name of an R package"),
        ({"packages": ["xts==99"]}, "team.yaml:10: extras.cran[0]: `xts==99` is not an R package with a version"),
        ({"packages": {"ab": "/etc/passwd"}}, None),
        (
            {"packages": {"ab": "file:///srv/ab.tar.gz"}},
            "team.yaml:20: tarballs.ab: `file:///srv/ab.tar.gz` is not an address of a tarball or a path in the project",
        ),
        ({"packages": {"ab": "https:///ab.tar.gz"}}, None),
        (
            {"packages": {"ab": "https://me:secret@x.example/ab.tar.gz"}},
            "team.yaml:20: tarballs.ab: the address contains a user or password, which the lock must not contain",
        ),
        (
            {"packages": "dplyr"},
            "team.yaml:9: cran: expected a list of R packages, or a mapping of their names to URLs and paths",
        ),
        ({"packages": [], "snapshot": "June"}, "team.yaml:9: cran: `June` is not a date"),
        ({"packages": [], "from": "bioc"}, "team.yaml:9: cran: `bioc` is not a source of R packages"),
    ],
)
def test_what_is_no_ask_is_refused_with_its_line(fields: dict[str, Any], message: str | None):
    packages = fields.pop("packages")
    with pytest.raises(CregraphError) as caught:
        r.ask(step(packages, **fields))

    assert message is None or caught.value.message == message
    assert caught.value.message.startswith("team.yaml:")


# --- closure ---------------------------------------------------------------------------------------------------------


def test_the_closure_is_over_depends_imports_and_linkingto_but_not_suggests(cran: Cran):
    cran.publish(
        "2025-06-01",
        description("AA", "1.0", Depends="R (>= 4.0), methods, BB", Imports="Cc (>= 1.0), stats", LinkingTo="Dd", Suggests="Ee"),
        description("BB", "1.0"),
        description("Cc", "1.2", NeedsCompilation="yes"),
        description("Dd", "0.1"),
        description("Ee", "0.1"),
    )

    found = pinned(cran, step(["AA"]))

    assert versions(found) == {"AA": "1.0", "BB": "1.0", "Cc": "1.2", "Dd": "0.1"}
    a = found.pins[0]
    assert a.needs == ("r:bb", "r:cc", "r:dd")
    assert a.provides == ("r:aa 1.0",)
    assert a.asked == ("cran: AA",)
    assert a.artifact.source == "cran" and a.artifact.file == "2025-06-01/AA_1.0.tar.gz"
    assert a.data == {
        "depends": ["R >=4.0", "methods", "BB", "Cc >=1.0", "stats"],
        "linking_to": ["Dd"],
        "compiles": False,
        "snapshot": "2025-06-01",
    }
    assert found.pins[2].data["compiles"] is True
    assert found.pins[1].asked == ()


def test_what_conda_has_is_not_installed_twice_whatever_the_case(cran: Cran):
    cran.publish("2025-06-01", description("AA", "1.0", Imports="Rcpp (>= 1.0.10), MASS (>= 7.3-60)"), description("Rcpp", "1.1"))

    found = pinned(cran, step(["AA", "Rcpp"]), env=conda("r-rcpp 1.0.12", "r-mass 7.3_65"))

    assert versions(found) == {"AA": "1.0"}
    assert found.pins[0].needs == ("r:mass", "r:rcpp")


def test_a_conda_version_that_does_not_satisfy_is_refused_with_the_way_out(cran: Cran):
    (cran.project / "rs.tar.gz").write_bytes(tarball(description("RSnowflake", "0.2.0", Imports="httr2 (>= 1.0.0)")))

    error = refusal(cran, step({"RSnowflake": "./rs.tar.gz"}, "tarballs"), env=conda("r-httr2 0.2.3"))

    assert (
        error.message
        == "team.yaml:20: tarballs.RSnowflake: RSnowflake 0.2.0 needs httr2 >=1.0.0, but the conda environment has r-httr2 0.2.3"
    )
    assert error.hint == ("ask for `r-httr2 >=1.0.0` in extras.conda_r, or for an older RSnowflake that accepts 0.2.3")


def test_an_exact_ask_that_condas_version_does_not_meet_is_refused_with_the_way_out(cran: Cran):
    error = refusal(cran, step(["survival==3.5-8"]), env=conda("r-survival 3.7_0"))

    assert (
        error.message == "team.yaml:10: extras.cran[0] asks for survival ==3.5-8, but the conda environment has r-survival 3.7_0"
    )
    assert error.hint == "ask conda for that version instead: `r-survival =3.5_8` in extras.conda_r, and remove the line here"


def test_cran_is_not_asked_when_conda_answers_everything(cran: Cran):
    (cran.project / "rs.tar.gz").write_bytes(tarball(description("RSnowflake", "0.2.0", Imports="httr2 (>= 1.0.0)")))

    found = pinned(
        cran, step(["cli"]), step({"RSnowflake": "./rs.tar.gz"}, "tarballs"), env=conda("r-httr2 1.0.1", "r-cli 3.6.1")
    )

    assert versions(found) == {"RSnowflake": "0.2.0"}
    assert cran.reads == []


def test_an_exact_version_is_taken_from_the_archive_with_the_needs_of_its_own_description(cran: Cran):
    cran.publish(
        "2025-06-01",
        description("survival", "3.7-0", Imports="Newdep"),
        description("Matrix", "1.7-0"),
        archived=[description("survival", "3.5-8", Imports="Matrix (>= 1.5)")],
    )

    found = pinned(cran, step(["survival==3.5-8"]))

    assert versions(found) == {"Matrix": "1.7-0", "survival": "3.5-8"}


def test_a_version_that_was_never_published_is_said(cran: Cran):
    cran.publish("2025-06-01", description("survival", "3.7-0"))

    error = refusal(cran, step(["survival==3.5.8"]))

    assert error.message == (
        "team.yaml:10: extras.cran[0] asks for survival ==3.5.8: "
        "survival 3.5.8 is neither in src/contrib nor in its Archive, source `cran` as of 2025-06-01"
    )


@pytest.mark.parametrize(
    ("packages", "message", "hint"),
    [
        (
            ["dpylr"],
            "team.yaml:10: extras.cran[0] asks for R package dpylr, which CRAN as of 2025-06-01 does not have",
            "write `dplyr` instead",
        ),
        (
            ["DPLYR"],
            "team.yaml:10: extras.cran[0] asks for R package DPLYR, which CRAN as of 2025-06-01 does not have",
            "write `dplyr` instead",
        ),
        (["dplyr>=9.0"], "team.yaml:10: extras.cran[0] asks for dplyr >=9.0, but CRAN as of 2025-06-01 has dplyr 1.1.4", None),
        (
            ["needsgraph"],
            "team.yaml:10: extras.cran[0]: needsgraph 1.0 needs R package graph, which CRAN as of 2025-06-01 does not have",
            "give it as a tarball, or ask conda for it: `r-graph` (or `bioconductor-graph`) in extras.conda_r",
        ),
        (
            ["newr"],
            "team.yaml:10: extras.cran[0]: newr 1.0 needs R >=4.5, but the conda environment has R 4.4.1",
            "raise cre.r_version, or ask for a newr that accepts R 4.4.1: `newr==…` in extras.cran, or an earlier "
            "--as-of DATE",
        ),
        (
            ["dplyr==1.0.0", "dplyr==1.1.0"],
            "team.yaml:10: extras.cran[0] asks for dplyr ==1.0.0, and team.yaml:11: extras.cran[1] for dplyr ==1.1.0",
            "keep one of the two lines: a library has one version of a package",
        ),
        (
            ["wantsnew", "dplyr==1.0.0"],
            "team.yaml:10: extras.cran[0]: wantsnew 1.0 needs dplyr >=1.1, "
            "and team.yaml:11: extras.cran[1] asks for dplyr ==1.0.0",
            "keep one of the two: loosen the `==`, or choose another version of the package that needs it",
        ),
        (["ring"], "R packages need each other in a circle: knot needs ring needs knot", None),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_in_words(cran: Cran, packages: list[str], message: str, hint: str | None):
    cran.publish(
        "2025-06-01",
        description("dplyr", "1.1.4"),
        description("needsgraph", "1.0", Imports="graph"),
        description("newr", "1.0", Depends="R (>= 4.5)"),
        description("wantsnew", "1.0", Imports="dplyr (>= 1.1)"),
        description("ring", "1.0", Imports="knot"),
        description("knot", "1.0", Imports="ring"),
        archived=[description("dplyr", "1.0.0"), description("dplyr", "1.1.0")],
    )

    error = refusal(cran, step(packages))

    assert error.message == message
    assert hint is None or error.hint == hint


def test_without_r_there_is_no_library(cran: Cran):
    error = refusal(cran, step(["dplyr"]), env=Target(kind="conda", place="/elsewhere"))

    assert error.message == f"nothing provides R for the library {LIBRARY}"


# --- dates and what stays --------------------------------------------------------------------------------------------


def two_snapshots(cran: Cran) -> None:
    cran.publish("2025-06-01", description("AA", "1.0", Imports="BB"), description("BB", "1.0"))
    cran.publish(
        "2025-07-01",
        description("AA", "2.0", Imports="BB (>= 1.0)"),
        description("BB", "2.0"),
        description("Cc", "1.0", Imports="BB (>= 1.5)"),
        archived=[description("AA", "1.0", Imports="BB"), description("BB", "1.0")],
    )


def test_two_locks_of_one_profile_are_equal(cran: Cran):
    two_snapshots(cran)

    assert pinned(cran, step(["AA"])) == pinned(cran, step(["AA"]))


def test_a_lock_keeps_its_pins_on_a_later_day_and_asks_nobody(cran: Cran):
    two_snapshots(cran)
    first = pinned(cran, step(["AA"]))
    cran.reads.clear()

    again = pinned(cran, step(["AA"]), today="2025-07-01", locked=first.pins)

    assert again == first
    assert cran.reads == []


def test_what_is_added_comes_from_the_locks_own_snapshot(cran: Cran):
    two_snapshots(cran)
    cran.publish("2025-06-01", description("AA", "1.0", Imports="BB"), description("BB", "1.0"), description("Cc", "0.9"))
    first = pinned(cran, step(["AA"]))

    later = pinned(cran, step(["AA", "Cc"]), today="2025-07-01", locked=first.pins)

    assert versions(later) == {"AA": "1.0", "BB": "1.0", "Cc": "0.9"}


def test_a_locked_pin_moves_only_when_something_that_is_asked_needs_more(cran: Cran):
    two_snapshots(cran)
    first = pinned(cran, step(["AA"]))

    later = pinned(cran, step(["AA", "Cc"]), as_of="2025-07-01", locked=first.pins)

    assert versions(later) == {"AA": "1.0", "BB": "2.0", "Cc": "1.0"}
    assert {p.name: p.data["snapshot"] for p in later.pins} == {"AA": "2025-06-01", "BB": "2025-07-01", "Cc": "2025-07-01"}


def test_a_freed_pin_moves_and_the_others_stay(cran: Cran):
    two_snapshots(cran)
    first = pinned(cran, step(["AA"]))

    later = pinned(cran, step(["AA"]), as_of="2025-07-01", locked=tuple(p for p in first.pins if p.name != "AA"))

    assert versions(later) == {"AA": "2.0", "BB": "1.0"}


def test_the_profiles_own_date_decides(cran: Cran):
    two_snapshots(cran)

    assert versions(pinned(cran, step(["AA"], snapshot="2025-07-01"), as_of="2025-06-01")) == {"AA": "2.0", "BB": "2.0"}


def test_a_locked_pin_that_says_too_little_is_not_trusted(cran: Cran):
    two_snapshots(cran)
    first = pinned(cran, step(["AA"]))
    edited = tuple(dataclasses.replace(p, data={"snapshot": "2025-06-01", "depends": 3}) for p in first.pins)

    assert versions(pinned(cran, step(["AA"]), locked=edited)) == {"AA": "1.0", "BB": "1.0"}


# --- tarballs --------------------------------------------------------------------------------------------------------


def test_a_tarball_may_be_a_url_a_file_or_a_folder(cran: Cran):
    (cran.root / "web.tar.gz").write_bytes(tarball(description("web", "0.1", Imports="fromfolder")))
    (cran.project / "file.tar.gz").write_bytes(tarball(description("fromfile", "0.2")))
    folder = cran.shipped / "adbc/fromfolder"
    folder.mkdir(parents=True)
    (folder / "DESCRIPTION").write_text(description("fromfolder", "0.3"))
    url = "https://web.example/web.tar.gz"

    found = pinned(cran, step({"web": url, "fromfile": "./file.tar.gz", "fromfolder": "standard:adbc/fromfolder"}, "tarballs"))

    assert versions(found) == {"web": "0.1", "fromfile": "0.2", "fromfolder": "0.3"}
    by_name = {p.name: p for p in found.pins}
    assert (by_name["web"].artifact.kind, by_name["web"].artifact.source) == ("url", url)
    assert (by_name["fromfile"].artifact.kind, by_name["fromfile"].artifact.source) == ("path", "./file.tar.gz")
    assert by_name["fromfolder"].artifact.sha256 == hashlib.sha256(pack_folder(folder)).hexdigest()
    assert by_name["web"].asked == (f"tarballs: web @ {url}",)
    assert "snapshot" not in by_name["web"].data


def test_bytes_that_changed_behind_a_url_do_not_move_the_pin(cran: Cran):
    web = cran.root / "web.tar.gz"
    web.write_bytes(tarball(description("web", "0.1")))
    steps = step({"web": "https://web.example/web.tar.gz"}, "tarballs")
    first = pinned(cran, steps)
    web.write_bytes(tarball(description("web", "0.2")))

    assert pinned(cran, steps, locked=first.pins) == first
    assert versions(pinned(cran, steps)) == {"web": "0.2"}


def test_a_file_of_the_project_that_changed_is_pinned_anew(cran: Cran):
    file = cran.project / "mine.tar.gz"
    file.write_bytes(tarball(description("mine", "0.1")))
    first = pinned(cran, step({"mine": "./mine.tar.gz"}, "tarballs"))
    file.write_bytes(tarball(description("mine", "0.1.1")))

    assert versions(pinned(cran, step({"mine": "./mine.tar.gz"}, "tarballs"), locked=first.pins)) == {"mine": "0.1.1"}


def test_a_given_tarball_answers_what_cran_packages_need(cran: Cran):
    cran.publish("2025-06-01", description("AA", "1.0", Imports="BB (>= 3.0)"), description("BB", "1.0"))
    (cran.project / "BB.tar.gz").write_bytes(tarball(description("BB", "3.1")))

    assert versions(pinned(cran, step(["AA"]), step({"BB": "./BB.tar.gz"}, "tarballs"))) == {"AA": "1.0", "BB": "3.1"}


@pytest.mark.parametrize("source", ["./none.tar.gz", "mine.tar.gz", "./../mine.tar.gz", "https://web.example/none.tar.gz"])
def test_a_tarball_that_cannot_be_taken_is_refused_with_its_line(cran: Cran, source: str):
    error = refusal(cran, step({"mine": source}, "tarballs"))

    assert error.message.startswith("team.yaml:20: tarballs.mine: ")
    assert error.hint


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            tarball(description("other", "1.0")),
            "team.yaml:20: tarballs.mine: `./mine.tar.gz` is R package other, not mine",
        ),
        (
            tarball(description("mine", "1.0"), top="folder"),
            "team.yaml:20: tarballs.mine: `./mine.tar.gz`: the top folder is `folder`, but DESCRIPTION names the package `mine`",
        ),
        (b"no archive", None),
        (tarball(description("mine", "one")), None),
        (gzip.compress(b""), None),
    ],
)
def test_a_tarball_that_is_not_what_it_should_be_is_refused_with_its_line(cran: Cran, made: bytes, message: str | None):
    (cran.project / "mine.tar.gz").write_bytes(made)

    error = refusal(cran, step({"mine": "./mine.tar.gz"}, "tarballs"))

    assert error.message.startswith("team.yaml:20: tarballs.mine: `./mine.tar.gz`")
    assert message is None or error.message == message


def test_a_tarball_of_what_conda_has_is_refused(cran: Cran):
    (cran.project / "cli.tar.gz").write_bytes(tarball(description("cli", "3.7.0")))

    error = refusal(cran, step({"cli": "./cli.tar.gz"}, "tarballs"), env=conda("r-cli 3.6.1"))

    assert error.message == (
        "team.yaml:20: tarballs.cli: R package cli is given as a tarball, but the conda environment also has it (r-cli 3.6.1)"
    )


def hostile(member: tarfile.TarInfo, data: bytes = b"") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        text = description("mine", "1.0").encode()
        info = tarfile.TarInfo("mine/DESCRIPTION")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


@pytest.mark.parametrize(
    ("evil", "why"),
    [
        (member("mine/../../etc/passwd"), "`mine/../../etc/passwd` leads out"),
        (member("/etc/passwd"), "`/etc/passwd` leads out"),
        (member("mine\\..\\x"), "leads out"),
        (member("elsewhere/x"), "has two top folders, `mine` and `elsewhere`"),
        (member("mine/null", tarfile.CHRTYPE), "`mine/null` is a device"),
        (member("mine/pipe", tarfile.FIFOTYPE), "`mine/pipe` is a device"),
        (member("mine/a", tarfile.SYMTYPE, "/etc/shadow"), "`mine/a` is a link to `/etc/shadow`"),
        (member("mine/a", tarfile.SYMTYPE, "../../x"), "`mine/a` is a link to `../../x`"),
        (member("mine/a", tarfile.LNKTYPE, "../x"), "`../x` leads out of its folder"),
        (member("mine/DESCRIPTION"), "`mine/DESCRIPTION` is contained twice"),
    ],
)
def test_a_hostile_tarball_is_refused_by_name(tmp_path: Path, evil: tarfile.TarInfo, why: str):
    (tmp_path / "x.tar").write_bytes(hostile(evil))

    with pytest.raises(CregraphError) as caught:
        read_tarball(tmp_path / "x.tar", what="x.tar")

    assert caught.value.message.startswith("x.tar") and why in caught.value.message


def test_a_tarball_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cregraph.formats.inflate.PACKAGE", replace(PACKAGE, bytes=1 << 20))
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(hostile(member("mine/zeros"), b"\0" * (2 << 20))))

    with pytest.raises(CregraphError, match="unpacks to more than"):
        read_tarball(tmp_path / "x.tar.gz", what="x.tar.gz")


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path):
    """A pax header of 600 MB of nothing in 600 KB of gzip: read as it says, it would be held whole."""
    header = member("mine/x", tarfile.XHDTYPE)
    header.size = 600 << 20
    with gzip.open(tmp_path / "x.tar.gz", "wb", compresslevel=1) as out:
        out.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(600):
            out.write(b"\0" * (1 << 20))
    tracemalloc.start()
    with pytest.raises(CregraphError, match="an extended header of 629145600 bytes"):
        read_tarball(tmp_path / "x.tar.gz", what="x.tar.gz")
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_a_link_inside_the_package_is_no_harm(tmp_path: Path):
    (tmp_path / "x.tar").write_bytes(hostile(member("mine/inst/a", tarfile.SYMTYPE, "../DESCRIPTION")))

    assert read_tarball(tmp_path / "x.tar", what="x.tar").name == "mine"


def test_a_folder_packs_to_equal_bytes_wherever_it_lies(tmp_path: Path):
    packed = []
    for place, stray in (("a", ".Rhistory"), ("b/c", "src/x.o")):
        folder = tmp_path / place
        (folder / "src").mkdir(parents=True)
        (folder / "R").mkdir()
        (folder / "DESCRIPTION").write_text(description("mine", "1.0"))
        (folder / "R/f.R").write_text("f <- 1\n")
        (folder / "src/x.c").write_text("int x;\n")
        (folder / "configure").write_text("#!/bin/sh\n")
        (folder / "configure").chmod(0o775)
        (folder / stray).write_text("left behind")
        packed.append(pack_folder(folder))

    assert packed[0] == packed[1]
    with tarfile.open(fileobj=io.BytesIO(packed[0])) as tar:
        assert {m.name: m.mode for m in tar} == {
            "mine/DESCRIPTION": 0o644,
            "mine/R/f.R": 0o644,
            "mine/configure": 0o755,
            "mine/src/x.c": 0o644,
        }
    (tmp_path / "a/out").symlink_to("/etc/passwd")
    with pytest.raises(CregraphError, match="outside of the package's folder"):
        pack_folder(tmp_path / "a")


# --- placing ---------------------------------------------------------------------------------------------------------


def facts(links: Mapping[str, str] | None = None) -> BaseFacts:
    return BaseFacts(
        digest="sha256:" + "0" * 64, config={}, layers=(), glibc="2.36", users={}, python=None, links=dict(links or {})
    )


def ground(env: Target, *targets: Target, links: Mapping[str, str] | None = None, **more: Any) -> PlaceContext:
    return PlaceContext(
        assembly=1,
        facts=facts(links),
        build_root="sha256:" + "1" * 64,
        targets=(env, *targets),
        order=("r", "cran", "tarballs"),
        placed={env.id: Placement(of={p.name: p.artifact.sha256 for p in env.pins})},
        **more,
    )


ENV = conda(
    "r-cli 3.6.1", "r-unused 1.0", "zlib 1.3", "libxml2 2.12", "icu 75", "stray 1.0",
    asked=("r-base", "r-cli", "zlib", "libxml2"),
    needs={"r-base": ("conda:icu",), "libxml2": ("conda:zlib",)},
)  # fmt: skip


def keys(*names: str) -> set[str]:
    return {p.artifact.sha256 for p in ENV.pins if p.name in names}


def a_library(cran: Cran, b_version: str = "1.0") -> Target:
    cran.publish(
        "2025-06-01",
        description("AA", "1.0", Imports="BB, cli"),
        description("BB", b_version, LinkingTo="Hh", NeedsCompilation="yes"),
        description("Hh", "1.0"),
        description("ZZ", "1.0"),
    )
    return pinned(cran, step(["AA", "ZZ"]), env=ENV)


def test_a_task_sees_its_own_closure_and_what_it_is_compiled_against(cran: Cran):
    library = a_library(cran)

    placed = r.place(library, ground(ENV, library))

    tasks = {t.name: t for t in placed.tasks}
    assert [t.name for t in placed.tasks] == ["Hh", "ZZ", "BB", "AA"]
    assert set(tasks["ZZ"].environment) == keys("r-base", "icu")
    assert set(tasks["BB"].environment) == keys("r-base", "icu", "zlib", "libxml2")
    assert set(tasks["AA"].environment) == keys("r-base", "icu", "zlib", "libxml2", "r-cli")
    assert tasks["AA"].results == {tasks["BB"].key: f"{LIBRARY}/BB", tasks["Hh"].key: f"{LIBRARY}/Hh"}
    assert tasks["ZZ"].results == {}
    assert tasks["AA"].output == f"{LIBRARY}/AA"
    assert (tasks["AA"].inputs, tasks["AA"].artifacts) == (("source",), (library.pins[0].artifact,))
    assert tasks["AA"].env["PATH"] == f"{PREFIX}/bin:/usr/bin:/bin"
    assert tasks["AA"].argv[:2] == ("/bin/sh", "-euc")
    segments = {s.name: s for s in placed.segments}
    assert segments["AA"].place == {"at": f"{LIBRARY}/AA"}
    assert segments["AA"].task_key == tasks["AA"].key
    assert segments["AA"].stage == "cran"
    assert placed.of == {name: s.key for name, s in segments.items()}


def test_python_modules_that_are_asked_for_by_name_are_nothing_to_compile_against(cran: Cran):
    library = a_library(cran)
    with_tool = conda("tool 1.0", asked=("tool",)).pins[-1]
    env = replace(ENV, pins=(*ENV.pins, replace(with_tool, data={"noarch": "python"})))

    assert [t.key for t in r.place(library, ground(env, library)).tasks] == [
        t.key for t in r.place(library, ground(ENV, library)).tasks
    ]


def test_a_changed_package_changes_the_keys_of_its_dependents_only(cran: Cran, tmp_path: Path):
    before = a_library(cran)
    after = a_library(Cran(tmp_path / "other"), b_version="1.1")

    old = {t.name: t.key for t in r.place(before, ground(ENV, before)).tasks}
    new = {t.name: t.key for t in r.place(after, ground(ENV, after)).tasks}

    assert {name for name in old if old[name] != new[name]} == {"AA", "BB"}


def test_where_bytes_came_from_when_and_who_asked_reach_no_key(cran: Cran):
    library = a_library(cran)
    moved = dataclasses.replace(
        library,
        pins=tuple(
            dataclasses.replace(
                p,
                artifact=dataclasses.replace(p.artifact, source="elsewhere", file="2026-01-01/" + p.artifact.file.split("/")[1]),
                data={**p.data, "snapshot": "2026-01-01"},
                asked=(),
            )
            for p in library.pins
        ),
    )

    one, two = r.place(library, ground(ENV, library)), r.place(moved, ground(ENV, moved))

    assert [t.key for t in one.tasks] == [t.key for t in two.tasks]
    assert [s.key for s in one.segments] == [s.key for s in two.segments]


@pytest.mark.parametrize("source", ["./.sf.tar.gz", "https://dl.example/get/", "./folder", "https://dl.example/x_1.0.tar.xz?t=1"])
def test_the_same_bytes_have_one_key_whatever_they_are_called(cran: Cran, source: str):
    library = a_library(cran)
    moved = dataclasses.replace(
        library,
        pins=tuple(
            dataclasses.replace(
                p,
                artifact=dataclasses.replace(p.artifact, kind="url" if "://" in source else "path", source=source, file=""),
                data={key: value for key, value in p.data.items() if key != "snapshot"},
            )
            for p in library.pins
        ),
    )

    tasks = r.place(library, ground(ENV, library)).tasks
    assert [t.key for t in tasks] == [t.key for t in r.place(moved, ground(ENV, moved)).tasks]
    for task in tasks:
        contract.check(task)


@pytest.mark.parametrize("press", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_source_is_unpacked_by_what_it_is_not_by_its_name(cran: Cran, tmp_path: Path, press: Callable[[bytes], bytes]):
    program = {bz2.compress: "bzip2", lzma.compress: "xz"}.get(press, "gzip")
    if not shutil.which(program):
        pytest.skip(f"tar needs {program}")
    library = a_library(cran)
    task = r.place(library, ground(ENV, library)).tasks[0]
    (tmp_path / "source").write_bytes(press(gzip.decompress(tarball(description("Hh", "1.0")))))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/R").write_text('#!/bin/sh\ncat "$PWD/Hh/DESCRIPTION"\n')
    (tmp_path / "bin/R").chmod(0o755)
    (tmp_path / "work").mkdir()
    shell, flags, script, name, package, library_folder, _, makevars = task.argv
    script = script.replace("/cregraph/in/source", str(tmp_path / "source"))

    done = subprocess.run(
        [shell, flags, script, name, package, library_folder, str(tmp_path), makevars],
        cwd=tmp_path / "work",
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "Package: Hh" in done.stdout


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (
            {"name": "../../../../etc/x"},
            "the lock pins `../../../../etc/x`, which is not the name of an R package",
            "the lock was edited by hand",
        ),
        ({"version": "1"}, "R package ZZ: the lock's `version` is missing or invalid", "--upgrade-package ZZ`"),
        ({"data": {}}, "R package ZZ: the lock's `data.compiles` is missing or invalid", "--upgrade-package ZZ`"),
        (
            {"data": {"compiles": "no"}},
            "R package ZZ: the lock's `data.compiles` is missing or invalid",
            "--upgrade-package ZZ`",
        ),
    ],
)
def test_a_pin_of_a_lock_edited_by_hand_is_refused(cran: Cran, change: dict[str, Any], message: str, hint: str):
    library = a_library(cran)
    edited = dataclasses.replace(
        library, pins=tuple(dataclasses.replace(p, **change) if p.name == "ZZ" else p for p in library.pins)
    )

    with pytest.raises(CregraphError) as caught:
        r.place(edited, ground(ENV, edited))

    assert caught.value.message == message
    assert (caught.value.hint or "").endswith(hint)


def test_places_run_through_the_links_of_the_base(cran: Cran):
    library = a_library(cran)

    placed = r.place(library, ground(ENV, library, links={"/home": "data/home"}))

    assert placed.segments[0].place["at"] == f"/data{LIBRARY}/Hh"


class Result:
    """A task's result as kinds are given it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def path(self) -> Path:
        return self._path

    def scratch(self) -> IO[bytes]:
        return io.BytesIO()


def test_entries_are_the_installed_package_at_its_place(cran: Cran, tmp_path: Path):
    library = a_library(cran)
    segment = r.place(library, ground(ENV, library)).segments[0]
    with tarfile.open(tmp_path / "result.tar", "w") as tar:
        for name, mode, data in (("DESCRIPTION", 0o600, b"Package: Hh\n"), ("libs/Hh.so", 0o775, b"ELF" * 1000)):
            info = tarfile.TarInfo(name)
            info.mode, info.size = mode, len(data)
            tar.addfile(info, io.BytesIO(data))
        tar.addfile(member("link", tarfile.SYMTYPE, "DESCRIPTION"))
        tar.addfile(member("help", tarfile.DIRTYPE))

    found = {e.path: e for e in r.entries(segment, Result(tmp_path / "result.tar"))}

    at = f"{LIBRARY}/Hh".lstrip("/")
    assert {(p, e.type, e.mode) for p, e in found.items()} == {
        (f"{at}/DESCRIPTION", "file", 0o644),
        (f"{at}/libs/Hh.so", "file", 0o755),
        (f"{at}/link", "symlink", 0o777),
    }
    for _ in range(2):
        chunks = found[f"{at}/libs/Hh.so"].chunks
        assert chunks is not None and b"".join(chunks()) == b"ELF" * 1000


def test_a_result_that_climbs_is_refused(cran: Cran, tmp_path: Path):
    library = a_library(cran)
    segment = r.place(library, ground(ENV, library)).segments[0]
    with tarfile.open(tmp_path / "result.tar", "w") as tar:
        tar.addfile(member("../../etc/passwd"))

    with pytest.raises(CregraphError, match="leads out of its folder"):
        list(r.entries(segment, Result(tmp_path / "result.tar")))
