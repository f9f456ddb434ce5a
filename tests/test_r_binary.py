"""Built R packages: told from sources, looked through, taken where they fit, placed without a task. The sources is folders."""

from __future__ import annotations

import dataclasses
import gzip
import io
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from cregraph.errors import CregraphError
from cregraph.formats.elf import library
from cregraph.formats.r_package import read_built, unfit
from cregraph.kinds import KINDS
from cregraph.kinds.base import PinContext
from cregraph.kinds.r import r_kind as r
from cregraph.lock.consistency import find_problems
from cregraph.lock.lock_file import Identity, Lock
from cregraph.lock.pins import Target
from cregraph.sources import cran as source
from cregraph.sources.routes import Routes, read_routes
from tests.test_r_kind import ENV, LIBRARY, Cran, Result, conda, description, facts, ground, member, pinned, refusal, step, target

BUILT = "R 4.4.1; x86_64-pc-linux-gnu; 2025-06-01 00:00:00 UTC; unix"
PURE = "R 4.4.0; ; 2025-06-01 00:00:00 UTC; unix"


def shared(*needed: str, glibc: str | None = None, machine: int = 62) -> bytes:
    """A shared library as far as the loader's tables go: a file header, two program headers, a dynamic section, names."""
    names = b"\0"
    at: dict[str, int] = {}
    for name in (*needed, "libc.so.6", f"GLIBC_{glibc}"):
        at[name] = len(names)
        names += name.encode() + b"\0"
    begin = 64 + 2 * 56
    verneed = b""
    if glibc:
        verneed = struct.pack("<HHIII", 1, 1, at["libc.so.6"], 16, 0) + struct.pack("<IHHII", 0, 0, 2, at[f"GLIBC_{glibc}"], 0)
    rows = [(1, at[name]) for name in needed] + [(5, begin), (10, len(names))]
    if verneed:
        rows += [(0x6FFFFFFE, begin + len(names)), (0x6FFFFFFF, 1)]
    dynamic = b"".join(struct.pack("<QQ", *row) for row in [*rows, (0, 0)])
    body = names + verneed + dynamic
    size = begin + len(body)
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 4096)
    where = begin + len(names) + len(verneed)
    return header + load + struct.pack("<IIQQQQQQ", 2, 6, where, where, where, len(dynamic), len(dynamic), 8) + body


def built(
    text: str, files: Mapping[str, bytes] | None = None, *, whole: bool = True, extra: tuple[tarfile.TarInfo, ...] = ()
) -> bytes:
    """A built package: DESCRIPTION, Meta/package.rds and `files`."""
    name = text.split("Package: ")[1].split("\n")[0]
    out = io.BytesIO()
    held = {"DESCRIPTION": text.encode(), **({"Meta/package.rds": b"rds"} if whole else {}), **(files or {})}
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(member(f"{name}/Meta", tarfile.DIRTYPE))
        for inner, data in held.items():
            info = tarfile.TarInfo(f"{name}/{inner}")
            info.size, info.mode = len(data), 0o775 if inner.endswith(".so") else 0o640
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return gzip.compress(out.getvalue(), mtime=0)


def shelve(cran: Cran, tarball: bytes, name: str, *, date: str = "2025-06-01", distribution: str = "jammy") -> None:
    """Lay a built package where Posit Package Manager has it."""
    contrib = cran.root / "cran/__linux__" / distribution / date / "src/contrib"
    contrib.mkdir(parents=True, exist_ok=True)
    (contrib / f"{name}.tar.gz").write_bytes(tarball)


@pytest.fixture
def cran(tmp_path: Path) -> Cran:
    return Cran(tmp_path / "cran")


def with_built(cran: Cran, *asked: str, **given: Any) -> Target:
    return pinned(cran, step(list(asked), binaries="jammy"), facts=facts(), **given)


def two(cran: Cran) -> None:
    """AA needs BB; both have a source, and BB is built."""
    cran.publish("2025-06-01", description("AA", "1.0", Imports="BB"), description("BB", "1.0", NeedsCompilation="yes"))
    shelve(
        cran, built(description("BB", "1.0", Built=BUILT, NeedsCompilation="yes"), {"libs/BB.so": shared("libR.so")}), "BB_1.0"
    )


