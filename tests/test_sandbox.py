"""The sandbox's contract, seen from inside and from outside, in namespaces with root and without."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from cregraph.engines import contract
from cregraph.engines.contract import Limits, Stopped, TaskFailed
from cregraph.engines.native import Native
from cregraph.engines.trees import Trees
from cregraph.errors import CregraphError
from cregraph.plan.parts import task
from cregraph.store import Store
from tests import sandbox_root
from tests.faults import GENEROUS, soon

HERE = Path(__file__).parent
DIGEST = "sha256:" + "5a" * 32
NOBODY = 65534

pytestmark = pytest.mark.skipif(bool(sandbox_root.missing()), reason=str(sandbox_root.missing()))


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that every user of this machine can reach; pytest's own are private."""
    folder = Path(tempfile.mkdtemp(prefix="cregraph-sandbox-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        subprocess.run(["rm", "-rf", folder], check=False)


@pytest.fixture(scope="module")
def layer(open_folder: Path) -> Path:
    path = open_folder / "layer.tar"
    path.write_bytes(sandbox_root.layer())
    path.chmod(0o644)
    return path


@dataclass(frozen=True, kw_only=True)
class Box:
    """An engine over a store, and the shell in it."""

    store: Store
    engine: Native
    segments: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def run(
        self, script: str, *, env: dict[str, str] | None = None, inputs: dict[str, Path] | None = None, **more: Any
    ) -> dict[str, bytes]:
        """What `script` leaves in $OUT: the content of files by path, links as `-> text`."""
        results = more.pop("results", {})
        one = task(
            assembly=1,
            kind="test",
            stage="test",
            name="probe",
            root=DIGEST,
            argv=("/bin/bash", "-c", script),
            env={"OUT": "/cregraph/out", **(env or {})},
            output=more.pop("output", "/cregraph/out"),
            results={key: at for key, (at, _) in results.items()},
            **more,
        )
        out = io.BytesIO()
        log = self.store.root / "log"
        log.write_bytes(b"")
        tars = {}
        for key, (_, data) in results.items():
            sha256 = self.store.add(data)
            tars[key] = self.store.path_of(sha256)
        self.engine.perform(one, inputs=inputs or {}, results=tars, write=out.write, log=log, slot=0)
        return contents(out.getvalue())

    def log(self) -> str:
        return (self.store.root / "log").read_text()

    def leftovers(self) -> list[Path]:
        return list((self.store.root / "tmp").iterdir())


def contents(data: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            assert (member.uid, member.gid, member.mtime) == (0, 0, 315532800)
            file = None if member.issym() else tar.extractfile(member)
            found[member.name] = f"-> {member.linkname}".encode() if member.issym() else file.read() if file else b"/"
    return found


def engine_over(store: Store, layer: Path, segments: dict[str, dict[str, bytes]], limits: Limits) -> Native:
    def layers(digest: str) -> Iterator[IO[bytes]]:
        assert digest == DIGEST
        with layer.open("rb") as file:
            yield file

    def unpack(key: str, folder: Path) -> None:
        for path, data in segments[key].items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)

    return Native(store, Trees(store, layers=layers, unpack=unpack), limits=limits)


@pytest.fixture(scope="module")
def make_box(open_folder: Path, layer: Path) -> Callable[..., Box]:
    store = Store(open_folder / "store")
    store.root.mkdir()

    def make(**limits: int) -> Box:
        segments: dict[str, dict[str, bytes]] = {}
        made = Box(store=store, engine=engine_over(store, layer, segments, Limits(**limits)), segments=segments)
        reason = made.engine.available()
        if reason:
            pytest.skip(f"no namespaces here: {reason}")
        return made

    return make


@pytest.fixture
def box(make_box: Callable[..., Box]) -> Box:
    return make_box()


def test_the_environment_is_the_contract_and_the_tasks_own_and_nothing_else(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREGRAPH_SECRET", "of the host")
    found = box.run(
        "env -0 > $OUT/env; readlink /proc/self/fd/0 > $OUT/in; cat /proc/1/environ > $OUT/outer || true", env={"MINE": "1"}
    )
    seen = dict(pair.split("=", 1) for pair in found["env"].decode().split("\0") if pair)
    shell = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert {k: v for k, v in seen.items() if k not in shell} == {**contract.ENVIRONMENT, "OUT": "/cregraph/out", "MINE": "1"}
    assert found["in"] == b"/dev/null\n"
    assert found["outer"] == b""  # process 1 cannot be looked into


def test_who_and_where(box: Box) -> None:
    found = box.run(
        "{ id -u; id -g; hostname; umask; pwd; nproc; cat /etc/hostname; ls -A /cregraph/build $HOME | wc -w; } > $OUT/who\n"
        "cat /etc/hosts > $OUT/hosts; cat /proc/self/status > $OUT/status; cat /proc/self/cgroup > $OUT/cgroup"
    )
    # two lines of headings are all that `ls` of two empty folders prints
    assert found["who"].decode().split() == ["0", "0", "cregraph", "0022", "/cregraph/build", "1", "cregraph", "2"]
    assert found["hosts"].decode() == contract.FILES["/etc/hosts"]
    status = dict(line.split(":\t", 1) for line in found["status"].decode().splitlines() if ":\t" in line)
    kept = f"{sum(1 << n for n in contract.KEPT.values()):016x}"
    assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {kept}
    assert {status["CapInh"], status["CapAmb"]} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


def test_there_is_no_network_but_a_loopback_that_works(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = box.run(
            "cat /proc/net/dev > $OUT/dev\n"
            f"(exec 3<>/dev/tcp/127.0.0.1/{port}) 2> $OUT/connect || true\n"
            "(exec 3<>/dev/tcp/192.0.2.1/80) 2> $OUT/away || true\n"
        )
    interfaces = [line.split(":")[0].strip() for line in found["dev"].decode().splitlines()[2:]]
    assert "lo" in interfaces and all(name in ("lo", "sit0", "tunl0", "ip6tnl0", "gre0") for name in interfaces)
    assert b"refused" in found["connect"]  # loopback is up, and nobody listens there
    assert b"unreachable" in found["away"]


def test_nothing_of_the_host_is_seen(box: Box, open_folder: Path) -> None:
    (open_folder / "on-the-host").write_text("x")
    found = box.run(
        f"ls -A / > $OUT/top; ls {open_folder} 2> $OUT/folder || true\n"
        "ls /proc | while read n; do case $n in [0-9]*) echo $n;; esac; done > $OUT/processes\n"
        "cat /proc/self/mountinfo > $OUT/mounts; ls /sys | wc -l > $OUT/sys; ls -A /dev > $OUT/dev\n"
        "for f in kcore timer_list interrupts; do head -c 1 /proc/$f; done > $OUT/masked 2>/dev/null || true\n"
        "(echo 1 > /proc/sys/kernel/panic) 2> $OUT/switch || true; (echo 1 > /proc/sys/vm/drop_caches) 2>> $OUT/switch || true"
    )
    assert b"No such file" in found["folder"]
    top = {"bin", "cregraph", "dev", "etc", "lib", "lib64", "opt", "proc", "root", "sbin", "sys", "tmp", "usr"}
    assert set(found["top"].decode().split()) == top
    assert len(found["processes"].split()) <= 5 and b"1" in found["processes"].split()
    assert str(open_folder).encode() not in found["mounts"]
    assert found["sys"] == b"0\n"
    assert set(found["dev"].decode().split()) == {*contract.DEVICES, *contract.LINKS, "shm", "pts", "mqueue"}
    assert found["masked"] == b""
    assert found["switch"].count(b"Read-only file system") + found["switch"].count(b"Permission denied") == 2


def test_privileged_deeds_fail(box: Box) -> None:
    found = box.run(
        "for deed in 'chown 1000 /cregraph/build' 'hostname other' 'mkdir /dev/x' 'chown 0:0 /cregraph/build'; do\n"
        "  $deed 2>/dev/null && echo yes || echo no; done > $OUT/deeds"
    )
    assert found["deeds"].split() == [b"no", b"no", b"no", b"yes"]


def test_a_command_reaches_no_file_of_the_host_through_its_descriptors(box: Box) -> None:
    """As a build script does that leaves a set-uid program on the host: write a program to stdout's file and set its bits."""
    found = box.run(
        'cp /bin/true $OUT/true; links=$(for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done); echo "$links" > $OUT/links\n'
        "cat $OUT/true > /proc/self/fd/1; chmod 4755 /proc/self/fd/1 /proc/self/fd/2; true"
    )
    assert re.fullmatch(r"/dev/null\npipe:\[\d+\]\npipe:\[\d+\]\n", found["links"].decode())
    assert stat.S_IMODE((box.store.root / "log").stat().st_mode) & 0o7111 == 0


def test_nobody_else_enters_the_folders_of_a_running_task(box: Box, tmp_path: Path) -> None:
    ended: list[BaseException] = []
    mark = f"31{os.getpid()}.{secrets.randbelow(10**6)}"

    def perform() -> None:
        try:
            box.run(f"cp /bin/true $OUT/true; chmod 4755 $OUT/true; sleep {mark}")
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=perform)
    thread.start()
    soon(lambda: alive(mark))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in box.leftovers()}
    box.engine.stop()
    thread.join(GENEROUS)
    assert modes and set(modes.values()) == {0o700}
    assert [type(error) for error in ended] == [Stopped]


def test_the_root_has_one_owner_and_no_set_id_files(box: Box) -> None:
    found = box.run(
        "cat /opt/locked/secret > $OUT/secret; ls /opt > $OUT/opt\n"
        "stat -c '%u:%g %a' /opt/locked/secret /opt/setid /opt/locked > $OUT/stat"
    )
    assert found["secret"] == b"of the root\n"
    assert found["stat"].decode().splitlines() == ["0:0 400", "0:0 755", "0:0 555"]
    assert found["opt"].split() == [b"locked", b"setid"]  # no device node


def test_inputs_are_read_only_and_have_no_date_of_their_own(box: Box, open_folder: Path) -> None:
    source = open_folder / "a.tar.gz"
    source.write_bytes(b"source")
    found = box.run(
        "cat /cregraph/in/a.tar.gz > $OUT/read; stat -c '%Y %a' /cregraph/in/a.tar.gz > $OUT/stat\n"
        "cd /cregraph/in; for deed in 'touch b' 'rm -f a.tar.gz' 'chmod 777 a.tar.gz'; do $deed; done 2> $OUT/no || true\n"
        "(echo x >> a.tar.gz) 2>> $OUT/no || true",
        inputs={"a.tar.gz": source},
    )
    assert found["read"] == b"source"
    assert found["stat"] == b"315532800 444\n"
    assert found["no"].count(b"Read-only file system") == 4
    assert source.read_bytes() == b"source"


def test_an_environment_and_results_stand_at_their_places(box: Box) -> None:
    box.segments.update({"aa" * 32: {"opt/env/bin/tool": b"tool", "opt/env/lib/one": b"1"}, "bb" * 32: {"opt/env/lib/two": b"2"}})
    needed = io.BytesIO()
    with tarfile.open(fileobj=needed, mode="w") as tar:
        info = tarfile.TarInfo("DESCRIPTION")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"desc"))
    library = "/opt/env/lib/R/library"
    found = box.run(
        f"cat /opt/env/bin/tool /opt/env/lib/one /opt/env/lib/two {library}/needed/DESCRIPTION > $OUT/all\n"
        f"ls -A $OUT {library} > $OUT/ls\n"
        "stat -c %Y /opt/env/bin/tool /opt/env > $OUT/times",
        env={"OUT": f"{library}/mine"},
        output=f"{library}/mine",
        environment=("aa" * 32, "bb" * 32),
        results={"cc" * 32: (f"{library}/needed", needed.getvalue())},
    )
    assert found["all"] == b"tool12desc"
    assert found["ls"].decode().split() == [f"{library}:", "mine", "needed", f"{library}/mine:", "all", "ls"]
    assert found["times"].split() == [b"315532800"] * 2


