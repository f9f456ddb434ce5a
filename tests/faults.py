"""A demo's project to be damaged: what tests of faults share. Its fixtures are known to all tests (conftest.py)."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from cregraph.kinds import KINDS
from cregraph.lock import lock_file as locks
from cregraph.plan.planner import Plan, make_plan
from cregraph.session.project import Project
from cregraph.store import Store
from tests.environment.serving import Server, serve
from tests.read_layout import Layout
from tests.real_project import Done

#: Seconds that nothing here takes on any machine.
GENEROUS = 300
#: Sends itself SIGKILL just before the nth time that it renames a file: the moments between which a reader can look.
KILLED = """
import os, runpy, signal, sys
left = int(sys.argv.pop(1))
def hook(event, args):
    global left
    if event == "os.rename":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
sys.argv[0] = "cregraph"
runpy.run_module("cregraph", run_name="__main__")
"""
INTERRUPTED = "error: interrupted: no file was left incomplete\nhint: run the same command again to continue\n"
DIFFERS = "hint: run `cregraph lock --upgrade-package NAME` if you expect new bytes, and review the change with `cregraph diff`\n"
FRAMES = "r-demoframes-1.2.0-demo_0.conda"
WHEEL = "demo_greeting-1.1-py3-none-any.whl"
HTTPFS = "https://files.invalid/v1/tool.gz"


@dataclass(kw_only=True)
class Demo:
    """A demo's project. `reference` is what a build of it prints."""

    folder: Path
    reference: str = ""
    env: dict[str, str] = field(default_factory=dict)

    def start(
        self, *words: str, prefix: Sequence[str] = (), program: Sequence[str] = ("-m", "cregraph")
    ) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")}
        return subprocess.Popen(
            [*prefix, sys.executable, *program, *words],
            cwd=self.folder,
            env={**kept, **self.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, prefix: Sequence[str] = (), program: Sequence[str] = ("-m", "cregraph")) -> Done:
        return ended(self.start(*words, prefix=prefix, program=program))

    def ok(self, *words: str) -> Done:
        done = self.run(*words)
        assert done.code == 0, done.err
        return done

    def copy(self, folder: Path, *, cold: bool = False) -> Demo:
        """A copy that a test may damage; `cold` without what is in the store."""
        shutil.copytree(self.folder, folder, symlinks=True)
        for section in ("sha256", "segments", "layers", "images", "projects") if cold else ():
            shutil.rmtree(folder / "cache" / section)
        return replace(self, folder=folder, env=dict(self.env))

    def route(self, address: str) -> None:
        """Let conda, CRAN and URLs lead to a server; a build's wheels too."""
        text = f"conda: {{demo: {address}/channel}}\ncran: {address}/cran\npypi: {address}/simple\n"
        (self.folder / "sources.yaml").write_text(text + f'url: {{"https://files.invalid/": "{address}/files/"}}\n')

    @property
    def lock(self) -> Path:
        return self.folder / "locks" / "demo.lock.json"

    @property
    def store(self) -> Store:
        return Store(self.folder / "cache")

    def plan(self) -> Plan:
        project = Project(profile=self.folder / "demo.yaml")
        lock = project.read_lock()
        assert lock is not None
        return make_plan(lock, project.facts(lock.base))

    def completes(self) -> None:
        """The same command, run again where all is well."""
        done = self.ok("build", "demo.yaml", "--jobs", "1", "--output", "oci:image")
        assert done.out == self.reference
        self.is_whole()
        assert not [path for path in self.folder.rglob(".*.tmp") if "cache" not in path.parts]

    def is_whole(self) -> None:
        """Every file under a final name is complete, whatever was killed."""
        for path in (self.folder / "cache" / "sha256").rglob("*"):
            if path.is_file():
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        for path in (self.folder / "locks").glob("*"):
            if path.is_file() and not path.name.startswith("."):
                locks.loads(path.read_text(), name=path.name, kinds=KINDS)
        for path in (self.folder / "bases").glob("*"):
            if not path.name.startswith("."):
                assert json.loads(path.read_text())["digest"] == f"sha256:{path.stem}"
        image = self.folder / "image"
        if image.exists():
            manifest = Layout.open(image).manifest()
            for blob in (manifest.config, *manifest.layers):
                assert hashlib.sha256((image / "blobs" / "sha256" / blob.hex).read_bytes()).hexdigest() == blob.hex


def ended(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=GENEROUS)
    assert "Traceback" not in err
    assert "a bug in cregraph" not in err
    return Done(process.returncode, out, err)


def refused(done: Done, message: str, code: int = 2) -> None:
    """The last thing said is `message`, whole; nothing is on stdout."""
    assert (done.code, done.out) == (code, ""), done.err
    assert done.err.endswith(message), done.err
    assert done.err.count("error: ") == 1


def flipped(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def damage(demo: Demo, sha256: str) -> str:
    """Flip a byte of an object on disk; the sha256 that it then has."""
    path = demo.store.path_of(sha256)
    bad = flipped(path.read_bytes())
    path.chmod(0o644)
    path.write_bytes(bad)
    return hashlib.sha256(bad).hexdigest()


def forget(demo: Demo, *sections: str) -> None:
    for section in sections:
        shutil.rmtree(demo.folder / "cache" / section)


@contextlib.contextmanager
def within(seconds: int = GENEROUS) -> Iterator[None]:
    """Fail where the block, in the main thread, goes on for longer than any machine needs."""

    def late(*_: object) -> None:
        raise AssertionError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def soon(happened: Callable[[], object], seconds: float = GENEROUS) -> None:
    """Wait until something happened."""
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def outdated(folder: Path) -> None:
    """Let what lies there be older than anything that is being written."""
    for path in folder.rglob("*"):
        os.utime(path, (0, 0), follow_symlinks=False)


def made_demo(folder: Path) -> Demo:
    """A demo with a file from a URL besides, locked and built."""
    folder.mkdir()
    demo = Demo(folder=folder)
    assert demo.run("demo", ".").code == 0
    (folder / "recipes").mkdir()
    (folder / "recipes" / "tool.yaml").write_text(
        f'recipe: tool\nabout: a file from a URL\nsteps:\n  - archive: {{url: "{HTTPFS}", at: [/opt/tool/tool], mode: "0755"}}\n'
    )
    files = folder / "sources" / "files" / "v1"
    files.mkdir(parents=True)
    (files / "tool.gz").write_bytes(gzip.compress(b"a tool " * 4000 + os.urandom(20_000), mtime=0))
    profile = folder / "demo.yaml"
    profile.write_text(profile.read_text() + "\nwith: [tool]\n")
    sources = folder / "sources.yaml"
    sources.write_text(sources.read_text() + 'url: {"https://files.invalid/": ./sources/files/}\n')
    demo.ok("lock", "demo.yaml")
    demo.reference = demo.ok("build", "demo.yaml", "--output", "oci:image").out
    assert demo.reference.startswith("demo-r:v1-")
    return demo


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A demo that is not to be changed."""
    return made_demo(tmp_path_factory.mktemp("faults") / "made")


@pytest.fixture(scope="session")
def running(made: Demo) -> Iterator[Server]:
    with serve(made.folder / "sources") as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    running.clear()
    running.seconds = 1.0
    yield running
    running.clear()


@pytest.fixture
def own(made: Demo, tmp_path: Path) -> Demo:
    """A copy with a warm store."""
    return made.copy(tmp_path / "own")


@pytest.fixture
def cold(made: Demo, server: Server, tmp_path: Path) -> Demo:
    """A copy with an empty store and no image, whose sources are the server's."""
    demo = made.copy(tmp_path / "cold", cold=True)
    shutil.rmtree(demo.folder / "image")
    demo.route(server.address)
    return demo
