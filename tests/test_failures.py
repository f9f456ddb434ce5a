"""Failed tasks: what their log says of the cause, and the way out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cregraph.engines.failures import findings, way_out
from cregraph.kinds.conda.conda_hints import held, listed
from cregraph.plan.parts import Task
from cregraph.store import Store
from tests.faults import within

#: Lines as compilers, linkers, configure scripts, CMake and R print them, and what follows.
LOGS = [
    ("x.h:4:10: fatal error: libxml/tree.h: No such file or directory", "the header libxml/tree.h is missing", "libxml2-devel"),
    ("curl.c:2:10: fatal error: 'curl/curl.h' file not found", "the header curl/curl.h is missing", "libcurl"),
    ("a.c:1:10: fatal error: of_our_own.h: No such file or directory", "the header of_our_own.h is missing", None),
    ("/x/bin/ld: cannot find -lgdal: No such file or directory", "the library gdal (-lgdal) is missing", "libgdal-core"),
    ("/usr/bin/ld: cannot find -lz", "the library z (-lz) is missing", "zlib"),
    ("No package 'libxml-2.0' found", "pkg-config does not find libxml-2.0", "libxml2-devel"),
    ("Package libgit2 was not found in the pkg-config search path.", "pkg-config does not find libgit2", "libgit2"),
    ("Configuration failed because libcurl was not found.", "pkg-config does not find libcurl", "libcurl"),
    ("sh: 1: cmake: not found", "the program cmake is missing", "cmake"),
    ("./configure: line 2213: autoconf: command not found", "the program autoconf is missing", "autoconf"),
    ("/bin/sh: line 1: gdal-config: command not found", "the program gdal-config is missing", "libgdal-core"),
    ("make: gfortran: No such file or directory", "the program gfortran is missing", "fortran-compiler"),
    ("make[2]: /opt/x/g++: No such file or directory", "the program g++ is missing", "cxx-compiler"),
    ("------------------ [RUST NOT FOUND]", None, None),
    ("Error: cargo is required to build this package; cargo was not found", "Rust is missing", "rust"),
    ("Could NOT find ZLIB (missing: ZLIB_LIBRARY ZLIB_INCLUDE_DIR)", "CMake does not find ZLIB", "zlib"),
    ("configure: error: no acceptable C compiler found in $PATH", "a working C compiler is missing", "c-compiler"),
    ("Error in loadNamespace(i) : there is no package called \u2018vctrs\u2019", "add the R package vctrs to extras", None),
    ("ERROR: this R is version 4.2.2, package 'x' requires R >= 4.3.0", "it needs R 4.3.0, but the environment has 4.2.2", None),
    ("curl: (6) Could not resolve host: files.example", "the build needs the network", None),
    ("c++: fatal error: Killed signal terminated program cc1plus", "the memory was too small", None),
    ("terminate called after throwing an instance of 'std::bad_alloc'", "the memory was too small", None),
    ("cc1: fatal error: cannot write: No space left on device", "a disk is full", None),
    ("/lib/libc.so.6: version `GLIBC_2.38' not found (required by x.so)", "another C library (GLIBC_2.38)", None),
    ("* installing *source* package \u2018x\u2019 ...", None, None),
    ("checking for gcc... gcc", None, None),
    ("make: *** [Makefile:12: all] Error 1", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("line", "says", "package"), LOGS)
def test_causes_are_recognised_by_the_line_that_names_them(line: str, says: str | None, package: str | None) -> None:
    found = findings(f"* installing\n{line}\nERROR: compilation failed\n")

    if says is None:
        assert found == []
        return
    (one,) = found
    assert says in one.says
    assert (one.package or "").partition(" ")[0] == (package or "")
    assert one.line == line.strip()


def test_a_cause_is_said_once_and_a_long_log_says_few() -> None:
    log = "x.c:1:1: fatal error: png.h: No such file or directory\n" * 50
    log += "".join(f"ld: cannot find -l{name}\n" for name in ("z", "bz2", "lzma", "png", "tiff"))
    assert [one.says for one in findings(log)][:2] == ["the header png.h is missing", "the library z (-lz) is missing"]
    assert len(findings(log)) == 4


def test_a_hostile_log_takes_no_time() -> None:
    with within():
        findings(("fatal error: " + "a/" * 90_000 + "\n") + ("Package '" * 9000 + "\n") + ("sh: 1: " + "x" * 60_000 + "\n") * 20)


def a_task(kind: str = "r", name: str = "xml2") -> Task:
    return Task(key="0" * 64, kind=kind, stage="cran", name=name, root="", argv=("x",), env={}, output="/x")


MISSING = "a.c:1:10: fatal error: libxml/tree.h: No such file or directory\n"


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (True, "or take the conda package r-xml2, which the channel has, in extras.conda_r, or take a built one"),
        (None, "or take the conda package r-xml2 in extras.conda_r, or take a built one"),
        (
            False,
            "or take a built one of the snapshot (extras.cran_binaries), or ask for another version (extras.cran: xml2==VERSION)",
        ),
    ],
)
def test_the_ways_out_name_what_is_missing_then_the_conda_package_if_there_is_one(there: bool | None, words: str) -> None:
    hint = way_out(a_task(), MISSING, lambda _package: there) or ""

    first, second, *_ = hint.splitlines()
    assert first.startswith("add libxml2-devel (libxml2 where the channel has no such) to extras.conda_r: the header")
    assert first.endswith("the header libxml/tree.h is missing")
    assert second.startswith(words)


def test_without_a_cause_the_usual_ways_are_said() -> None:
    hint = way_out(a_task(), "ERROR: lazy loading failed\n", lambda _package: None) or ""
    assert "take the conda package r-xml2" in hint
    assert "it compiles against to extras.conda_r" in hint
    wheel = way_out(a_task("python", "numpy"), MISSING, lambda _package: None) or ""
    assert "to `build` in the recipe" in wheel
    assert "a version that has a wheel" in wheel


def test_what_a_channels_index_lists_is_known_from_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert listed(store, "r-xml2") is None
    folder = tmp_path / "repodata"
    folder.mkdir()
    (folder / "1.json").write_text('{"packages": {"x": {"name": "r-xml2x"}, "y": {"name":"r-curl"}}}')
    (folder / "2.info.json").write_text('{"name": "r-xml2"}')
    (folder / "3.json").write_bytes(b"")
    assert listed(store, "r-xml2") is False
    assert listed(store, "r-curl") is True
    (folder / "a.shards-cache-v1").write_bytes(b"\x81\xa6r-xml2\xc4\x20")
    assert listed(store, "r-xml2") is True


def test_the_table_names_packages_as_conda_allows_and_each_thing_once() -> None:
    for table in held().values():
        assert all(package.partition(" ")[0] == package.partition(" ")[0].lower() for package in table.values())
    assert held()["headers"]["libxml/"] == held()["modules"]["libxml-2.0"] == held()["libraries"]["xml2"]