# --- locking ---------------------------------------------------------------------------------------------------------


def test_a_built_package_is_pinned_where_the_snapshot_has_one_and_a_source_elsewhere(cran: Cran):
    two(cran)

    a, b = with_built(cran, "AA").pins

    assert (b.artifact.source, b.artifact.file) == ("cran", "jammy/4.4/2025-06-01/BB_1.0.tar.gz")
    assert b.data == {
        "form": "binary",
        "built": "4.4.1",
        "platform": "x86_64-pc-linux-gnu",
        "binaries": "jammy/4.4",
        "snapshot": "2025-06-01",
        "depends": [],
        "linking_to": [],
        "compiles": True,
    }
    assert a.artifact.file == "2025-06-01/AA_1.0.tar.gz"
    assert (a.data["binaries"], a.data["no_binary"], "form" in a.data) == ("jammy/4.4", "the repository does not have it", False)
    assert a.needs == ("r:bb",)
    assert b.provides == ("r:bb 1.0",)


def test_nothing_is_taken_built_unless_the_profile_says_so(cran: Cran):
    two(cran)

    assert [p.data.get("binaries") for p in pinned(cran, step(["AA"])).pins] == [None, None]
    assert [ask.options for ask in r.ask(step(["AA"]))] == [{"from": "cran", "snapshot": None}]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (built(description("BB", "1.0", Built=BUILT.replace("4.4.1", "4.3.3"))), "is built for R 4.3.3"),
        (built(description("BB", "1.0", Built=BUILT.replace("x86_64", "aarch64"))), "is built for aarch64-pc-linux-gnu"),
        (built(description("BB", "1.0", Built=BUILT.replace("pc-linux-gnu", "w64-mingw32"))), "is built for x86_64-w64-mingw32"),
        (built(description("BB", "1.0", Built=BUILT), whole=False), "does not contain Meta/package.rds"),
        (
            built(description("BB", "1.0", Built=BUILT), {"libs/BB.so": shared(machine=183)}),
            "contains libraries for another processor",
        ),
        (
            built(description("BB", "1.0", Built=BUILT), {"libs/BB.so": shared("libgdal.so.30", "libm.so.6", "libproj.so.22")}),
            "needs libgdal.so.30, libproj.so.22",
        ),
        (
            built(description("BB", "1.0", Built=BUILT), {"libs/BB.so": shared("libc.so.6", glibc="2.38")}),
            "needs glibc 2.38, but the base has 2.36",
        ),
        (
            built(description("BB", "1.0")),
            "the repository does not have it",
        ),  # Posit Package Manager gives the source when it has built none
    ],
)
def test_a_built_package_that_does_not_fit_is_left_and_the_lock_says_why(cran: Cran, made: bytes, why: str):
    cran.publish("2025-06-01", description("BB", "1.0"))
    shelve(cran, made, "BB_1.0")

    (pin,) = with_built(cran, "BB").pins

    assert (pin.data["no_binary"], pin.artifact.file, "form" in pin.data) == (why, "2025-06-01/BB_1.0.tar.gz", False)


@pytest.mark.parametrize(
    "files",
    [
        {"libs/BB.so": shared("libc.so.6", "libR.so", "libstdc++.so.6", "libblas.so.3", glibc="2.36")},
        {"libs/BB.so": shared("libown.so.1"), "lib/libown.so.1": shared()},  # it brings what it needs
        {"libs/BB.so": b"a script under a wrong name"},
        {},
    ],
)
def test_a_built_package_that_needs_what_is_there_is_taken(cran: Cran, files: dict[str, bytes]):
    cran.publish("2025-06-01", description("BB", "1.0"))
    shelve(cran, built(description("BB", "1.0", Built=BUILT if files else PURE), files), "BB_1.0")

    (pin,) = with_built(cran, "BB").pins

    assert pin.data["form"] == "binary"
    assert pin.data["platform"] == ("x86_64-pc-linux-gnu" if files else "")