def test_an_output_folder_that_the_environment_fills_is_empty_at_the_start(box: Box) -> None:
    box.segments["dd" * 32] = {"opt/env/lib/pkg/old": b"old", "opt/env/lib/other": b"other"}
    found = box.run(
        "ls -A $OUT > $OUT/ls; cat /opt/env/lib/other >> $OUT/ls",
        output="/opt/env/lib/pkg",
        env={"OUT": "/opt/env/lib/pkg"},
        environment=("dd" * 32,),
    )
    assert found == {"ls": b"ls\nother"}


def test_a_task_cannot_change_the_stores_trees(box: Box) -> None:
    box.segments["ee" * 32] = {"opt/env/file": b"as it was"}
    trees = box.store.root
    with pytest.raises(TaskFailed) as error:
        box.run("echo changed > /opt/env/file; chmod 777 /usr/bin; echo x > $OUT/x", environment=("ee" * 32,))
    assert "wrote /opt/env/file" in error.value.reason
    assert [p.read_bytes() for p in trees.glob("environments/*/*/opt/env/file")] == [b"as it was"]
    assert [p.stat().st_mode & 0o777 for p in trees.glob("roots/*/*/usr/bin")] == [0o755]


def test_undeclared_writes_and_deletions_are_refused_by_name(box: Box) -> None:
    with pytest.raises(TaskFailed) as error:
        box.run(
            "echo x > $OUT/x; echo y > /opt/stray; mkdir -p /var/lib/stray; rm /etc/group; rm -r /opt/locked; mkdir /opt/locked\n"
            "echo ok > /tmp/t; echo ok > /dev/shm/t; echo ok > $HOME/h; echo ok > w; touch /usr/came && rm /usr/came"
        )
    assert error.value.reason == (
        "it changed what it did not declare:\n"
        "  deleted /etc/group\n"
        "  deleted /opt/locked/secret\n"
        "  wrote /opt/stray\n"
        "  wrote /var/"
    )
    assert error.value.hint and "/cregraph/out" in error.value.hint


