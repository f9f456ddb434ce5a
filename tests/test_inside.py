"""The program that makes the contract inside a container: its bytes, its orders, its answer."""

from __future__ import annotations

import io
import re
import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cregraph.digest import sha256
from cregraph.engines import calls, contract, inside
from cregraph.engines.capture import Undeclared, capture, capture_tar
from cregraph.engines.contract import Limits, TaskFailed
from cregraph.engines.inside import Report
from cregraph.errors import CregraphError
from cregraph.plan.parts import Task, task
from tests import sandbox_root
from tests.faults import GENEROUS

SOURCE = Path(inside.__file__).with_name("inside.c")

#: How the program is built: COMPILER gives the very bytes of `inside.SHA256`, another one the same behaviour.
COMPILER = "gcc (Debian 12.2.0-14+deb12u1) 12.2.0"
BUILD = (
    *("gcc", "-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-Wl,--build-id=none", "-Wl,-z,noseparate-code"),
    *("-Wl,-z,norelro", "-s", "-o", "inside.x86-64", "inside.c"),
)


def a_task(output: str = "/cregraph/out") -> Task:
    digest = "sha256:" + "0" * 64
    return task(assembly=1, kind="t", stage="t", name="zoo", root=digest, argv=("true",), env={}, output=output)


def spec(**more: object) -> bytes:
    given: dict[str, object] = {"argv": ["/bin/true"], "env": {}, "cwd": contract.WORK, "output": "/o", "limits": Limits()}
    return inside.spec(**{**given, **more})  # type: ignore[arg-type]


# The program


def compiler() -> str:
    if not shutil.which("gcc"):
        pytest.skip("no gcc here")
    return subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def rebuilt(folder: Path) -> bytes:
    shutil.copy(SOURCE, folder)
    subprocess.run([*BUILD, "-Wall", "-Wextra", "-Werror"], cwd=folder, check=True)
    return (folder / "inside.x86-64").read_bytes()


def test_the_program_is_the_one_whose_sum_is_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = inside.program()
    assert sha256(data) == inside.SHA256
    assert data[:5] == b"\x7fELF\x02" and len(data) < 32 << 10
    monkeypatch.setattr(inside, "SHA256", "0" * 64)
    with pytest.raises(CregraphError, match="this version came with 0000"):
        inside.program()


