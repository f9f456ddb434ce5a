"""Shells in sandboxes: what a person has there, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import sandbox_root
from tests.at_a_terminal import at_a_terminal
from tests.faults import GENEROUS

HERE = Path(__file__).parent
REASON = sandbox_root.missing("stty", "tty")
BOXES = ["native", pytest.param("docker", marks=pytest.mark.docker)]

pytestmark = pytest.mark.skipif(bool(REASON), reason=str(REASON))


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layer") / "layer.tar"
    path.write_bytes(sandbox_root.layer("stty", "tty"))
    return path


def opened(box: str, layer: Path, store: Path, command: list[str], name: str = "one") -> list[str]:
    spec = {"repository": str(HERE.parent), "engine": box, "store": str(store), "layer": str(layer), "command": command}
    spec["name"] = name
    return [sys.executable, "-B", str(HERE / "shell_driver.py"), json.dumps(spec)]


@pytest.mark.parametrize("box", BOXES)
def test_a_person_works_in_a_sandbox_at_a_terminal(layer: Path, tmp_path: Path, box: str) -> None:
    keys = [
        ("in> ", "cat /cregraph/in/src.txt; stty size; id -u\n"),
        ("source", ""),
        ("in> ", "bash -c \"echo re''ady; exec sleep 300\"\n"),  # said by the process that Ctrl-C is to end
        ("ready", "\x03"),
        ("in> ", "echo still $((40 + 2)) here; echo lost > /opt/new; exit 3\n"),
        ("still 42 here", ""),
    ]
    tried = subprocess.run(opened(box, layer, tmp_path / "store", ["/bin/true"], "tried"), capture_output=True, text=True)
    if tried.returncode == 99:
        pytest.skip(tried.stdout)
    program = opened(box, layer, tmp_path / "store", ["/bin/bash", "--norc", "--noprofile", "-i"])
    code, shown = at_a_terminal(program, keys, folder=tmp_path, env={**os.environ, "TERM": "xterm"})
    assert code == 3, shown
    assert box == "docker" or "33 99" in shown  # docker tells the size a moment later
    assert list((tmp_path / "store/tmp").iterdir()) == []


@pytest.mark.parametrize("box", BOXES)
def test_a_program_in_a_sandbox_has_our_stdin_stdout_stderr_and_status(layer: Path, tmp_path: Path, box: str) -> None:
    def run(*command: str) -> Any:
        program = opened(box, layer, tmp_path / "store", list(command))
        done = subprocess.run(program, input="line\n", capture_output=True, text=True, timeout=GENEROUS)
        if done.returncode == 99:
            pytest.skip(done.stdout)
        return done.returncode, done.stdout, done.stderr

    code, out, err = run("/bin/bash", "--norc", "-c", "read -r x; echo out $x; echo err >&2; touch /opt/x; exit 5")
    assert (code, out) == (5, "out line\n")
    assert err.splitlines()[-1] == "err"
    assert run("/bin/bash", "--norc", "-c", "kill -TERM $$")[0] == 128 + 15
    code, out, err = run("/no/such/program")
    assert (code, out) == (127, "")
    assert "env: '/no/such/program': No such file or directory" in err


@pytest.mark.parametrize("box", BOXES)
def test_a_reader_that_has_enough_ends_the_program(layer: Path, tmp_path: Path, box: str) -> None:
    """As in `cregraph shell TASK -- yes | head -n 1`."""
    program = opened(box, layer, tmp_path / "store", ["/bin/bash", "--norc", "-c", "while :; do echo y || exit; done"])
    with subprocess.Popen(program, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        first = running.stdout.readline()
        running.stdout.close()
        code = running.wait(GENEROUS)
    if code == 99:
        pytest.skip(first.decode())
    assert (first, code != 0) == (b"y\n", True)


@pytest.mark.docker
def test_no_container_volume_or_image_of_a_shell_is_left(layer: Path, tmp_path: Path) -> None:
    name = f"zoo-{secrets.token_hex(8)}"
    program = opened("docker", layer, tmp_path / "store", ["/bin/bash", "-c", "echo shown; read -r x; echo $x"], name)
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "shown\n"
        mine = containers(name)
        assert len(mine) == 2
        volumes = docker("inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", *mine).split()
        image = docker("inspect", "--format", "{{.Image}}", mine[0]).strip()
        process.stdin.write("end\n")
        process.stdin.close()
        assert process.stdout.read() == "end\n"
    assert process.returncode == 0
    assert containers(name) == []
    assert len(volumes) == 2 and docker("volume", "ls", "--quiet", "--filter", f"name={volumes[0]}") == ""
    assert docker("image", "inspect", "--format", "{{.Id}}", image).strip() == ""


def containers(name: str) -> list[str]:
    return docker("ps", "--all", "--quiet", "--filter", f"label=cregraph.task={name}").split()


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=False).stdout