def test_a_long_list_of_undeclared_writes_is_cut(box: Box) -> None:
    with pytest.raises(TaskFailed) as error:
        box.run("echo x > $OUT/x; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo > /opt/f$i; done")
    assert error.value.reason.count("wrote") == 10
    assert error.value.reason.endswith("and 2 more")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("mkfifo $OUT/pipe", "its output holds `pipe`, which is not a file, folder or link but a FIFO"),
        ("ln -s /etc/passwd $OUT/link", "its output holds the link `link` to `/etc/passwd`, outside the output folder"),
        ("echo > $OUT/a; chmod 4755 $OUT/a", "its output holds `a`, which is set to run as another user (mode 4755)"),
        ("echo > $OUT/$'\\xff'", "its output holds b'\\xff', which is not UTF-8"),
        (":", "it left its output folder /cregraph/out empty"),
        ("rm -r $OUT", "it removed its output folder /cregraph/out"),
        ("rm -r $OUT; ln -s /etc $OUT", "it removed its output folder /cregraph/out"),
        ("exit 7", "its command ended with exit status 7"),
        ("kill -9 $$", "its command was killed by signal 9 (Killed)"),
    ],
)
def test_outputs_that_cannot_be_kept_are_refused_by_name(box: Box, script: str, reason: str) -> None:
    with pytest.raises(TaskFailed) as error:
        box.run(script)
    assert error.value.reason == reason
    assert box.leftovers() == []


