# ruff: noqa: E501
"""One contract: what a command sees, and what becomes of it, is the same in every sandbox that cregraph can make."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cregraph.engines import contract
from tests import sandbox_root
from tests.test_sandbox import NOBODY, plain_python

HERE = Path(__file__).parent
PROBE = (HERE / "sandbox_probe.sh").read_text(encoding="utf-8")
TOOLS = ("mount", "umount", "mknod", "unshare", "true", "mv", "rmdir", "kill", "seq", "date")

REFERENCE = "root"
OTHERS = ["user", pytest.param("docker", marks=pytest.mark.docker)]

pytestmark = [
    pytest.mark.skipif(bool(sandbox_root.missing(*TOOLS)), reason=str(sandbox_root.missing(*TOOLS))),
    pytest.mark.xdist_group("docker"),  # one process asks each engine for all answers
]


def shell(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "argv": ["/bin/bash", "-c", script], **more}


FORK_AWAY = (
    "(trap '' TERM HUP INT; exec < /dev/null > /dev/null 2>&1; sleep 300) & (sleep 0.2; echo late > $OUT/late) & echo x > $OUT/x"
)
HOARD = "for i in 1 2 3; do (printf -v a %030000000d 0; sleep 60; echo ${#a}) & done; wait"

#: Commands whose verdict, and the files that they leave, must be the same.
DEEDS = [
    shell("probe", PROBE),
    shell("tries the network", "exec 3<>/dev/tcp/192.0.2.1/80 && echo > $OUT/x"),
    shell("forks away", FORK_AWAY),
    shell("fills /tmp", "head -c 9000000 /dev/zero > /tmp/x; echo $? > $OUT/x", limits={"temporary": 4 << 20}),
    shell("fills /dev/shm", "head -c 9000000 /dev/zero > /dev/shm/x; echo $? > $OUT/x", limits={"temporary": 4 << 20}),
    shell("fills the disk", "echo x > $OUT/x; sleep 60", limits={"spare": 1 << 60}),
    shell("writes a large file", "exec head -c 2000000 /dev/zero > $OUT/x", limits={"file": 1 << 20}),
    shell("leaves much", "head -c 2000000 /dev/zero > $OUT/x", limits={"output": 1 << 20}),
    shell("reads the host's environment", "cat /proc/1/environ /proc/*/environ > $OUT/x 2> /dev/null; ls /home /srv > $OUT/y; echo > $OUT/z"),
    shell("takes long", "trap '' TERM; sleep 60 & sleep 60", limits={"seconds": 1}),
    shell("allocates much", "dd if=/dev/zero of=$OUT/x bs=200M count=1", limits={"memory": 64 << 20}),
    shell("holds much", HOARD, limits={"memory": 64 << 20}),
    shell("is many", "for i in {1..40}; do sleep 60 & done; wait", limits={"processes": 20}),
    shell("fails", "echo words; echo more >&2; exit 7"),
    shell("is killed", "kill -SEGV $$"),
    {"name": "is not there", "argv": ["no-such-program"]},
    {"name": "is no program", "argv": ["/etc/passwd"]},
    {"name": "is a folder", "argv": ["/usr/bin"]},
    shell("leaves nothing", "true"),
    shell("removes its output", "rm -r $OUT"),
    shell("has a link for its output", "rm -r $OUT; ln -s /usr $OUT"),
    shell("leaves a pipe", "mkdir $OUT/d; mkfifo $OUT/d/pipe"),
    shell("leaves a set-id file", "echo x > $OUT/x; chmod 4755 $OUT/x"),
    shell("leaves a link out", "ln -s /etc/passwd $OUT/x"),
    shell("leaves a name that is no text", "echo > $OUT/$'\\xff'"),
    shell("leaves links", "echo x > $OUT/b; ln $OUT/b $OUT/a; ln -s b $OUT/c; ln -s $OUT/a $OUT/d; chmod 700 $OUT/a; mkdir -m 0 $OUT/e"),
    shell("writes elsewhere", "echo x > $OUT/x; echo y > /opt/stray; mkdir -p /var/lib/deep; echo z > /etc/passwd; echo > /.hidden"),
    shell("deletes elsewhere", "echo x > $OUT/x; rm /etc/group; rm -r /opt/locked; mkdir /opt/locked; rm -r /root"),
    shell("replaces elsewhere", "echo x > $OUT/x; rm /opt/setid; mkdir /opt/setid; rm -r /opt/locked; echo > /opt/locked; ln -sf cat /usr/bin/ls"),
    shell("makes a folder again", "echo x > $OUT/x; rm -r /opt/env; mkdir -p /opt/env/lib/new /opt/env/other; echo > /opt/env/lib/two"),
    shell("opens up elsewhere", "echo x > $OUT/x; chmod 600 /opt/setid; touch /etc/group; chmod 700 /usr; mv /opt/locked/secret /opt/secret"),
    shell("changes what it needs", "echo x > $OUT/x; echo 2 > /opt/env/lib/one; echo > /opt/env/lib/needed/new; ln /opt/env/bin/tool /opt/env/t"),
    shell("comes and goes", "echo x > $OUT/x; touch /usr/came && rm /usr/came; mkdir /opt/d && rmdir /opt/d; echo > w; echo > $HOME/h"),
    shell("changes the contract's files", "echo x > $OUT/x; rm /etc/mtab; echo other > /etc/mtab"),
    shell("claims an answer", "echo 'cregraph-report: 2e00' | tee /cregraph/report > $OUT/x; echo 'cregraph-report: 2e00' >&2"),
    shell("is many lines", "for i in {1..3000}; do echo line $i; done; echo x > $OUT/x; echo end >&2"),
    shell("has its output in the environment", "ls -A $OUT > /tmp/l; cat /tmp/l > $OUT/x", output="/opt/env/lib/needed", env={"OUT": "/opt/env/lib/needed"}),
    shell("has its output deep", "pwd > $OUT/x; stat -c %Y /var /var/a > $OUT/y", output="/var/a/b", env={"OUT": "/var/a/b"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def answers() -> Iterator[Callable[[str], dict[str, Any]]]:
    """What each task gave in a sandbox, by its name."""
    folder = Path(tempfile.mkdtemp(prefix="cregraph-conformance-", dir="/var/tmp"))
    folder.chmod(0o755)
    layer = folder / "layer.tar"
    layer.write_bytes(sandbox_root.layer(*TOOLS))
    layer.chmod(0o644)

    known: dict[str, Any] = {}

    def ask(box: str) -> dict[str, Any]:
        if box not in known:
            known[box] = asked(box)
        if isinstance(known[box], str):
            if box == REFERENCE and os.environ.get("DOCKER_HOST"):  # no namespaces here: the others are still to be the same
                return ask("docker")
            pytest.skip(f"no such sandbox here: {known[box]}")
        return known[box]  # type: ignore[no-any-return]

    def asked(box: str) -> dict[str, Any] | str:
        home = folder / box
        home.mkdir(exist_ok=True)
        engine = "docker" if box == "docker" else "native"
        store = str(home / "store")
        spec = {"repository": str(HERE.parent), "engine": engine, "store": store, "layer": str(layer), "tasks": DEEDS, "jobs": 4}
        program, how = sys.executable, {}
        if box == "user":
            if os.geteuid() != 0:
                return "only root becomes another user"
            program, how = plain_python(), {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            home.chmod(0o777)
        command = [program, "-B", str(HERE / "conformance_driver.py"), json.dumps(spec)]
        secret = {**os.environ, "CREGRAPH_SECRET": "of the host"}
        done = subprocess.run(command, capture_output=True, text=True, env=secret, **how)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        missing = next((one["unavailable"] for one in found if "unavailable" in one), None)
        return str(missing) if missing else {deed["name"]: one for deed, one in zip(DEEDS, found, strict=True)}

    try:
        yield ask
    finally:
        subprocess.run(["rm", "-rf", folder], check=False)


def counted(error: str | None) -> str | None:
    """An error without the numbers that depend on the moment at which the limits were looked at."""
    return re.sub(r"(had|held) [0-9]+", r"\1 N", error) if error else error


#: What the contract leaves open in a user namespace: in which words a thing fails, and who owns /proc.
_OPEN = {
    "may": {
        "give a file away: Invalid argument": "give a file away: Operation not permitted",
        "turn a switch of the kernel: Permission denied": "turn a switch of the kernel: Read-only file system",
        "drop the kernel's caches: Permission denied": "drop the kernel's caches: Read-only file system",
    },
    "memory": {"/proc directory 65534:65534": "/proc directory 0:0"},
}


def seen(answer: dict[str, Any]) -> dict[str, str]:
    """What the probe wrote."""
    assert answer["error"] is None, (answer["error"], answer["log"])
    found = {name: text for name, (_, text) in answer["files"].items() if name != "first"}
    for name, changes in _OPEN.items():
        for words, as_root in changes.items():
            found[name] = found[name].replace(words, as_root)
    return found


@pytest.mark.parametrize("box", OTHERS)
def test_a_command_sees_the_same_in_every_sandbox(answers: Callable[[str], dict[str, Any]], box: str) -> None:
    reference, other = seen(answers(REFERENCE)["probe"]), seen(answers(box)["probe"])
    assert len(reference) > 25
    assert other.keys() == reference.keys()
    for name, text in reference.items():
        assert other[name] == text, name


@pytest.mark.parametrize("box", OTHERS)
@pytest.mark.parametrize("deed", [deed["name"] for deed in DEEDS[1:]])
def test_the_same_becomes_of_a_command_in_every_sandbox(answers: Callable[[str], dict[str, Any]], deed: str, box: str) -> None:
    reference, other = answers(REFERENCE)[deed], answers(box)[deed]
    assert (counted(other["error"]), other["hint"]) == (counted(reference["error"]), reference["hint"])
    assert other["files"] == reference["files"]
    assert other["log"] == reference["log"]


def test_the_reference_is_the_contract(answers: Callable[[str], dict[str, Any]]) -> None:
    """The others are compared with it: what it says itself is checked here."""
    found = seen(answers(REFERENCE)["probe"])
    assert answers(REFERENCE)["probe"]["files"]["first"][1].startswith("/cregraph/enter"), "no path of the host"
    pairs = dict(line.split("=", 1) for line in found["environment"].splitlines() if "=" in line)
    assert pairs == {**contract.ENVIRONMENT, "OUT": "/cregraph/out"}
    assert found["host"] == "cregraph\n(none)\nstatus 0\n"
    assert found["interfaces"] == "lo\nstatus 0\n"
    may = dict(line.split(": ", 1) for line in found["may"].splitlines() if ": " in line)
    assert may.pop("give a file to itself") == may.pop("set an id bit") == "works"
    works = {deed for deed, words in may.items() if words == "works"}
    assert works == {
        *("write where it works", "write at home", "write in /tmp", "write in /dev/shm", "run from /tmp", "run from /dev/shm"),
        *("end the first process", "make a pipe"),  # the first says so, and nothing happens
    }


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("tries the network", "its command ended with exit status 1"),
        ("forks away", None),
        ("fills /tmp", None),
        ("fills the disk", "MiB were left on the file system that it writes to"),
        ("reads the host's environment", None),
        ("takes long", "it was ended: it ran longer than 1 s"),
        ("is many", "processes at once; 20 are allowed"),
        ("holds much", "MiB of memory; 64 are allowed"),
        ("leaves a pipe", "its output holds `d/pipe`, which is not a file, folder or link but a FIFO"),
        (
            "replaces elsewhere",
            "it changed what it did not declare:\n  wrote /opt/locked\n  wrote /opt/setid/\n  wrote /usr/bin/ls",
        ),
    ],
)
def test_the_reference_refuses_what_it_should(answers: Callable[[str], dict[str, Any]], deed: str, reason: str | None) -> None:
    answer = answers(REFERENCE)[deed]
    assert answer["error"] == reason if reason is None else reason in answer["error"]
    texts = {name: text for name, (_, text) in answer["files"].items()}
    if deed == "forks away":
        assert texts == {"x": "x\n"}
    if deed == "fills /tmp":
        assert texts == {"x": "1\n"}
    if deed == "reads the host's environment":
        assert "of the host" not in texts["x"] and texts["y"] == ""