def test_the_program_comes_from_its_source(tmp_path: Path) -> None:
    """The very bytes with the compiler that is stated; with another one the next test says whether it behaves the same."""
    here = compiler()
    data = rebuilt(tmp_path)
    if here != COMPILER:
        pytest.skip(f"{here} is not {COMPILER}")
    assert sha256(data) == inside.SHA256, "inside.c was changed: build it anew with BUILD, and state the sum in inside.py"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A root, as a container would have it, in which the program can be started by `unshare`."""
    if sandbox_root.missing("unshare", "mount", "chroot"):
        pytest.skip(str(sandbox_root.missing("unshare", "mount", "chroot")))
    folder = Path(tempfile.mkdtemp(prefix="cregraph-inside-", dir="/var/tmp"))
    root = folder / "root"
    root.mkdir()
    with tarfile.open(fileobj=io.BytesIO(sandbox_root.layer())) as tar:
        tar.extraction_filter = lambda member, path: member  # the argument `filter` came with Python 3.11.4
        tar.extractall(root, members=[m for m in tar if not m.ischr()])
    for path, mode in contract.FOLDERS.items():
        (root / path[1:]).mkdir(parents=True, exist_ok=True)
        (root / path[1:]).chmod(mode)
    for path, text in contract.FILES.items():
        (root / path[1:]).write_text(text)
    (root / ".dockerenv").touch()
    try:
        yield root
    finally:
        subprocess.run(["rm", "-rf", folder], check=False)


#: What a container engine does, in short: file systems, loopback, a host name, the program as process 1.
START = """
mount --bind {root} {root} && mount --make-rprivate / && cd {root} && mount -t proc proc proc && mount -t tmpfs none dev &&
mount -t tmpfs -o size=4m none tmp && mkdir dev/shm && mount -t tmpfs -o size=4m none dev/shm &&
for each in null zero full random urandom; do touch dev/$each && mount --bind /dev/$each dev/$each; done &&
ln -s /proc/self/fd dev/fd && ln -s /proc/kcore dev/core && hostname cregraph && {network} exec chroot . /cregraph/enter
"""
UP = "python3 -c '{}' && "
LOOPBACK = 'import fcntl,socket,struct; s=socket.socket(); fcntl.ioctl(s, 0x8914, struct.pack("16sh22x", b"lo", 1))'


def start(root: Path, program: bytes, orders: bytes, *, network: bool = True) -> subprocess.CompletedProcess[bytes]:
    (root / "cregraph/enter").write_bytes(program)
    (root / "cregraph/enter").chmod(0o755)
    (root / "cregraph/spec").write_bytes(orders)
    script = START.format(root=root, network=UP.format(LOOPBACK) if network else "")
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--net",
        "--uts",
        "--ipc",
        "bash",
        "-c",
        script,
    ]
    done = subprocess.run(command, capture_output=True, timeout=GENEROUS)
    if b"unshare" in done.stderr and b"not permitted" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.decode()}")
    return done


ORDERS: dict[str, object] = {"limits": Limits(temporary=4 << 20, spare=0), "output": "/cregraph/out"}
SCRIPT = (
    "echo told; ls -A / /cregraph /dev /etc > /cregraph/out/ls; echo $0 $MINE > /cregraph/out/env; "
    "while read -r l; do case $l in Cap*|NoNew*) echo $l;; esac; done < /proc/self/status > /cregraph/out/caps; "
    "rm -r /opt/locked; echo > /usr/stray"
)


@pytest.mark.parametrize("which", ["shipped", "rebuilt"])
def test_it_makes_the_contract_where_there_is_nothing_but_itself(place: Path, tmp_path: Path, which: str) -> None:
    program = inside.program()
    if which == "rebuilt":
        compiler()
        program = rebuilt(tmp_path)
    done = start(place, program, spec(argv=["bash", "-c", SCRIPT, "zero"], env={"MINE": "1"}, **ORDERS))
    out = place / "cregraph/out"
    if not (place / "cregraph/report").exists():
        pytest.skip(f"no such place can be made here: {done.stderr.decode(errors='replace')}")
    report = inside.read_report((place / "cregraph/report").read_bytes())
    assert report == Report(exit=0, output="/cregraph/out", changes=("deleted /opt/locked", "wrote /usr/stray"), count=2)
    assert inside.report_in(done.stderr) == report
    assert done.stdout.splitlines()[-1] == b"told"
    assert done.returncode != 0
    assert (out / "env").read_text() == "zero 1\n"
    listed = (out / "ls").read_text()
    assert not re.search(r"dockerenv|^enter$|^spec$|^core$|^report$", listed, flags=re.MULTILINE)
    assert {"mtab", "hosts", "pts", "mqueue"} <= set(listed.split())
    caps = dict(line.split("\t") for line in (out / "caps").read_text().replace(": ", ":\t").replace(":\t", "\t").splitlines())
    assert caps["CapEff"] == caps["CapBnd"] == f"{sum(1 << n for n in contract.KEPT):016x}" and caps["NoNewPrivs"] == "1"


@pytest.mark.parametrize(
    ("orders", "words"),
    [
        (b"", "it was told is of another version"),
        (b"cregraph-spec 2\0.\0", "it was told is of another version"),
        (spec(**ORDERS)[:-2], "it was told is cut"),
        (spec(**ORDERS).replace(b"\0lseconds=", b"\0lhours="), "a limit that it does not know: hours=7200"),
        (spec(**ORDERS).replace(b"\0hcregraph\0", b"\0hcregraph\0?x\0"), "it does not understand: ?x"),
        (spec(**{**ORDERS, "cwd": "/nowhere"}), "its folder cannot be entered: /nowhere"),
        (spec(**{**ORDERS, "limits": Limits(temporary=1 << 20, spare=0)}), "there is no limit to /tmp"),
    ],
)
def test_orders_that_it_cannot_follow_are_refused(place: Path, orders: bytes, words: str) -> None:
    done = start(place, inside.program(), orders)
    report = inside.report_in(done.stderr)
    if report is None:
        pytest.skip(f"no such place can be made here: {done.stderr.decode(errors='replace')}")
    assert report.setup is not None and words in report.setup
    with pytest.raises(CregraphError, match="cannot be made in this container"):
        inside.judge(report, a_task())


def test_a_place_without_a_loopback_is_refused(place: Path) -> None:
    done = start(place, inside.program(), spec(**ORDERS), network=False)
    report = inside.report_in(done.stderr)
    if report is None:
        pytest.skip(f"no such place can be made here: {done.stderr.decode(errors='replace')}")
    assert report.setup == "its loopback interface is not up"


def test_outside_a_container_it_touches_nothing(tmp_path: Path) -> None:
    program = tmp_path / "enter"
    program.write_bytes(inside.program())
    program.chmod(0o755)
    done = subprocess.run([program], capture_output=True)
    assert done.returncode == 220
    report = inside.report_in(done.stderr)
    assert report is not None and report.setup == "it was not told what to do: there is no /cregraph/spec"


# Orders and answers


def test_orders_are_records_without_ambiguity() -> None:
    records = spec(argv=["a", "", "w/etc"], env={"B": "2\n3", "HOME": "/h"}, slot=1).split(b"\0")
    assert records[0] == b"cregraph-spec 1" and records[-2:] == [b".", b""]
    assert [r for r in records if r[:1] == b"a"] == [b"aa", b"a", b"aw/etc"]
    assert b"eB=2\n3" in records and b"eHOME=/h" in records and b"eHOME=/cregraph/home" not in records
    assert b"c1" in records and b"T" not in records
    assert b"T" in spec(terminal=True).split(b"\0")
    with pytest.raises(ValueError, match="NUL"):
        spec(argv=["a\0b"])


def report_of(*records: bytes) -> bytes:
    return b"".join(record + b"\0" for record in (b"cregraph-report 1", *records, b"."))


def test_an_answer_is_read_whole_or_not_at_all() -> None:
    found = inside.read_report(report_of(b"x-9", b"o/o", b"eit ran", b"w/b", b"d/a\xff", b"W/c", b"a/aa", b"n4"))
    assert found == Report(
        exit=-9,
        end="it ran",
        output="/o",
        changes=("deleted /a\\xff", "deleted /aa and wrote it again", "wrote /b", "wrote /c/"),
        count=4,
    )
    for bad in (b"", b"x", report_of(b"x0", b"o/o")[:-2], report_of(b"x0"), report_of(b"xq", b"o/o")):
        with pytest.raises(ValueError):
            inside.read_report(bad)
    printed = b"text\ncregraph-report: " + report_of(b"x1", b"o/o").hex().encode() + b"\n"
    assert inside.report_in(printed) == Report(exit=1, output="/o")
    for other in (b"text\n", b"cregraph-report: 00\n", printed + b"more\n"):
        assert inside.report_in(other) is None


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (Report(exit=0, output="/o", end="it ran longer than 1 s"), "it was ended: it ran longer than 1 s"),
        (Report(exit=3, output="/o"), "its command ended with exit status 3"),
        (Report(exit=-11, output="/o"), "its command was killed by signal 11 (Segmentation fault)"),
        (Report(output="/o", gone=True), "it removed its output folder /cregraph/out"),
        (Report(output="/o", odd=("d/s", "a socket")), "its output holds `d/s`, which is no file, folder or link but a socket"),
    ],
)
def test_answers_are_judged_in_the_words_of_the_native_engine(report: Report, words: str) -> None:
    with pytest.raises(TaskFailed) as error:
        inside.judge(report, a_task())
    assert error.value.reason == words


def test_many_changes_are_counted() -> None:
    with pytest.raises(Undeclared) as error:
        inside.judge(Report(output="/o", changes=tuple(f"wrote /{i:02}" for i in range(12)), count=5000), a_task())
    assert error.value.reason.endswith("\n  wrote /09\n  and 4990 more")


def test_the_filter_is_a_program_that_the_kernel_takes() -> None:
    assert len(calls.FILTER) % 8 == 0 and len(calls.FILTER) // 8 < 256  # a jump is one byte
    codes = {calls.FILTER[at] for at in range(0, len(calls.FILTER), 8)}
    assert codes == {0x20, 0x15, 0x35, 0x45, 0x06}
    assert calls.FILTER[-8:-6] == b"\x06\x00"


# A result out of an engine's tar


def taken(data: bytes, **more: object) -> tuple[bytes, dict[str, bytes]]:
    out = io.BytesIO()
    given: dict[str, object] = {"at": "/out", "limit": 1 << 20, "scratch": tempfile.TemporaryFile}
    also = capture_tar(io.BytesIO(data), out.write, **{**given, **more})  # type: ignore[arg-type]
    return out.getvalue(), also


def folder_with_everything(folder: Path) -> Path:
    (folder / "R").mkdir()
    (folder / "R/pkg.rdb").write_bytes(bytes(range(256)) * 5)
    (folder / ("n" * 120 + "-\u00e9")).write_text("long")
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o700)
    (folder / "link").symlink_to("R/pkg.rdb")
    (folder / "empty").mkdir(mode=0o700)
    (folder / "hard").hardlink_to(folder / "run")
    (folder / "R.d").write_text("sorted by bytes, after the folder R and before what is in it")
    return folder


def test_a_tar_gives_the_same_bytes_as_the_folder(tmp_path: Path) -> None:
    folder = folder_with_everything(tmp_path)
    wanted = io.BytesIO()
    capture(folder, wanted.write, at="/out", limit=1 << 20)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        for order in (names, names[::-1]):
            data = io.BytesIO()
            with tarfile.open(fileobj=data, mode="w", format=form) as tar:
                tar.add(folder, "left/out", recursive=False)
                for name in order:
                    tar.add(folder / name, f"left/out/{name}", recursive=False)
                for name in ("report", "left/outside"):
                    info = tarfile.TarInfo(name)
                    info.size = 5
                    tar.addfile(info, io.BytesIO(b"beside"[:5]))
            assert taken(data.getvalue(), below="left/out", also=("report",)) == (wanted.getvalue(), {"report": b"besid"})


def tar_with(*members: tuple[str, bytes, dict[str, object]]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, kind, more in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return data.getvalue()


OUT = ("out", tarfile.DIRTYPE, {})


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([OUT], "it left its output folder /out empty"),
        ([("other/x", tarfile.REGTYPE, {})], "it removed its output folder /out"),
        ([("out", tarfile.SYMTYPE, {"linkname": "/usr"})], "it removed its output folder /out"),
        ([OUT, ("out/x", tarfile.REGTYPE, {"size": 2 << 20})], "its output is larger than 1 MiB"),
        ([OUT, ("out/x", tarfile.REGTYPE, {"mode": 0o4755})], "`x`, which is set to run as another user (mode 4755)"),
        (
            [OUT, ("out/x", tarfile.SYMTYPE, {"linkname": "/etc/passwd"})],
            "the link `x` to `/etc/passwd`, outside the output folder",
        ),
        ([OUT, ("out/x", tarfile.FIFOTYPE, {})], "`x`, which is no file, folder or link but a"),
        (
            [OUT, ("out/x", tarfile.LNKTYPE, {"linkname": "etc/passwd"})],
            "the hard link `out/x` to `etc/passwd`, outside the output folder",
        ),
        ([OUT, ("out/\udcff", tarfile.REGTYPE, {})], "which is not UTF-8"),
    ],
)
def test_what_no_image_should_get_is_refused_by_name(members: list[tuple[str, bytes, dict[str, object]]], words: str) -> None:
    with pytest.raises(TaskFailed) as error:
        taken(tar_with(*members), below="out")
    assert words in error.value.reason


def test_a_tar_that_is_cut_or_climbs_is_no_result() -> None:
    whole = tar_with(OUT, ("out/x", tarfile.REGTYPE, {"size": 900}))
    for bad in (whole[:1200], tar_with(OUT, ("out/../x", tarfile.REGTYPE, {})), b"not a tar" * 200):
        with pytest.raises(CregraphError):
            taken(bad, below="out")


def test_a_socket_in_an_output_is_refused_natively_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "s"))
        with pytest.raises(TaskFailed, match="`s`, which is no file, folder or link but a socket"):
            capture(tmp_path, lambda _data: None, at="/out", limit=1)