def test_an_archived_version_and_one_in_a_folder_are_taken_built_too(cran: Cran):
    cran.publish("2025-06-01", description("BB", "2.0"), archived=[description("BB", "1.0")])
    contrib = cran.root / "cran/__linux__/jammy/2025-06-01/src/contrib/Archive/BB"
    contrib.mkdir(parents=True)
    (contrib / "BB_1.0.tar.gz").write_bytes(built(description("BB", "1.0", Built=PURE)))

    (pin,) = with_built(cran, "BB==1.0").pins

    assert (pin.version, pin.data["form"]) == ("1.0", "binary")


def test_another_package_than_asked_for_is_refused(cran: Cran):
    cran.publish("2025-06-01", description("BB", "1.0"))
    shelve(cran, built(description("BB", "1.1", Built=BUILT)), "BB_1.0")

    error = refusal(cran, step(["BB"], binaries="jammy"))

    assert error.message == "BB 1.0 for jammy is BB 1.1"


@pytest.mark.parametrize(
    ("evil", "why"),
    [
        (member("BB/../../etc/passwd"), "`BB/../../etc/passwd` leads out"),
        (member("elsewhere/x"), "two top folders, `BB` and `elsewhere`"),
        (member("BB/null", tarfile.CHRTYPE), "`BB/null` is a device"),
        (member("BB/a", tarfile.SYMTYPE, "/etc/shadow"), "`BB/a` is a link to `/etc/shadow`"),
        (member("BB/a", tarfile.LNKTYPE, "../x"), "`../x` leads out of its folder"),
        (member("BB/DESCRIPTION"), "`BB/DESCRIPTION` is contained twice"),
    ],
)
def test_a_hostile_built_package_is_refused_by_name_when_it_is_locked_and_when_it_is_placed(
    cran: Cran, tmp_path: Path, evil: tarfile.TarInfo, why: str
):
    cran.publish("2025-06-01", description("BB", "1.0"))
    made = built(description("BB", "1.0", Built=BUILT), extra=(evil,))
    shelve(cran, made, "BB_1.0")

    error = refusal(cran, step(["BB"], binaries="jammy"))

    assert error.message.startswith("BB 1.0 for jammy") and why in error.message
    (tmp_path / "x.tar.gz").write_bytes(made)
    two(Cran(tmp_path / "other"))
    library_ = with_built_pin(tmp_path / "again")
    segment = next(s for s in r.place(library_, ground(ENV, library_)).segments if s.name == "BB")
    with pytest.raises(CregraphError) as caught:
        list(r.entries(segment, Held(tmp_path / "x.tar.gz", tmp_path)))
    assert caught.value.message.startswith("BB (a built R package)")


def test_a_damaged_library_is_refused_by_name(cran: Cran):
    cran.publish("2025-06-01", description("BB", "1.0"))
    shelve(cran, built(description("BB", "1.0", Built=BUILT), {"libs/BB.so": shared("libx.so")[:200]}), "BB_1.0")

    assert refusal(cran, step(["BB"], binaries="jammy")).message.startswith(
        "BB 1.0 for jammy: `libs/BB.so` is a damaged ELF file"
    )


def test_a_repository_that_cannot_be_reached_is_an_error_and_no_reason_to_compile(cran: Cran):
    """Else one lock would depend on the network's mood."""
    cran.publish("2025-06-01", description("BB", "1.0"))
    sources = cran.sources()
    sources.table = Routes(cran=sources.table.cran, cran_binary=("http://127.0.0.1:9/{distribution}/{date}",))

    given = PinContext(project=cran.project, shipped=cran.shipped, targets=(conda(),), today="2025-06-01")

    with pytest.raises(CregraphError, match="but --offline is set"):
        r.pin(target(step(["BB"], binaries="jammy")), sources, given)


