"""The container engine, and shells in sandboxes: what is left, and how it ends. What a task sees is in test_conformance.py."""

from __future__ import annotations

import datetime
import io
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from cregraph.engines.container import Container
from cregraph.engines.contract import Limits, Stopped
from cregraph.engines.task_layers import TaskLayers
from cregraph.errors import CregraphError
from cregraph.plan.parts import Task, task
from cregraph.store import Store
from tests import sandbox_root
from tests.at_a_terminal import at_a_terminal

HERE = Path(__file__).parent
DIGEST = "sha256:" + "5a" * 32
REASON = sandbox_root.missing("stty", "tty")

pytestmark = pytest.mark.skipif(bool(REASON), reason=str(REASON))


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layer") / "layer.tar"
    path.write_bytes(sandbox_root.layer("stty", "tty"))
    return path


@pytest.fixture(scope="module", autouse=True)
def _no_image_is_left() -> Iterator[None]:
    before = ours("images") if os.environ.get("DOCKER_HOST") else set()
    yield
    if os.environ.get("DOCKER_HOST"):
        docker("image", "rm", "--force", *(ours("images") - before))


@pytest.fixture
def engine(layer: Path, tmp_path: Path) -> Callable[..., Container]:
    def make(context: str | None = None, store: str = "store", **limits: int) -> Container:
        def layers(_digest: str) -> Iterator[IO[bytes]]:
            with layer.open("rb") as file:
                yield file

        own = Store(tmp_path / store)
        return Container(own, TaskLayers(own, layers=layers), context=context, limits=Limits(**limits))

    return make


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=False).stdout


def a_task(script: str) -> Task:
    argv = ("/bin/bash", "-c", script)
    out = "/cregraph/out"
    return task(assembly=1, kind="t", stage="t", name="zoo", root=DIGEST, argv=argv, env={"OUT": out}, output=out)


def perform(engine: Container, script: str, folder: Path) -> bytes:
    out = io.BytesIO()
    engine.perform(a_task(script), inputs={}, results={}, write=out.write, log=folder / "log", slot=0)
    return out.getvalue()


