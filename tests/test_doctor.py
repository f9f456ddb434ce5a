"""`cregraph doctor` says what works here, what does not, and the way out of it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cregraph.engines import namespaces
from tests.test_sandbox import NOBODY, plain_python

SECRET = "hunter2-never-shown"


def ask(folder: Path, *words: str, prefix: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    whole = {**os.environ, "CREGRAPH_CACHE": str(folder / "store"), "HOME": str(folder), "DOCKER_CONFIG": str(folder / "docker")}
    whole.pop("DOCKER_HOST", None)
    return subprocess.run(
        [*prefix, sys.executable, "-m", "cregraph", "doctor", *words],
        cwd=folder,
        env={**whole, "PYTHONPATH": str(Path(__file__).parent.parent), **env},
        capture_output=True,
        text=True,
    )


def found(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert done.stderr == "", done.stderr
    answer = json.loads(done.stdout)
    assert answer["ok"] == (done.returncode == 0)
    return {one["what"]: one for one in answer["findings"]}


def a_program(folder: Path, name: str, script: str) -> str:
    """A folder for PATH with one program in it, and the interpreter's own needs."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return str(folder)


def test_lines_say_ok_or_no_with_a_way_out_and_the_exit_code_says_whether_a_build_can_run(tmp_path: Path) -> None:
    done = ask(tmp_path, PATH=a_program(tmp_path / "bin", "other", "true"))
    lines = done.stdout.splitlines()
    assert all(line[:4] in ("ok  ", "no  ", "    ") for line in lines[:-1])
    native = next(line for line in lines if "engine native" in line)
    works = native == "ok  engine native: works"
    assert done.returncode == (0 if works else 1)
    assert lines[-1] == ("a build can run here" if works else "a build cannot run here yet")
    at = lines.index(next(line for line in lines if line.startswith("no  engine docker")))
    assert "`docker` cannot be started" in lines[at] or "docker" in lines[at]
    assert lines[at + 1].strip() == "install Docker's command line (the package docker-cli or docker-ce-cli)"


def test_nothing_is_left_in_the_store(tmp_path: Path) -> None:
    ask(tmp_path)
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.stat().st_size] == []
    assert list((tmp_path / "store/tmp").iterdir()) == []


@pytest.mark.skipif(not shutil.which("docker"), reason="needs the program docker")
def test_an_engine_that_does_not_answer_is_named_with_what_to_do(tmp_path: Path) -> None:
    own = os.environ.get("DOCKER_CONFIG") or str(Path("~/.docker").expanduser())  # plugins lie there, or in the system
    answer = found(ask(tmp_path, "--json", DOCKER_HOST="unix:///nowhere/docker.sock", DOCKER_CONFIG=own))
    if "buildx" in answer["engine docker"]["text"]:
        pytest.skip("no buildx here")
    one = answer["engine docker"]
    assert not one["ok"] and not one["needed"]
    assert "/nowhere/docker.sock" in one["text"]
    assert "start the engine, or name another one: DOCKER_HOST" in one["hint"]


def test_a_docker_without_buildx_is_told_apart(tmp_path: Path) -> None:
    fake = """
    case "$*" in
      *buildx*) echo "docker: 'buildx' is not a docker command." >&2; exit 1 ;;
      *info*) echo '{"ID": "one", "OSType": "linux"}' ;;
      *) echo 26.1 ;;
    esac
    """
    answer = found(ask(tmp_path, "--json", PATH=a_program(tmp_path / "bin", "docker", fake) + ":/usr/bin:/bin"))
    assert not answer["engine docker"]["ok"]
    assert answer["engine docker"]["text"] == "the program `docker` has no plugin buildx"
    assert "docker-buildx" in answer["engine docker"]["hint"]


def test_credentials_are_said_to_be_there_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    login = base64.b64encode(f"me:{SECRET}".encode()).decode()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {"one.example": {"auth": login}}}))
    (tmp_path / "sources.yaml").write_text("registry: {snowflake: {host: one.example}, other: {host: two.example}}\n")
    done = ask(tmp_path, "--json")
    answer = found(done)
    assert answer["sources"]["text"] == "from sources.yaml"
    assert answer["registry one.example (snowflake)"]["ok"]
    other = answer["registry two.example (other)"]
    assert (other["ok"], other["needed"], other["hint"]) == (False, False, "run `docker login two.example`")
    for text in (done.stdout, ask(tmp_path).stdout):
        assert SECRET not in text and login not in text


def test_a_bad_sources_file_and_a_store_that_cannot_be_written_to_are_no(tmp_path: Path) -> None:
    (tmp_path / "sources.yaml").write_text("conda: [1\n")
    (tmp_path / "file").write_text("")
    done = ask(tmp_path, "--json", CREGRAPH_CACHE=str(tmp_path / "file"))
    answer = found(done)
    assert done.returncode == 1
    assert not answer["sources"]["ok"] and "sources.yaml" in answer["sources"]["text"]
    assert not answer["store"]["ok"] and "CREGRAPH_CACHE" in answer["store"]["hint"]


def test_a_named_profile_must_be_there(tmp_path: Path) -> None:
    done = ask(tmp_path, "nowhere.yaml")
    assert done.returncode == 2 and "nowhere.yaml: the profile does not exist" in done.stderr


@pytest.mark.parametrize(
    ("switch", "value", "words", "cure"),
    [
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "AppArmor forbids user namespaces to ordinary programs: /proc/sys/kernel/apparmor_restrict_unprivileged_userns is 1",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "user namespaces are for root only: /proc/sys/kernel/unprivileged_userns_clone is 0",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            "user/max_user_namespaces",
            "0",
            "no user namespaces are allowed: /proc/sys/user/max_user_namespaces is 0",
            "sudo sysctl -w user.max_user_namespaces=15000",
        ),
    ],
)
def test_what_forbids_namespaces_is_named_with_its_switch(tmp_path: Path, switch: str, value: str, words: str, cure: str) -> None:
    path = tmp_path / "proc/sys" / switch
    path.parent.mkdir(parents=True)
    path.write_text(f"{value}\n")
    assert namespaces.forbidding(tmp_path) == (words, cure)
    path.write_text("2\n")
    assert namespaces.forbidding(tmp_path) is None


@pytest.mark.skipif(not shutil.which("setpriv") or not shutil.which("unshare"), reason="needs unshare and setpriv")
def test_where_namespaces_are_forbidden_the_engine_is_no_and_says_why(tmp_path: Path) -> None:
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    inner = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    done = ask(tmp_path, "--json", prefix=("unshare", "-Ur", "sh", "-c", script, "sh", *inner))
    if not done.stdout:
        pytest.skip(f"cannot forbid namespaces here: {done.stderr}")
    native = found(done)["engine native"]
    assert not native["ok"]
    assert "/proc/sys/user/max_user_namespaces is 0" in native["text"]


def test_an_ordinary_user_is_told_the_switch(tmp_path: Path) -> None:
    """The words for one who is not root; the switch itself is the machine's."""
    script = (
        "import os; from cregraph.engines import namespaces\n"
        "namespaces.forbidding = lambda: ('why', 'sudo sysctl -w a=0')\n"
        "from cregraph.engines.choice import _native_cure; print(_native_cure())"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [plain_python(), "-B", "-c", script],
        env={"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": os.environ["PATH"]},
        user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True,
    )  # fmt: skip
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip("that interpreter has not what the command line needs")
    assert done.stdout.startswith("sudo sysctl -w a=0\n(permanently: a line in /etc/sysctl.d/)"), done.stderr