def test_binaries_without_a_dated_address_are_refused_with_the_way_out(cran: Cran):
    cran.publish("2025-06-01", description("BB", "1.0"))
    sources = cran.sources()
    sources.table = Routes(cran=((cran.root / "cran/2025-06-01").as_uri(),))

    with pytest.raises(CregraphError) as caught:
        r.pin(
            target(step(["BB"], binaries="jammy")),
            sources,
            PinContext(project=cran.project, shipped=cran.shipped, targets=(conda(),)),
        )

    assert "need an address of source `cran` with" in caught.value.message
    assert "`cran_binary:" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["Jammy", "../x", "jammy/4.4", "a b", ""])
def test_what_is_no_distribution_is_refused_with_its_line(name: str):
    with pytest.raises(CregraphError, match="is not the name of a Linux distribution"):
        r.ask(step(["BB"], binaries=name))


def test_a_built_package_given_as_a_tarball_is_refused(cran: Cran):
    """R would install it, and nobody would have looked whether it fits."""
    (cran.project / "mine.tar.gz").write_bytes(built(description("mine", "1.0", Built=BUILT)))

    error = refusal(cran, step({"mine": "./mine.tar.gz"}, "tarballs"))

    assert error.message == (
        "team.yaml:20: tarballs.mine: `./mine.tar.gz` is a built package (DESCRIPTION: Built; expected a source package)"
    )


# --- locking again ---------------------------------------------------------------------------------------------------


def test_pins_stay_and_nobody_is_asked_while_distribution_and_r_stay(cran: Cran):
    two(cran)
    before = with_built(cran, "AA")
    cran.reads.clear()
    (cran.root / "cran").rename(cran.root / "gone")

    again = with_built(cran, "AA", locked=before.pins)

    assert again.pins == before.pins
    assert cran.reads == []


def test_asking_for_built_packages_moves_no_version_and_no_day(cran: Cran):
    two(cran)
    sources = pinned(cran, step(["AA"]))
    cran.publish("2025-07-01", description("AA", "2.0", Imports="BB"), description("BB", "2.0"))

    after = with_built(cran, "AA", locked=sources.pins, today="2025-07-01")
    back = pinned(cran, step(["AA"]), locked=after.pins, today="2025-07-01")

    assert [(p.name, p.version, p.data["snapshot"], p.data.get("form")) for p in after.pins] == [
        ("AA", "1.0", "2025-06-01", None),
        ("BB", "1.0", "2025-06-01", "binary"),
    ]
    assert back.pins == sources.pins


def test_another_r_asks_anew(cran: Cran):
    two(cran)
    before = with_built(cran, "AA")
    newer = dataclasses.replace(conda(), pins=tuple(
        dataclasses.replace(p, version="4.5.0", provides=("conda:r-base 4.5.0", "r:base 4.5.0")) for p in conda().pins
    ))  # fmt: skip

    after = with_built(cran, "AA", locked=before.pins, env=newer)

    assert [p.data["no_binary"] for p in after.pins] == ["the repository does not have it", "is built for R 4.4.1"]
    assert [p.version for p in after.pins] == ["1.0", "1.0"]


def test_a_merge_that_moved_r_away_from_a_built_package_leaves_a_hole(cran: Cran):
    two(cran)
    found = with_built(cran, "AA")

    def lock(version: str) -> Lock:
        env = conda()
        moved = dataclasses.replace(env.pins[0], version=version, provides=(f"conda:r-base {version}", f"r:base {version}"))
        return Lock(
            identity=Identity(name="x", image="x", label="v1", tag="v1"),
            stages=(),
            targets=(dataclasses.replace(env, pins=(moved, *env.pins[1:])), found),
        )

    assert find_problems(lock("4.4.3"), KINDS) == {}
    assert find_problems(lock("4.5.1"), KINDS) == {found.id: ["`BB` 1.0 is built for R 4.4.1, but the lock has R 4.5.1"]}


# --- placing ---------------------------------------------------------------------------------------------------------


def with_built_pin(root: Path) -> Target:
    cran = Cran(root)
    two(cran)
    return pinned(cran, step(["AA"], binaries="jammy"), env=ENV, facts=facts())