def test_a_command_that_is_not_there_is_said_to_be_missing(box: Box) -> None:
    one = task(
        assembly=1, kind="t", stage="t", name="t", root=DIGEST, argv=("no-such-tool",), env={}, output="/out"
    )  # fmt: skip
    log = box.store.root / "log"
    log.write_bytes(b"")
    with pytest.raises(TaskFailed, match="exit status 127"):
        box.engine.perform(one, inputs={}, results={}, write=lambda _: None, log=log, slot=0)
    assert box.log() == "env: 'no-such-tool': No such file or directory\n"


@pytest.mark.parametrize(
    "output", ["/proc/x", "/tmp/out", "relative", "/a/../b", "/", "/cregraph", "/cregraph/in/x", "/cregraph/build"]
)
def test_outputs_in_the_sandboxs_own_places_are_refused(box: Box, output: str) -> None:
    with pytest.raises(CregraphError, match="output"):
        box.run("true", output=output)


def test_the_output_is_a_function_of_names_contents_and_the_executable_bit(box: Box) -> None:
    found = box.run(
        "mkdir -p $OUT/z/empty; echo a > $OUT/b; ln $OUT/b $OUT/a; ln -s ../up $OUT/z/rel; ln -s $OUT/b $OUT/z/abs\n"
        "chmod 640 $OUT/b; touch -d @5 $OUT/b; echo '#!' > $OUT/run; chmod 0100 $OUT/run\n"
        "echo s > $OUT/locked; chmod 0 $OUT/locked\n"
        "mkdir $OUT/closed; echo c > $OUT/closed/c; chmod 0 $OUT/closed"
    )
    assert list(found) == ["a", "b", "closed", "closed/c", "locked", "run", "z", "z/abs", "z/empty", "z/rel"]
    assert found["a"] == found["b"] == b"a\n"
    assert found["z/rel"] == b"-> ../up" and found["z/abs"] == b"-> /cregraph/out/b"


