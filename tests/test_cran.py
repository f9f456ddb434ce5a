"""CRAN: the control format, R's versions, the index, where files lie."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from cregraph.errors import CregraphError
from cregraph.formats import dcf
from cregraph.sources import cran
from cregraph.sources.downloads import Fetcher, NotThere
from cregraph.store import Store

PACKAGES = """\
Package: dplyr
Version: 1.1.4
Depends: R (>= 3.5.0)
Imports: cli (>= 3.4.0), generics,
    magrittr (>= 1.5),
LinkingTo: cpp11 (>= 0.4)
MD5sum: 4e1e0b4a7d4bd6c0ba7d9f0d9a3c4d5e
NeedsCompilation: yes

Package: Matrix
Version: 1.6-5
Depends: R (>= 3.5.0), methods

Package: Matrix
Version: 1.7-0
Depends: R (>= 4.4.0), methods
Path: 4.4.0/Recommended

Package: winonly
Version: 1.0
OS_type: windows
"""


def an_index() -> cran.Index:
    return cran.parse_index(PACKAGES.encode(), date="2025-06-01", what="the test's index")


def test_continued_lines_trailing_commas_and_carriage_returns_are_read_as_r_reads_them():
    record = cran.parse_index(PACKAGES.replace("\n", "\r\n").encode(), date="2025-06-01", what="x").find("dplyr")

    assert record is not None
    assert [str(d) for d in record.depends] == ["R >=3.5.0", "cli >=3.4.0", "generics", "magrittr >=1.5"]
    assert [str(d) for d in record.linking] == ["cpp11 >=0.4"]
    assert record.md5 == "4e1e0b4a7d4bd6c0ba7d9f0d9a3c4d5e"


def test_bytes_that_are_not_utf8_are_still_text():
    assert dcf.paragraph(dcf.decode("Author: Ragnar Þór\n".encode("latin-1")), what="x") == {"Author": "Ragnar Þór"}


def test_a_dependency_that_is_none_is_refused_by_name():
    with pytest.raises(CregraphError) as caught:
        dcf.dependencies("cli, rm -rf /", what="pkg: Imports")

    assert caught.value.message == "pkg: Imports: `rm -rf /` is not a dependency (expected `name` or `name (>= version)`)"


@pytest.mark.parametrize(
    ("ours", "op", "theirs"),
    [
        ("7.3-65", "==", "7.3.65"),
        ("7.3_65", "==", "7.3-65"),
        ("1.0", "==", "1.0.0"),
        ("1.10", ">", "1.9"),
        ("1.9", "<", "1.10"),
        ("0.4.15", ">=", "0.4.2"),
        ("1.0", "<=", "1.0.0"),
        ("1.0-1", "!=", "1.0"),
    ],
)
def test_versions_compare_as_in_r(ours: str, op: str, theirs: str):
    assert cran.satisfies(ours, op, theirs)
    assert not cran.satisfies(ours, {"==": "!=", "!=": "==", ">": "<=", "<=": ">", "<": ">=", ">=": "<"}[op], theirs)


def test_of_a_name_listed_twice_the_newest_that_this_r_can_use_is_taken():
    found = an_index().find("Matrix", r_version="4.3.1")
    assert found is not None and found.version == "1.6-5"

    found = an_index().find("Matrix", r_version="4.4.1")
    assert found is not None and (found.version, found.path) == ("1.7-0", "4.4.0/Recommended")


def test_names_are_case_sensitive_and_windows_packages_are_not_there():
    assert an_index().find("matrix") is None
    assert an_index().nearest("matrix") == "Matrix"
    assert an_index().find("winonly") is None


def test_an_index_that_inflates_without_end_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cran, "_INDEX_LIMIT", 1 << 16)
    with pytest.raises(CregraphError, match="inflates to more than"):
        cran.parse_index(gzip.compress(b"a" * (1 << 20)), date="2025-06-01", what="the index")


def test_a_path_that_climbs_is_refused():
    index = cran.parse_index(b"Package: x\nVersion: 1.0\nPath: ../../etc\n", date="2025-06-01", what="the index")
    with pytest.raises(CregraphError, match=r"the index: x: Path: `\.\./\.\./etc` leads out of the repository"):
        index.find("x")


def test_a_file_is_looked_for_in_contrib_and_then_in_the_archive_of_each_mirror():
    assert cran.locations(
        ["https://a.example/{date}", "https://b.example"], "2025-06-01/4.4.0/Recommended/Matrix_1.7-0.tar.gz"
    ) == (
        "https://a.example/2025-06-01/src/contrib/4.4.0/Recommended/Matrix_1.7-0.tar.gz",
        "https://a.example/2025-06-01/src/contrib/Matrix_1.7-0.tar.gz",
        "https://a.example/2025-06-01/src/contrib/Archive/Matrix/Matrix_1.7-0.tar.gz",
        "https://b.example/src/contrib/4.4.0/Recommended/Matrix_1.7-0.tar.gz",
        "https://b.example/src/contrib/Matrix_1.7-0.tar.gz",
        "https://b.example/src/contrib/Archive/Matrix/Matrix_1.7-0.tar.gz",
    )


@pytest.mark.parametrize("file", ["../x_1.0.tar.gz", "2025-06-01/../../x_1.0.tar.gz", "x_1.0.tar.gz", "2025-06-01/x", ""])
def test_a_file_of_another_form_never_becomes_an_address(file: str):
    with pytest.raises(CregraphError, match="is not a file of source `cran`"):
        cran.locations(["https://a.example"], file)


class Folder:
    """A sources whose CRAN is some folders."""

    offline = True

    def __init__(self, *roots: Path, store: Path) -> None:
        self.roots = roots
        self.fetcher = Fetcher(Store(store), offline=True)

    def routes(self, section: str, name: str) -> tuple[str, ...]:
        assert (section, name) == ("cran", "cran")
        return tuple(root.as_uri() + "/{date}" for root in self.roots)

    def read(self, *, kind: str, source: str, file: str, limit: int = 1 << 20) -> bytes:
        return self.fetcher.read([source], what=source, limit=limit)


def test_the_plain_index_is_read_where_there_is_no_compressed_one_and_the_next_mirror_after_that(tmp_path: Path):
    contrib = tmp_path / "b/2025-06-01/src/contrib"
    contrib.mkdir(parents=True)
    (contrib / "PACKAGES").write_text(PACKAGES)
    (tmp_path / "a").mkdir()

    index = cran.read_index(Folder(tmp_path / "a", tmp_path / "b", store=tmp_path / "store"), "2025-06-01")  # type: ignore[arg-type]

    assert index.find("dplyr") is not None


def test_a_snapshot_that_is_not_there_is_said_with_its_date(tmp_path: Path):
    with pytest.raises(CregraphError) as caught:
        cran.read_index(Folder(tmp_path, store=tmp_path / "store"), "2025-06-01")  # type: ignore[arg-type]

    assert caught.value.message.startswith("no index of R packages for source `cran` as of 2025-06-01\n")
    assert "--as-of" in (caught.value.hint or "")


def test_not_there_is_an_error_for_users():
    assert issubclass(NotThere, CregraphError)