class Held(Result):
    """An artifact, with scratch files on disk as a build has them."""

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path)
        self.folder = folder

    def scratch(self) -> IO[bytes]:
        return (self.folder / "scratch").open("w+b")


def test_a_built_package_is_a_segment_without_a_task_and_what_needs_it_sees_it(tmp_path: Path):
    found = with_built_pin(tmp_path)

    placed = r.place(found, ground(ENV, found))

    segments = {s.name: s for s in placed.segments}
    (task,) = placed.tasks
    assert (segments["BB"].task_key, segments["BB"].artifact) == (None, found.pins[1].artifact)
    assert segments["BB"].place == {"at": f"{LIBRARY}/BB", "form": "binary"}
    assert task.name == "AA" and task.results == {}
    assert segments["BB"].key in task.environment
    assert placed.of == {name: s.key for name, s in segments.items()}


def test_a_built_packages_bytes_decide_the_keys_of_what_needs_it_and_where_they_lay_does_not(tmp_path: Path):
    found = with_built_pin(tmp_path)

    def keys(**change: str) -> tuple[list[str], list[str]]:
        b = found.pins[1]
        moved = dataclasses.replace(
            found, pins=(found.pins[0], dataclasses.replace(b, artifact=dataclasses.replace(b.artifact, **change)))
        )
        placed = r.place(moved, ground(ENV, moved))
        return [t.key for t in placed.tasks], [s.key for s in placed.segments]

    assert keys(file="noble/4.4/2026-01-01/BB_1.0.tar.gz") == keys()
    tasks, segments = keys(sha256="f" * 64)
    assert not set(tasks) & set(keys()[0]) and not set(segments) & set(keys()[1])


def test_entries_of_a_built_package_are_its_files_below_its_place(tmp_path: Path):
    found = with_built_pin(tmp_path)
    segment = next(s for s in r.place(found, ground(ENV, found)).segments if s.name == "BB")
    library_ = shared("libR.so") * 10_000
    made = built(
        description("BB", "1.0", Built=BUILT),
        {"libs/BB.so": library_},
        extra=(member("BB/link", tarfile.SYMTYPE, "DESCRIPTION"), member("BB/hard", tarfile.LNKTYPE, "BB/libs/BB.so")),
    )
    (tmp_path / "x.tar.gz").write_bytes(made)

    entries = {e.path: e for e in r.entries(segment, Held(tmp_path / "x.tar.gz", tmp_path))}

    at = f"{LIBRARY}/BB".lstrip("/")
    assert {(p.removeprefix(at + "/"), e.type, e.mode, e.link.removeprefix(at + "/")) for p, e in entries.items()} == {
        ("DESCRIPTION", "file", 0o644, ""),
        ("Meta/package.rds", "file", 0o644, ""),
        ("libs/BB.so", "file", 0o755, ""),
        ("link", "symlink", 0o777, "DESCRIPTION"),
        ("hard", "hardlink", 0o644, "libs/BB.so"),
    }
    for _ in range(2):
        chunks = entries[f"{at}/libs/BB.so"].chunks
        assert chunks is not None and b"".join(chunks()) == library_


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "wheel"}, "R package BB: the lock's `data.form` is missing or invalid"),
        ({"form": None}, "R package BB: the lock's `data.form` is missing or invalid"),
    ],
)
def test_a_form_edited_by_hand_is_refused(tmp_path: Path, change: dict[str, Any], message: str):
    found = with_built_pin(tmp_path)
    b = found.pins[1]
    edited = dataclasses.replace(found, pins=(found.pins[0], dataclasses.replace(b, data={**b.data, **change})))

    with pytest.raises(CregraphError) as caught:
        r.place(edited, ground(ENV, edited))

    assert caught.value.message == message


def test_the_result_of_a_task_has_no_built_form(tmp_path: Path):
    found = with_built_pin(tmp_path)
    a = found.pins[0]
    edited = dataclasses.replace(found, pins=(dataclasses.replace(a, data={**a.data, "form": "binary"}), found.pins[1]))

    with pytest.raises(CregraphError, match=r"R package AA: the lock's `data\.form` is missing or invalid"):
        r.place(edited, ground(ENV, edited))