def ours(kind: str) -> set[str]:
    """Names of the containers that this engine makes, or of the images."""
    if kind == "images":
        return set(docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=cregraph-task").split())
    return set(docker("ps", "-a", "--format", "{{.Names}}", "--filter", "name=cregraph-").split())


@pytest.mark.docker
def test_what_tasks_stand_on_is_sent_once_and_again_when_it_is_gone(engine: Callable[..., Container], tmp_path: Path) -> None:
    before = ours("images")
    first = perform(engine(), "echo x > $OUT/x", tmp_path)
    images = ours("images") - before
    assert len(images) == 1
    assert perform(engine(), "echo x > $OUT/x", tmp_path) == first
    assert ours("images") - before == images
    docker("image", "rm", *images)
    assert perform(engine(), "echo x > $OUT/x", tmp_path) == first
    assert len(ours("images") - before - images) == 1


@pytest.mark.docker
def test_stopping_ends_what_runs_and_leaves_no_container(engine: Callable[..., Container], tmp_path: Path) -> None:
    before, one, raised = ours("containers"), engine(), []

    def work() -> None:
        try:
            perform(one, "echo begun; sleep 300", tmp_path)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until = time.monotonic() + 60
    while not ((tmp_path / "log").exists() and b"begun" in (tmp_path / "log").read_bytes()):
        assert time.monotonic() < until and thread.is_alive(), raised
        time.sleep(0.05)
    started = time.monotonic()
    one.stop()
    thread.join(30)
    assert [type(error) for error in raised] == [Stopped]
    assert time.monotonic() - started < 15
    assert ours("containers") == before
    with pytest.raises(Stopped):
        perform(one, "echo x > $OUT/x", tmp_path)


@pytest.mark.docker
def test_a_container_that_somebody_else_ends_is_an_error_and_no_result(engine: Callable[..., Container], tmp_path: Path) -> None:
    before = ours("containers")

    def end() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not ((tmp_path / "log").exists() and (tmp_path / "log").read_bytes()):
            time.sleep(0.05)
        for name in ours("containers") - before:
            docker("kill", name)

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(CregraphError, match="its container ended with status 137 and no report"):
        perform(engine(), "echo begun; sleep 300", tmp_path)
    thread.join()
    assert ours("containers") == before


@pytest.mark.docker
def test_a_killed_run_leaves_nothing_running(layer: Path, tmp_path: Path) -> None:
    """Killed outright, it cannot say a word to the engine; the sandbox sees that nobody holds it any more."""
    before = ours("containers")
    one = {"name": "one", "argv": ["/bin/bash", "-c", "echo begun; sleep 300"]}
    spec = {
        "repository": str(HERE.parent),
        "engine": "container",
        "store": str(tmp_path / "s"),
        "layer": str(layer),
        "tasks": [one],
    }
    process = subprocess.Popen([sys.executable, "-B", str(HERE / "conformance_driver.py"), json.dumps(spec)])
    until = time.monotonic() + 60
    while not ((tmp_path / "s/log-0").exists() and b"begun" in (tmp_path / "s/log-0").read_bytes()):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    running: list[str] = ["?"]
    try:
        until = time.monotonic() + 15
        while running and time.monotonic() < until:
            time.sleep(0.2)
            running = docker("ps", "--format", "{{.Names}}", "--filter", "label=cregraph.task").split()
        assert running == []
    finally:
        for name in ours("containers") - before:
            docker("rm", "--force", "--volumes", name)


@pytest.mark.docker
def test_what_a_killed_run_left_is_removed_a_day_later(
    engine: Callable[..., Container], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert perform(engine(), "echo x > $OUT/x", tmp_path)
    image = json.loads(next((tmp_path / "store").glob("container-images/*/*.json")).read_text())["id"]
    names = {f"cregraph-{secrets.token_hex(8)}" for _ in range(2)}
    mine = f"not-ours-{secrets.token_hex(8)}"
    for name in (*names, mine):
        docker("create", "--name", name, "--label", "cregraph.task=x", "--entrypoint", "/x", image)
    try:
        assert engine().available() is None
        assert names <= ours("containers")
        monkeypatch.setattr("cregraph.engines.container._OLD", datetime.timedelta(seconds=-60))
        assert engine().available() is None
        assert not names & ours("containers")
        assert docker("ps", "-a", "--format", "{{.Names}}", "--filter", f"name={mine}").split() == [mine]
    finally:
        docker("rm", "--force", *names, mine)


@pytest.mark.docker
def test_a_docker_context_is_used_by_name(
    engine: Callable[..., Container], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = os.environ["DOCKER_HOST"]
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("DOCKER_HOST")
    docker("context", "create", "elsewhere", "--docker", f"host={host}")
    docker("context", "create", "nowhere", "--docker", "host=unix:///nowhere/docker.sock")
    assert perform(engine("elsewhere"), "echo x > $OUT/x", tmp_path)
    assert "/nowhere/docker.sock" in str(engine("nowhere").available())
    assert "this is no name of a Docker context" in str(engine("--host=evil").available())


# Shells


def opened(box: str, layer: Path, store: Path, command: list[str]) -> list[str]:
    spec = {"repository": str(HERE.parent), "engine": box, "store": str(store), "layer": str(layer), "command": command}
    return [sys.executable, "-B", str(HERE / "shell_driver.py"), json.dumps(spec)]


BOXES = ["native", pytest.param("container", marks=pytest.mark.docker)]


@pytest.mark.parametrize("box", BOXES)
def test_a_person_works_in_a_sandbox_at_a_terminal(layer: Path, tmp_path: Path, box: str) -> None:
    keys = [
        ("in> ", "cat /cregraph/in/src.txt; stty size; id -u\n"),
        ("source", ""),
        ("in> ", "echo re''ady; sleep 300\n"),
        ("ready", "\x03"),
        ("in> ", "echo still $((40 + 2)) here; echo lost > /opt/new; exit 3\n"),
        ("still 42 here", ""),
    ]
    program = opened(box, layer, tmp_path / "store", ["/bin/bash", "--norc", "--noprofile", "-i"])
    code, shown = at_a_terminal(program, keys, folder=tmp_path, env={**os.environ, "TERM": "xterm"}, seconds=90)
    if code == 99:
        pytest.skip(shown)
    assert code == 3, shown
    assert box == "container" or "33 99" in shown  # docker tells the size a moment later
    assert list((tmp_path / "store/tmp").iterdir()) == []


@pytest.mark.parametrize("box", BOXES)
def test_a_program_in_a_sandbox_has_our_stdin_stdout_stderr_and_status(layer: Path, tmp_path: Path, box: str) -> None:
    def run(*command: str) -> Any:
        program = opened(box, layer, tmp_path / "store", list(command))
        done = subprocess.run(program, input="line\n", capture_output=True, text=True, timeout=120)
        if done.returncode == 99:
            pytest.skip(done.stdout)
        return done.returncode, done.stdout, done.stderr

    code, out, err = run("/bin/bash", "--norc", "-c", "read -r x; echo out $x; echo err >&2; touch /opt/x; exit 5")
    assert (code, out) == (5, "out line\n")
    assert err.splitlines()[-1] == "err"
    assert run("/bin/bash", "--norc", "-c", "kill -TERM $$")[0] == 128 + 15
    code, out, err = run("/no/such/program")
    assert (code, out) == (127, "")
    assert "cregraph: cannot start `/no/such/program`: No such file or directory" in err
