"""The script that makes the contract inside a container: its orders, its answer, and what it refuses."""

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
from typing import Any

import pytest

from cregraph.engines import calls, contract, inside
from cregraph.engines.capture import Undeclared, capture, capture_tar
from cregraph.engines.contract import Limits, TaskFailed
from cregraph.engines.inside import Report
from cregraph.errors import CregraphError
from cregraph.plan.parts import Task, task
from tests import sandbox_root
from tests.faults import GENEROUS


def a_task(*argv: str, **more: Any) -> Task:
    digest = "sha256:" + "0" * 64
    given = {"kind": "t", "stage": "t", "name": "zoo", "root": digest, "env": {}, "output": "/cregraph/out", "cwd": contract.WORK}
    return task(assembly=1, argv=argv or ("true",), **{**given, **more})


LIMITS = Limits(temporary=4 << 20, spare=0)


def orders(*argv: str, limits: Limits = LIMITS, **more: Any) -> bytes:
    return inside.orders(a_task(*argv, **more), limits=limits)


# The script


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_each_shell_that_is_somewhere_called_sh_reads_the_script(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n"], input=inside.program() + orders("x"), check=True, timeout=GENEROUS)


def test_the_linter_for_shells_finds_nothing_in_the_script() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here")
    done = subprocess.run(["shellcheck", "-"], input=inside.program(), capture_output=True, timeout=GENEROUS)
    assert (done.returncode, done.stdout.decode()) == (0, "")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A root, as a container would have it, in which the program can be started by `unshare`."""
    if sandbox_root.missing("unshare", "mount", "chroot"):
        pytest.skip(str(sandbox_root.missing("unshare", "mount", "chroot")))
    folder = Path(tempfile.mkdtemp(prefix="cregraph-inside-", dir="/var/tmp"))
    root = folder / "root"
    root.mkdir()
    for layer in (sandbox_root.layer(), inside.skeleton()):
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            tar.extraction_filter = lambda member, path: member  # the argument `filter` came with Python 3.11.4
            tar.extractall(root, members=[m for m in tar if not m.ischr()])
    (root / ".dockerenv").touch()
    try:
        yield root
    finally:
        subprocess.run(["rm", "-rf", folder], check=False)


#: What a container engine does, in short: file systems, loopback, a host name, the script as process 1.
START = """
mount --bind {root} {root} && mount --make-rprivate / && cd {root} && mount -t proc proc proc && mount -t tmpfs none dev &&
mount -t sysfs none sys && mount -t tmpfs -o size=4m none tmp && mkdir dev/shm && mount -t tmpfs -o size=4m none dev/shm &&
for each in null zero full random urandom; do touch dev/$each && mount --bind /dev/$each dev/$each; done &&
ln -s /proc/self/fd dev/fd && ln -s /proc/kcore dev/core && hostname cregraph && {network} exec chroot . /cregraph/enter
"""
UP = "python3 -c '{}' && "
LOOPBACK = 'import fcntl,socket,struct; s=socket.socket(); fcntl.ioctl(s, 0x8914, struct.pack("16sh22x", b"lo", 1))'


def start(root: Path, told: bytes | None, *, network: bool = True) -> subprocess.CompletedProcess[bytes]:
    (root / "cregraph/enter").write_bytes(inside.program())
    (root / "cregraph/enter").chmod(0o755)
    if told is not None:
        (root / "cregraph/orders").write_bytes(told)
    script = START.format(root=root, network=UP.format(LOOPBACK) if network else "")
    words = ("--user", "--map-root-user", "--mount", "--pid", "--fork", "--net", "--uts", "--ipc", "bash", "-c", script)
    done = subprocess.run(["unshare", *words], capture_output=True, timeout=GENEROUS)
    if b"cregraph-report: " not in done.stderr and done.returncode:
        pytest.skip(f"no such place can be made here: {done.stderr.decode(errors='replace')}")
    return done


SCRIPT = (
    "echo told; ls -A / /cregraph /dev /etc > /cregraph/out/ls; echo $0 $MINE > /cregraph/out/env; "
    "while read -r l; do case $l in Cap*|NoNew*) echo $l;; esac; done < /proc/self/status > /cregraph/out/caps; "
    "[ -z $STRAY ] || { rm -r /opt/locked; echo > /usr/stray; }"
)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_it_makes_the_contract_in_a_container_that_has_only_the_usual_programs(place: Path, shell: str) -> None:
    which = shutil.which(shell)
    if not which:
        pytest.skip(f"no {shell} here")
    shutil.copy(Path(which).resolve(), place / "usr/bin/sh")
    done = start(place, orders("bash", "-c", SCRIPT, "zero", env={"MINE": "1 'a\"$x\n", "STRAY": ""}))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, b"told"), done.stderr
    assert inside.report_in(done.stderr) is None
    out = place / "cregraph/out"
    assert (out / "env").read_text() == "zero 1 'a\"$x\n"
    listed = (out / "ls").read_text()
    assert not re.search(r"dockerenv|^enter$|^orders$|^core$", listed, flags=re.MULTILINE)
    assert {"mtab", "hosts", "pts", "mqueue"} <= set(listed.split())
    caps = dict(line.split(": ") for line in (out / "caps").read_text().splitlines())
    assert caps["CapEff"] == caps["CapBnd"] == f"{sum(1 << n for n in contract.KEPT.values()):016x}" and caps["NoNewPrivs"] == "1"


def test_what_a_command_changes_elsewhere_is_named(place: Path) -> None:
    done = start(place, orders("bash", "-c", SCRIPT, env={"STRAY": "yes"}))
    assert done.returncode == 210
    assert inside.report_in(done.stderr) == Report(changes=("deleted /opt/locked", "wrote /usr/stray"))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (None, "it was not told what to do: /cregraph/orders is missing"),
        (orders(cwd="/nowhere"), "its folder cannot be entered: /nowhere"),
        (orders(limits=Limits(temporary=1 << 20, spare=0)), "there is no limit to /tmp"),
        (orders().replace(b"hostname=cregraph", b"hostname=other"), "its host name is not other"),
    ],
    ids=["none", "folder", "limit", "name"],
)
def test_a_place_that_is_not_as_it_must_be_is_refused(place: Path, told: bytes | None, words: str) -> None:
    done = start(place, told)
    report = inside.report_in(done.stderr)
    assert done.returncode == inside.NOT_MADE and report is not None
    assert report.setup == words
    with pytest.raises(CregraphError, match="cannot be made in this container"):
        inside.judge(report, a_task())


def test_a_place_without_a_loopback_is_refused(place: Path) -> None:
    report = inside.report_in(start(place, orders(), network=False).stderr)
    assert report == Report(setup="its loopback interface is not up")


@pytest.mark.parametrize("program", ["setpriv", "taskset", "find"])
def test_a_root_that_lacks_a_program_is_refused_by_its_name(place: Path, program: str) -> None:
    (place / "usr/bin" / program).unlink()
    assert inside.report_in(start(place, orders()).stderr) == Report(setup=f"the build root lacks the program {program}")


def test_outside_a_container_it_touches_nothing(tmp_path: Path) -> None:
    done = subprocess.run(["sh", "-s"], input=inside.program(), capture_output=True, cwd=tmp_path)
    assert done.returncode == inside.NOT_MADE
    report = inside.report_in(done.stderr)
    assert report == Report(setup="it is not the first process of a container, or not uid 0")


# Orders and answers


def test_orders_hold_every_word_as_it_is(tmp_path: Path) -> None:
    odd = ["a b", "", "$(touch x)", "`id`", "'\"", "new\nline", "-n", "ä"]
    script = orders("printf", "%s\\0", *odd, env={"B": "2\n3", "HOME": "/h"}) + b"\nstart\n"
    done = subprocess.run(["sh", "-s"], input=script, capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout.split(b"\0")[:-1] == [text.encode() for text in odd]
    done = subprocess.run(
        ["sh", "-s"], input=orders("env", "-0", env={"B": "2\n3", "HOME": "/h"}) + b"start\n", capture_output=True
    )
    env = dict(line.split("=", 1) for line in done.stdout.decode().split("\0")[:-1])
    assert env == {**contract.ENVIRONMENT, "B": "2\n3", "HOME": "/h"}


@pytest.mark.parametrize(
    ("words", "report"),
    [
        ("setup it lacks x", Report(setup="it lacks x")),
        ("end it ran long", Report(end="it ran long", exit=-9)),
        ("exit 7", Report(exit=7)),
        ("exit 139", Report(exit=-11)),
        ("exit 200", Report(exit=200)),
        ("gone", Report(gone=True)),
        ("odd p d/pipe a", Report(odd=("d/pipe a", "a FIFO"))),
        ("odd c x", Report(odd=("x", "a device"))),
        (
            "changes\nd /aa\nf.644.1 /a\\xff\nf.644.1 /aa/x\nf.644.1 /b\n\tf.644.2 /b\n\td /c\n\tf.1 /c/x",
            Report(changes=("deleted /a\\xff", "deleted /aa", "wrote /b", "wrote /c/")),
        ),
        ("exit x", None),
        ("else", None),
    ],
)
def test_an_answer_is_the_last_words_of_the_script(words: str, report: Report | None) -> None:
    assert inside.report_in(f"text\ncregraph-report: exit 3\nSegmentation fault\ncregraph-report: {words}\n".encode()) == report
    assert inside.report_in(words.encode()) is None


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (Report(end="it ran longer than 1 s"), "it was ended: it ran longer than 1 s"),
        (Report(exit=3), "its command ended with exit status 3"),
        (Report(exit=-11), "its command was killed by signal 11 (Segmentation fault)"),
        (Report(gone=True), "it removed its output folder /cregraph/out"),
        (Report(odd=("d/s", "a socket")), "its output holds `d/s`, which is not a file, folder or link but a socket"),
    ],
)
def test_answers_are_judged_in_the_words_of_the_native_engine(report: Report, words: str) -> None:
    with pytest.raises(TaskFailed) as error:
        inside.judge(report, a_task())
    assert error.value.reason == words


def test_many_changes_are_counted() -> None:
    with pytest.raises(Undeclared) as error:
        inside.judge(Report(changes=tuple(f"wrote /{i:04}" for i in range(5000))), a_task())
    assert error.value.reason.endswith("\n  wrote /0009\n  and 4990 more")


def test_the_filter_is_a_program_that_the_kernel_takes() -> None:
    assert len(calls.FILTER) % 8 == 0 and len(calls.FILTER) // 8 < 256  # a jump is one byte
    codes = {calls.FILTER[at] for at in range(0, len(calls.FILTER), 8)}
    assert codes == {0x20, 0x15, 0x35, 0x45, 0x06}
    assert calls.FILTER[-8:-6] == b"\x06\x00"


# A result out of an engine's tar


def taken(data: bytes, **more: object) -> bytes:
    out = io.BytesIO()
    given: dict[str, object] = {"at": "/out", "limit": 1 << 20, "scratch": tempfile.TemporaryFile}
    capture_tar(io.BytesIO(data), out.write, **{**given, **more})  # type: ignore[arg-type]
    return out.getvalue()


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
                for name in ("other", "left/outside"):
                    info = tarfile.TarInfo(name)
                    info.size = 5
                    tar.addfile(info, io.BytesIO(b"beside"[:5]))
            assert taken(data.getvalue(), below="left/out") == wanted.getvalue()


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
        ([OUT, ("out/x", tarfile.FIFOTYPE, {})], "`x`, which is not a file, folder or link but a"),
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
        with pytest.raises(TaskFailed, match="`s`, which is not a file, folder or link but a socket"):
            capture(tmp_path, lambda _data: None, at="/out", limit=1)