# --- where they lie --------------------------------------------------------------------------------------------------


def test_posits_addresses_follow_from_crans_and_name_r_and_processor():
    routes = Routes(cran=("https://ppm.example/cran/{date}", "https://cran.example"))

    assert source.locations(routes.binaries(), "jammy/4.4/2025-06-01/BB_1.0.tar.gz") == (
        "https://ppm.example/cran/__linux__/jammy/2025-06-01/src/contrib/BB_1.0.tar.gz?r_version=4.4&arch=x86_64",
        "https://ppm.example/cran/__linux__/jammy/2025-06-01/src/contrib/Archive/BB/BB_1.0.tar.gz?r_version=4.4&arch=x86_64",
    )


def test_a_repository_of_its_own_is_named_in_sources(tmp_path: Path):
    routes = read_routes(
        "cran_binary: ['./shelf/{distribution}/{r}/{date}', 'https://u.example/bin/linux/{distribution}/{r}']\n",
        name="sources.yaml",
        folder=tmp_path,
    )

    assert source.locations(routes.binaries(), "jammy/4.4/2025-06-01/4.4.0/Recommended/BB_1.0.tar.gz") == (
        f"{tmp_path.as_uri()}/shelf/jammy/4.4/2025-06-01/src/contrib/4.4.0/Recommended/BB_1.0.tar.gz",
        f"{tmp_path.as_uri()}/shelf/jammy/4.4/2025-06-01/src/contrib/BB_1.0.tar.gz",
        f"{tmp_path.as_uri()}/shelf/jammy/4.4/2025-06-01/src/contrib/Archive/BB/BB_1.0.tar.gz",
        "https://u.example/bin/linux/jammy/4.4/src/contrib/4.4.0/Recommended/BB_1.0.tar.gz",
        "https://u.example/bin/linux/jammy/4.4/src/contrib/BB_1.0.tar.gz",
        "https://u.example/bin/linux/jammy/4.4/src/contrib/Archive/BB/BB_1.0.tar.gz",
    )


@pytest.mark.parametrize(
    "file", ["jammy/4.4/../x_1.0.tar.gz", "../4.4/2025-06-01/x_1.0.tar.gz", "jammy/2025-06-01/BB_1.0.tar.gz", "jammy/4.4/BB"]
)
def test_a_file_of_another_form_never_becomes_an_address(file: str):
    with pytest.raises(CregraphError, match="is not a file of source `cran`"):
        source.locations(["https://a.example/{distribution}/{date}"], file)


# --- what a library asks for -----------------------------------------------------------------------------------------


def test_libraries_are_read_as_the_loader_reads_them():
    found = library(shared("libR.so", "libgdal.so.30", glibc="2.34"))

    assert (found.x86_64, found.needed, found.glibc) == (True, ("libR.so", "libgdal.so.30"), "2.34")


def test_what_a_damaged_library_holds_ends_in_words_and_soon():
    good = shared("libR.so", "libgdal.so.30", glibc="2.34")
    for at in range(len(good)):
        for data in (good[:at], good[:at] + b"\xff" + good[at + 1 :], good[:at] + b"\0" + good[at + 1 :]):
            try:
                library(data)
            except ValueError as error:
                assert "ELF" in str(error)


def test_platforms_and_versions_are_compared_as_numbers(tmp_path: Path):
    (tmp_path / "x.tar.gz").write_bytes(
        built(description("BB", "1.0", Built=BUILT.replace("pc", "unknown")), {"libs/BB.so": shared(glibc="2.4")})
    )
    found = read_built(tmp_path / "x.tar.gz", what="x")

    assert found is not None
    assert unfit(found, r_minor="4.4", glibc="2.36") is None
    assert unfit(found, r_minor="4.4", glibc=None) is None
    assert unfit(found, r_minor="4.40", glibc=None) == "is built for R 4.4.1"