_marks = itertools.count()


def a_mark() -> str:
    """A number of seconds that no other test, of this or another run, sleeps."""
    return f"9{os.getpid()}{next(_marks)}"


def alive(mark: str) -> list[str]:
    """The processes of this machine whose command line holds `mark`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if mark in line:
                found.append(line)
    return found


def test_what_runs_in_the_background_ends_with_the_command(box: Box) -> None:
    mark = a_mark()
    box.run(f"(sleep {mark} &) ; (trap '' TERM HUP; sleep {mark}) & echo x > $OUT/x")
    assert alive(f"sleep {mark}") == []


#: Three processes, each with 30 MB of its own.
HOARD = "for i in 1 2 3; do (printf -v a %030000000d 0; sleep MARK; echo ${#a}) & done; wait"


@pytest.mark.parametrize(
    ("limits", "script", "reason"),
    [
        ({"seconds": 1}, "trap '' TERM; sleep MARK & sleep MARK", "it was ended: it ran longer than 1 s"),
        ({"processes": 20}, "for i in {1..40}; do sleep MARK & done; wait", "processes at once; 20 are allowed"),
        ({"memory": 64 << 20}, HOARD, "of memory; 64 are allowed"),
        ({"file": 1 << 20}, "exec head -c 2000000 /dev/zero > $OUT/x", "killed by signal 25"),
        ({"output": 1 << 20}, "head -c 2000000 /dev/zero > $OUT/x", "its output is larger than 1 MiB"),
        ({"spare": 1 << 60}, "sleep MARK", "were left on the file system that it writes to"),
    ],
)  # fmt: skip
def test_a_limit_ends_everything(make_box: Callable[..., Box], limits: dict[str, int], script: str, reason: str) -> None:
    box, mark = make_box(**limits), a_mark()
    with pytest.raises(TaskFailed) as error:
        box.run(script.replace("MARK", mark))
    assert reason in error.value.reason
    assert alive(f"sleep {mark}") == []
    assert box.leftovers() == []


def test_one_process_cannot_allocate_more_than_the_limit(make_box: Callable[..., Box]) -> None:
    box = make_box(memory=64 << 20)
    with pytest.raises(TaskFailed, match="exit status"):
        box.run("dd if=/dev/zero of=$OUT/x bs=200M count=1")
    assert "memory exhausted" in box.log()


def test_tmp_is_in_memory_and_bounded(make_box: Callable[..., Box]) -> None:
    box = make_box(temporary=1 << 20)
    with pytest.raises(TaskFailed, match="exit status 1"):
        box.run("head -c 2000000 /dev/zero > /tmp/x")
    assert "No space left" in box.log()


# In processes of their own: another user, other circumstances, deaths.

SCRIPT = """
mkdir $OUT/sub; id -u > $OUT/id; cat /cregraph/in/src.txt /opt/locked/secret > $OUT/sub/text; ln -s sub/text $OUT/link
env | sort > $OUT/env; umask > $OUT/umask; cat /proc/self/limits > $OUT/limits; stat -c "%n %F %a" /dev /dev/* > $OUT/dev
while read line; do case $line in Cap*) echo $line; esac; done < /proc/self/status > $OUT/caps
stat -c '%n %u %g %a %Y' /opt/* /etc/* /cregraph/in /cregraph/in/* /usr > $OUT/stat
cp -a /opt/locked $OUT/copy; cp -a /etc/passwd $OUT/passwd; chown 1000 $OUT/passwd 2> /dev/null || echo $? > $OUT/chown
"""


def plain_python() -> str:
    """An interpreter that an ordinary user can run, or a skip."""
    recent = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        try:
            subprocess.run([python or "", "-c", recent], check=True, user=NOBODY, group=NOBODY, extra_groups=[])
        except (OSError, subprocess.CalledProcessError):
            continue
        return str(python)
    pytest.skip("no interpreter here that an ordinary user can run")


def tasks_of(*scripts: str, source: Path | None = None) -> list[dict[str, Any]]:
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest() if source else ""
    return [
        {
            "assembly": 1,
            "kind": "test",
            "stage": "test",
            "name": f"probe-{i}",
            "root": DIGEST,
            "argv": ["/bin/bash", "-c", script],
            "env": {"OUT": "/cregraph/out"},
            "output": "/cregraph/out",
            "inputs": {"src.txt": {"kind": "t", "source": "t", "file": "x", "sha256": sha256, "size": 1}} if source else {},
        }
        for i, script in enumerate(scripts)
    ]


def drive(python: str, spec: dict[str, Any], **how: Any) -> subprocess.Popen[str]:
    spec = {"repository": str(HERE.parent), **spec}
    program = [python, "-B", str(HERE / "sandbox_driver.py"), json.dumps(spec)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, errors = process.communicate(timeout=GENEROUS)
    assert process.returncode == 0, errors
    found = json.loads(out)
    if "unavailable" in found:
        pytest.skip(f"no namespaces here: {found['unavailable']}")
    assert isinstance(found, dict)
    return found


def spec_in(folder: Path, layer: Path, *scripts: str, **more: Any) -> dict[str, Any]:
    folder.mkdir()
    source = folder / "source"
    source.write_text("source\n")
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    tasks = tasks_of(*scripts, source=source)
    return {"store": str(folder / "store"), "layer": str(layer), "tasks": tasks, "inputs": {sha256: str(source)}, **more}


def kept_of(spec: dict[str, Any], found: dict[str, Any]) -> dict[str, bytes]:
    return contents(Store(Path(spec["store"])).path_of(found["results"][0]).read_bytes())


def test_users_locales_umasks_time_zones_and_folders_do_not_reach_a_result(box: Box, open_folder: Path, layer: Path) -> None:
    del box  # skips where there are no namespaces
    spec = spec_in(open_folder / "one", layer, SCRIPT)
    first = answer(drive(sys.executable, spec, umask=0o022))
    seen = kept_of(spec, first)
    other = open_folder / "another folder, with a: colon"
    spec = spec_in(other, layer, SCRIPT, jobs=3)
    os.utime(other / "source", (1, 1))
    environment = {
        "TZ": "Pacific/Auckland",
        "LC_ALL": "tr_TR.ISO-8859-9",
        "HOME": "/nowhere",
        "PATH": os.environ["PATH"],
        "R_HOME": "/x",
    }
    second = answer(drive(sys.executable, spec, umask=0o077, env=environment))
    assert kept_of(spec, second) == seen  # says what differs
    assert first["results"] == second["results"]
    if os.geteuid() == 0:
        mine = open_folder / "nobody"
        spec = spec_in(mine, layer, SCRIPT)
        mine.chmod(0o2777)  # its set-group-id bit gives what is made there a group that is not mapped inside
        third = answer(drive(plain_python(), spec, user=NOBODY, group=NOBODY, extra_groups=[], umask=0o027))
        assert third["uid"] == NOBODY
        assert kept_of(spec, third) == seen
        assert third["results"] == first["results"]


@pytest.mark.skipif(os.geteuid() != 0, reason="is about an ordinary user, which the whole suite runs as already")
def test_without_root_the_same_writes_are_refused(box: Box, open_folder: Path, layer: Path) -> None:
    del box
    folder = open_folder / "refused"
    spec = spec_in(folder, layer, "echo x > $OUT/x; rm /etc/group; rm -r /opt/locked; mkdir /opt/locked; echo > /usr/stray")
    folder.chmod(0o777)
    found = answer(drive(plain_python(), spec, user=NOBODY, group=NOBODY, extra_groups=[]))
    assert "  deleted /etc/group\n  deleted /opt/locked/secret\n  wrote /usr/stray" in found["error"]
    assert list((folder / "store/tmp").iterdir()) == []


@pytest.mark.skipif(not shutil.which("setpriv") or not shutil.which("unshare"), reason="needs unshare and setpriv")
def test_where_namespaces_are_forbidden_the_reason_is_given(box: Box, open_folder: Path, layer: Path) -> None:
    del box
    spec = {"repository": str(HERE.parent), **spec_in(open_folder / "forbidden", layer, "true")}
    inner = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    driver = [sys.executable, "-B", str(HERE / "sandbox_driver.py"), json.dumps(spec)]
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    done = subprocess.run(["unshare", "-Ur", "sh", "-c", script, "sh", *inner, *driver], capture_output=True, text=True)
    if not done.stdout:
        pytest.skip(f"cannot forbid namespaces here: {done.stderr}")
    assert json.loads(done.stdout)["unavailable"] == (
        "without a user namespace: unshare: Operation not permitted; "
        "with a user namespace: unshare (user namespace): No space left on device "
        "(no user namespaces are allowed: /proc/sys/user/max_user_namespaces is 0)"
    )


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_it_works_inside_a_user_namespace(box: Box, open_folder: Path, layer: Path) -> None:
    del box
    script = "rm -r /opt/locked; mkdir /opt/locked; echo x > $OUT/x"
    spec = {"repository": str(HERE.parent), **spec_in(open_folder / "nested", layer, "echo x > $OUT/x", script)}
    driver = [sys.executable, "-B", str(HERE / "sandbox_driver.py"), json.dumps(spec)]
    done = subprocess.run(["unshare", "-Ur", *driver], capture_output=True, text=True)
    if "unavailable" in done.stdout or not done.stdout:
        pytest.skip(f"no user namespaces here: {done.stdout} {done.stderr}")
    assert "deleted /opt/locked/secret" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_leaves_no_process_and_the_next_one_completes(
    box: Box, open_folder: Path, layer: Path, how: signal.Signals
) -> None:
    del box
    mark = a_mark()
    wait = f"[ -e /cregraph/in/src.txt ] && (sleep {mark} &) ; echo x > $OUT/x; sleep {mark}"
    spec = spec_in(open_folder / f"killed-{int(how)}", layer, "echo 1 > $OUT/one", wait, jobs=2)
    process = drive(sys.executable, spec)
    until = time.monotonic() + GENEROUS
    while sum(line.startswith("sleep") for line in alive(f"sleep {mark}")) < 2:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)
    process.send_signal(how)
    process.communicate(timeout=GENEROUS)
    soon(lambda: alive(f"sleep {mark}") == [])
    left = list((Path(spec["store"]) / "tmp").iterdir())
    assert how == signal.SIGKILL or left == []
    spec["tasks"][1]["argv"][2] = "echo x > $OUT/x"
    assert len(answer(drive(sys.executable, spec))["results"]) == 2
