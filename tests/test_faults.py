"""What goes wrong outside, met by a user at the command line: damaged bytes, bad servers, kills, unreadable files.

Each time: the right message and exit code, nothing half-written, and the next run completes with the same digest.
"""

from __future__ import annotations

import fcntl
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

from cregraph import lock as locks
from cregraph.build import pending
from cregraph.image.layout import Layout
from cregraph.planning import Plan, make_plan
from cregraph.project import Project
from cregraph.store import Store, write_file
from tests.real_project import Done, RealProject
from tests.world import World
from tests.world.serving import Server, serve

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
INTERRUPTED = "error: interrupted\nhint: nothing is half-written; the same command goes on where it stopped\n"
DIFFERS = (
    "hint: the file changed at its source, or the lock was edited; if you expect new bytes, run "
    "`cregraph lock --upgrade-package NAME` and look at `cregraph diff`\n"
)
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
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")}
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
        for section in ("sha256", "segments", "layers", "images") if cold else ():
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
            if not path.name.startswith("."):
                locks.loads(path.read_text(), name=path.name)
        for path in (self.folder / "bases").glob("*"):
            if not path.name.startswith("."):
                assert json.loads(path.read_text())["digest"] == f"sha256:{path.stem}"
        image = self.folder / "image"
        if image.exists():
            manifest = Layout.open(image).manifest()
            for blob in (manifest.config, *manifest.layers):
                assert hashlib.sha256((image / "blobs" / "sha256" / blob.hex).read_bytes()).hexdigest() == blob.hex


def ended(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    assert "a fault of cregraph" not in err
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


def soon(happened: Callable[[], object], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def outdated(folder: Path) -> None:
    """Let what lies there be older than anything that is being written."""
    for path in folder.rglob("*"):
        os.utime(path, (0, 0), follow_symlinks=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A demo with a file from a URL besides, locked and built."""
    folder = tmp_path_factory.mktemp("faults") / "made"
    folder.mkdir()
    demo = Demo(folder=folder)
    assert demo.run("demo", ".").code == 0
    (folder / "recipes").mkdir()
    (folder / "recipes" / "tool.yaml").write_text(
        f'recipe: tool\nabout: a file from a URL\nsteps:\n  - archive: {{url: "{HTTPFS}", at: [/opt/tool/tool], mode: "0755"}}\n'
    )
    files = folder / "world" / "files" / "v1"
    files.mkdir(parents=True)
    (files / "tool.gz").write_bytes(gzip.compress(b"a tool " * 4000 + os.urandom(20_000), mtime=0))
    profile = folder / "demo.yaml"
    profile.write_text(profile.read_text() + "\nwith: [tool]\n")
    sources = folder / "sources.yaml"
    sources.write_text(sources.read_text() + 'url: {"https://files.invalid/": ./world/files/}\n')
    demo.ok("lock", "demo.yaml")
    demo.reference = demo.ok("build", "demo.yaml", "--output", "oci:image").out
    assert demo.reference.startswith("demo-r:v1-")
    return demo


@pytest.fixture(scope="module")
def running(made: Demo) -> Iterator[Server]:
    with serve(made.folder / "world") as server:
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


# -- damaged bytes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [f"channel/linux-64/{FRAMES}", f"simple/demo-greeting/{WHEEL}", "files/v1/tool.gz"])
def test_a_byte_that_is_flipped_on_its_way_is_refused_with_both_digests_and_the_source(
    cold: Demo, server: Server, path: str
) -> None:
    good = (cold.folder / "world" / path).read_bytes()
    server.fault(f"/{path}", "flip")
    before = cold.lock.read_bytes()
    name = HTTPFS if path.startswith("files") else path.rpartition("/")[2]
    refused(
        cold.run("build", "demo.yaml", "--jobs", "1", "--output", "oci:image"),
        f"error: {name} has {digest(flipped(good))}, but the lock pins {digest(good)} ({len(good)} bytes)\n"
        f"  from {server.address}/{path}\n{DIFFERS}",
    )
    assert not cold.store.has(digest(good)[7:])
    assert not cold.store.has(digest(flipped(good))[7:])
    assert not (cold.folder / "image").exists()
    assert cold.lock.read_bytes() == before
    cold.completes()


@pytest.mark.parametrize("change", [flipped, lambda data: data + b"more", lambda data: data[:-1]])
def test_a_locked_file_that_changed_at_a_file_address_is_refused_until_it_is_back(
    made: Demo, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    demo = made.copy(tmp_path / "p", cold=True)
    path = demo.folder / "world" / "channel" / "linux-64" / FRAMES
    good = path.read_bytes()
    bad = change(good)
    path.write_bytes(bad)
    found = digest(bad) if len(bad) <= len(good) else f"more than {len(good)} bytes"
    refused(
        demo.run("build", "demo.yaml", "--jobs", "1"),
        f"error: {FRAMES} has {found}, but the lock pins {digest(good)} ({len(good)} bytes)\n  from {path.as_uri()}\n{DIFFERS}",
    )
    path.write_bytes(good)
    demo.completes()


def test_a_warm_store_needs_no_source(own: Demo) -> None:
    shutil.rmtree(own.folder / "world" / "channel")
    shutil.rmtree(own.folder / "world" / "simple")
    own.completes()


def test_a_flipped_byte_in_a_layer_of_the_base_is_found_while_locking_and_while_writing_the_image(own: Demo) -> None:
    layer = json.loads(_manifest(own.folder / "world" / "base").read_text())["layers"][0]
    path = own.folder / "world" / "base" / "blobs" / layer["digest"].replace(":", "/")
    good = path.read_bytes()
    path.write_bytes(flipped(good))
    message = (
        f"error: oci:world/base: a blob has {digest(flipped(good))} ({len(good)} bytes), "
        f"but its manifest says {digest(good)} ({len(good)})\nhint: the layout is damaged; copy it again\n"
    )
    refused(own.run("build", "demo.yaml", "--output", "oci:other"), message)
    assert not (own.folder / "other").exists()
    before = own.lock.read_bytes()
    own.lock.unlink()
    shutil.rmtree(own.folder / "bases")
    done = own.run("lock", "demo.yaml")
    assert (done.code, own.lock.exists(), list(own.folder.glob("bases/*"))) == (2, False, []), done.err
    path.write_bytes(good)
    own.ok("lock", "demo.yaml")
    assert own.lock.read_bytes() == before
    own.completes()


def test_a_cran_source_that_is_flipped_while_locking_is_refused_by_the_index(cold: Demo, server: Server) -> None:
    (cold.folder / "sources.yaml").write_text(
        f"conda: {{demo: ./world/channel}}\ncran: {server.address}/cran\npypi: ./world/simple\n"
        'url: {"https://files.invalid/": ./world/files/}\n'
    )
    lock = cold.folder / "locks" / "with-cran.lock.json"
    lock.unlink()
    file = "demostats_1.0-3.tar.gz"
    good = (cold.folder / "world" / "cran" / "src" / "contrib" / file).read_bytes()
    md5 = [hashlib.md5(data, usedforsecurity=False).hexdigest() for data in (flipped(good), good)]
    address = f"{server.address}/cran/src/contrib/{file}"
    server.fault(f"*/{file}", "flip")
    refused(
        cold.run("lock", "with-cran.yaml"),
        f"error: {address} has md5 {md5[0]}, but its index says {md5[1]}\n  from {address}\n"
        "hint: the mirror is out of step with its index; try again later or name another in sources.yaml\n",
    )
    assert not lock.exists()
    server.fault("*/PACKAGES.gz", "500", times=2)
    server.fault(f"*/{file}", "truncate")
    cold.ok("lock", "with-cran.yaml")
    assert digest(good)[7:] in lock.read_text()


def _manifest(layout: Path) -> Path:
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    return layout / "blobs" / entry["digest"].replace(":", "/")


# -- the store -----------------------------------------------------------------------------------------------------------------


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


def test_an_artifact_that_was_damaged_in_the_store_is_fetched_anew(own: Demo) -> None:
    pin = next(p for t in own.plan().lock.targets for p in t.pins if p.name == "r-demoframes")
    damage(own, pin.artifact.sha256)
    forget(own, "segments", "layers", "images")
    own.completes()


@pytest.mark.parametrize("which", ["layer", "segment", "index"])
def test_what_was_made_and_then_damaged_is_found_before_it_is_used_and_made_anew(own: Demo, which: str) -> None:
    plan = own.plan()
    if which == "layer":
        found = own.store.record("layers", plan.layers[-1].key)["digest"].removeprefix("sha256:")
        what = f"layer sha256:{found}"
        shutil.rmtree(own.folder / "image")
    else:
        segment = next(s for s in plan.segments.values() if s.name.startswith("r-demoframes"))
        found = own.store.record("segments", segment.key)["object" if which == "segment" else "index"]
        what = f"the index of segment {segment.key[:12]}"
        forget(own, "layers", "images")
    bad = damage(own, found)
    done = own.run("build", "demo.yaml", "--jobs", "1", "--output", "oci:image")
    if which == "segment":  # it is read once, while it is joined to a layer
        message = (
            f"error: segment {segment.key[:12]} in the store is damaged: its bytes are not those of sha256:{found}\n"
            "hint: run the command again to make it anew, and check the disk\n"
        )
    else:
        message = (
            f"error: {what} in the store has sha256:{bad}, but its name says sha256:{found}\n"
            f"hint: the damaged file was moved to {own.folder}/cache/quarantine/{found}.{bad[:12]}; "
            "run the command again to fetch or make it anew, and check the disk\n"
        )
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith(message), done.err
    assert own.store.has(found) == (which == "segment")
    own.completes()


@pytest.mark.parametrize("garbage", [b"", b"\xff\0{", b"[]", b'"text"', b'{"digest": 5}', b"[" * 50_000])
def test_records_that_are_garbage_are_as_good_as_none(own: Demo, garbage: bytes) -> None:
    for section in ("segments", "layers", "images"):
        for path in (own.folder / "cache" / section).rglob("*.json"):
            path.write_bytes(garbage)
    planned = own.ok("plan", "demo.yaml", "--json").json
    assert len(planned["layers"]["make"]) == planned["layers"]["all"]
    own.completes()


def test_a_store_that_cannot_be_written_to_is_said_to_be_so(own: Demo) -> None:
    (own.folder / "file").write_text("")
    own.env["CREGRAPH_CACHE"] = str(own.folder / "file")
    refused(
        own.run("build", "demo.yaml"),
        f"error: the store at {own.folder}/file cannot be written to: Not a directory\n"
        "hint: set CREGRAPH_CACHE to a folder of your own\n",
    )


def test_a_full_disk_is_said_to_be_full_and_leaves_nothing_half_written(cold: Demo) -> None:
    store = cold.folder / "cache"
    small = (
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f'mount -t tmpfs -o size=256k none "{store}" && exec "$@"',
        "sh",
    )
    if subprocess.run([*small, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    refused(
        cold.run("build", "demo.yaml", "--jobs", "1", prefix=small),
        f"error: no space left for the store at {store}\n"
        "hint: free space there, or set CREGRAPH_CACHE to a folder that has room; what was complete is kept\n",
    )
    cold.completes()


# -- servers -------------------------------------------------------------------------------------------------------------------


def test_a_download_that_is_cut_off_goes_on_and_a_server_that_fails_twice_is_asked_again(cold: Demo, server: Server) -> None:
    server.fault(f"*/{FRAMES}", "truncate")
    server.fault("*/tool.gz", "500", times=2)
    server.fault(f"*/{WHEEL}", "500", times=2)
    cold.completes()
    assert [asked.status for asked in server.log if asked.path.endswith(FRAMES)] == [200, 206]
    for name in ("tool.gz", WHEEL):
        assert [asked.status for asked in server.log if asked.path.endswith(name)] == [500, 500, 200]


def test_a_channel_that_fails_twice_is_asked_again(cold: Demo, server: Server) -> None:
    cold.lock.unlink()
    (cold.folder / "sources.yaml").write_text(
        f"conda: {{demo: {server.address}/channel}}\npypi: ./world/simple\nurl: {{'https://files.invalid/': ./world/files/}}\n"
    )
    server.fault("*/repodata.json*", "500", times=2)
    cold.ok("lock", "demo.yaml")
    assert cold.ok("build", "demo.yaml").out == cold.reference


def test_what_no_source_has_any_more_is_named_with_every_address(cold: Demo, server: Server) -> None:
    server.fault(f"*/{FRAMES}", "404", times=9)
    refused(
        cold.run("build", "demo.yaml", "--jobs", "1"),
        f"error: {FRAMES} is not there\n  {server.address}/channel/linux-64/{FRAMES}: HTTP 404\n"
        "hint: check the name, or the address in sources.yaml\n",
    )
    server.clear()
    cold.completes()


# -- unreadable files ----------------------------------------------------------------------------------------------------------


def _huge(path: Path) -> None:
    path.write_bytes(b"cre: {}\n" * 140_000)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _links(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "not-utf-8": (lambda p: p.write_bytes(b"cre:\n  name: caf\xe9\n"), "error: `demo.yaml` is not UTF-8 (byte 16)\n"),
    "binary": (
        lambda p: p.write_bytes(bytes(range(32)) * 8),
        "error: `demo.yaml`:1: not YAML: a character that YAML does not allow\n",
    ),
    "a-folder": (
        _folder,
        "error: there is no profile `demo.yaml/cregraph.yaml`\nhint: name a profile: cregraph COMMAND my_team.yaml\n",
    ),
    "missing": (lambda p: p.unlink(), "error: there is no profile `demo.yaml`\nhint: "),
    "a-link-to-itself": (_links, "error: there is no profile `demo.yaml`\nhint: "),
    "huge": (_huge, "error: `demo.yaml` is larger than 1 MiB; this is no profile\n"),
    "closed": (lambda p: p.chmod(0), "error: `demo.yaml` cannot be read: Permission denied\n"),
    "empty": (
        lambda p: p.write_bytes(b""),
        "error: `demo.yaml` states nothing\nhint: begin with `cre: {tag: v1}`; `cregraph demo` writes one that works\n",
    ),
}


@pytest.mark.parametrize("how", UNREADABLE)
def test_an_unreadable_profile_is_refused_and_its_lock_left_alone(made: Demo, tmp_path: Path, how: str) -> None:
    demo = Demo(folder=tmp_path)
    for name in ("demo.yaml", "sources.yaml"):
        shutil.copy(made.folder / name, tmp_path / name)
    for name in ("locks", "bases"):
        shutil.copytree(made.folder / name, tmp_path / name)
    spoil, message = UNREADABLE[how]
    spoil(tmp_path / "demo.yaml")
    before = demo.lock.read_bytes()
    # root reads everything; without its rights over files of others it is an ordinary user
    prefix = ("unshare", "--user", "--map-user=4242") if how == "closed" and os.geteuid() == 0 else ()
    if prefix and subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    for command in ("lock", "build") if how == "not-utf-8" else ("lock",):
        done = demo.run(command, "demo.yaml", prefix=prefix)
        assert (done.code, done.out) == (2, ""), done.err
        assert done.err.startswith(message), done.err
        assert done.err.count("error: ") == 1
    assert demo.lock.read_bytes() == before


def test_a_profile_in_a_folder_that_is_closed_is_refused(made: Demo, tmp_path: Path) -> None:
    prefix = ("unshare", "--user", "--map-user=4242") if os.geteuid() == 0 else ()
    if prefix and subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    (tmp_path / "closed").mkdir(mode=0)
    done = Demo(folder=tmp_path).run("lock", "closed/demo.yaml", prefix=prefix)
    refused(done, "error: `closed/demo.yaml`: Permission denied\nhint: give it room and rights, or name another place\n")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sources.yaml", b"\xff", "error: `sources.yaml` cannot be read: it is not UTF-8 (byte 0)\n"),
        ("sources.yaml", b"conda: [", "error: `sources.yaml`:1: not readable as YAML: "),
        ("locks/demo.lock.json", b"\xff", "error: `locks/demo.lock.json` cannot be read: it is not UTF-8 (byte 0)\nhint: "),
        ("locks/demo.lock.json", b"<<<<<<< ours\n", "error: `locks/demo.lock.json`:1: git's conflict markers stand in the lock"),
        ("locks/demo.lock.json", b"", "error: `locks/demo.lock.json`:1:1: not readable as JSON: "),
        ("bases/*", b"{}", "error: `locks/demo.lock.json` is stale\n  `bases/"),
        ("bases/*", b"\xff\0", "error: `locks/demo.lock.json` is stale\n  `bases/"),
        ("bases/*", None, "error: `locks/demo.lock.json` is stale\n  `bases/"),
    ],
)
def test_other_files_of_the_project_that_are_unreadable_are_named(
    made: Demo, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    demo = made.copy(tmp_path / "p", cold=True)
    (path,) = demo.folder.glob(name)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    done = demo.run("build", "demo.yaml")
    assert (done.code, done.out) == (1 if "is stale" in message else 2, ""), done.err
    assert done.err.startswith(message), done.err
    assert "\nhint: " in done.err or name == "sources.yaml"


# -- kills ---------------------------------------------------------------------------------------------------------------------


def test_a_lock_that_is_killed_at_any_moment_leaves_the_old_one_or_the_new_one(made: Demo, tmp_path: Path) -> None:
    demo = made.copy(tmp_path / "p", cold=True)
    new = demo.lock.read_bytes()
    profile = demo.folder / "demo.yaml"
    profile.write_text(profile.read_text().replace("- r-demoframes ", "- r-demoframes =1.1.0 "))
    demo.ok("lock", "demo.yaml")
    old = demo.lock.read_bytes()
    assert old != new
    profile.write_text(profile.read_text().replace("- r-demoframes =1.1.0 ", "- r-demoframes "))
    killed = 0
    for moment in range(1, 40):
        demo.lock.write_bytes(old)
        shutil.rmtree(demo.folder / "bases", ignore_errors=True)
        shutil.rmtree(demo.folder / "cache" / "sha256", ignore_errors=True)
        done = demo.run(str(moment), "lock", "demo.yaml", program=("-c", KILLED))
        if done.code == 0:
            break
        killed += 1
        assert done.code == -signal.SIGKILL, done.err
        demo.is_whole()
        assert demo.lock.read_bytes() == old
    assert killed >= 3, "objects, base facts and the lock itself are renamed into place"
    outdated(demo.folder / "locks")
    demo.lock.unlink()
    demo.ok("lock", "demo.yaml")
    assert demo.lock.read_bytes() == new
    demo.completes()


def test_a_build_that_is_killed_at_any_moment_goes_on_from_there(cold: Demo, server: Server) -> None:
    """Each run gets a little farther, for what is complete is kept."""
    killed = 0
    for moment in (1, 2, 5, 9, 14, 20, 27, 35, 44, 60):
        done = cold.run(str(moment), "build", "demo.yaml", "--jobs", "1", "--output", "oci:image", program=("-c", KILLED))
        cold.is_whole()
        if done.code == 0:
            break
        assert (done.code, done.out) == (-signal.SIGKILL, ""), done.err
        killed += 1
    assert killed >= 5
    outdated(cold.folder / "cache" / "tmp")
    cold.completes()
    assert list((cold.folder / "cache" / "tmp").iterdir()) == []
    assert list((cold.folder / "cache" / "partial").iterdir()) == []


def test_a_download_that_is_killed_goes_on_where_it_was(cold: Demo, server: Server) -> None:
    server.seconds = 30
    server.fault(f"*/{FRAMES}", "slow")
    process = cold.start("build", "demo.yaml", "--jobs", "1")
    soon(lambda: server.paths(f"*/{FRAMES}"))
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    assert ended(process).code == -signal.SIGKILL
    cold.is_whole()
    cold.completes()


def test_ctrl_c_ends_a_download_at_once_and_says_that_nothing_is_lost(cold: Demo, server: Server) -> None:
    server.seconds = 30
    server.fault(f"*/{FRAMES}", "slow")
    process = cold.start("build", "demo.yaml", "--jobs", "1")
    soon(lambda: server.paths(f"*/{FRAMES}"))
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    refused(ended(process), INTERRUPTED, code=130)
    assert time.monotonic() - started < 5
    cold.is_whole()
    cold.completes()


@pytest.mark.parametrize("path", ["*/linux-64/repodata.json*", "*/demostats_1.0-3.tar.gz"])
def test_ctrl_c_ends_a_lock_and_leaves_it_as_it_was(cold: Demo, server: Server, path: str) -> None:
    server.seconds = 30
    server.fault(path, "slow", times=9)
    (cold.folder / "sources.yaml").write_text(
        f"conda: {{demo: {server.address}/channel}}\ncran: {server.address}/cran\npypi: ./world/simple\n"
        "url: {'https://files.invalid/': ./world/files/}\n"
    )
    lock = cold.folder / "locks" / "with-cran.lock.json"
    new = lock.read_bytes()
    lock.unlink()
    process = cold.start("lock", "with-cran.yaml")
    soon(lambda: server.paths(path))
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    refused(ended(process), INTERRUPTED, code=130)
    assert time.monotonic() - started < 5
    assert not lock.exists()
    cold.is_whole()
    server.clear()
    cold.ok("lock", "with-cran.yaml")
    assert b"demostats" in lock.read_bytes()
    assert len(locks.loads(lock.read_text(), name="").targets) == len(locks.loads(new.decode(), name="").targets) + 1


# -- what killed processes left ------------------------------------------------------------------------------------------------


HOLDER = """
import sys, time
from pathlib import Path
from cregraph.store import Store, write_file
with Store(Path(sys.argv[1])).scratch_folder() as folder, Store(Path(sys.argv[1])).writer() as out:
    (folder / "file").write_text("x")
    out.write(b"half")
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_swept_and_what_a_live_one_uses_is_not(tmp_path: Path) -> None:
    store, temporary = Store(tmp_path), tmp_path / "tmp"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    outdated(temporary)
    store.sweep()
    assert len(list(temporary.iterdir())) == 2, "both are held"
    process.kill()
    process.communicate()
    for path in temporary.iterdir():
        os.utime(path)
    store.sweep()
    assert len(list(temporary.iterdir())) == 2, "what was touched just now may be about to be held"
    outdated(temporary)
    store.sweep()
    assert list(temporary.iterdir()) == []


def test_a_download_that_was_cut_off_is_kept_for_two_weeks(tmp_path: Path) -> None:
    (tmp_path / "partial").mkdir()
    for name, days in (("young", 13), ("old", 15)):
        (tmp_path / "partial" / name).write_bytes(b"x")
        then = time.time() - days * 86400
        os.utime(tmp_path / "partial" / name, (then, then))
    Store(tmp_path).sweep()
    assert [path.name for path in (tmp_path / "partial").iterdir()] == ["young"]


def test_a_file_that_a_killed_process_was_writing_is_removed_by_the_next_one(tmp_path: Path) -> None:
    left, held, other = (tmp_path / f".{name}.0123abcd.tmp" for name in ("a.json.99", "a.json.98", "b.json.99"))
    for path in (left, held, other):
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_file(tmp_path / "a.json", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [held.name, other.name, "a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"whole"


# -- several at once -----------------------------------------------------------------------------------------------------------


def test_two_builds_and_a_lock_at_once_do_not_disturb_each_other(made: Demo, cold: Demo, server: Server) -> None:
    server.fault("*.conda", "slow", times=2)
    other = cold.folder / "locks" / "with-cran.lock.json"
    other.unlink()
    shutil.copy(made.folder / "sources.yaml", cold.folder / "local.yaml")
    builds = [cold.start("build", "demo.yaml", "--output", "oci:image") for _ in range(2)]
    lock = cold.start("lock", "with-cran.yaml", "--sources", "local.yaml")
    assert ended(lock).code == 0
    for process in builds:
        done = ended(process)
        assert (done.code, done.out) == (0, cold.reference), done.err
    assert len(server.paths(f"*/{FRAMES}")) == 1
    cold.completes()


# -- real software -------------------------------------------------------------------------------------------------------------


def real_copy(built: RealProject, folder: Path) -> RealProject:
    """The same project with a store of its own, whose objects are hard links: they are read-only."""
    project = RealProject.make(folder, built.world)
    for name in ("locks", "bases"):
        shutil.copytree(built.folder / name, folder / name)
    source = Path(built.env["CREGRAPH_CACHE"])
    (folder / "cache").mkdir()
    for section in ("sha256", "segments", "tasks", "segment-trees", "roots", "environments", "result-trees"):
        if (source / section).is_dir():
            subprocess.run(["cp", "-al", source / section, folder / "cache" / section], check=True)
    return project


def real_plan(project: RealProject) -> Plan:
    at = Project(profile=project.folder / "team.yaml")
    lock = at.read_lock()
    assert lock is not None
    return make_plan(lock, at.facts(lock.base))


def undo(project: RealProject, name: str) -> tuple[Store, Plan, Path]:
    """Forget the task of `name`, its segment and its source; the store, the plan and the source's place in the store."""
    plan, store = real_plan(project), Store(project.folder / "cache")
    (task,) = [t for t in plan.tasks if t.name.split(" ")[0] == name]
    store.drop_record("tasks", task.key)
    for segment in plan.segments.values():
        if segment.task_key == task.key:
            store.drop_record("segments", segment.key)
    pin = next(p for t in plan.lock.targets if t.kind != "conda" for p in t.pins if p.name == name)
    place = store.path_of(pin.artifact.sha256)
    place.unlink()
    return store, plan, place


@pytest.mark.world
@pytest.mark.xdist_group("real")
@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("bitops", "*/bitops_*.tar.gz"),
        ("snowflakeR", "*/snowflakeR_0.1.0.tar.gz"),
        ("rpy2-rinterface", "*/rpy2_rinterface-*.tar.gz"),
    ],
)
def test_a_flipped_byte_in_a_source_that_is_compiled_is_refused(
    built: RealProject, world: World, tmp_path: Path, name: str, pattern: str
) -> None:
    project = real_copy(built, tmp_path / "p")
    expected = built.ok("build", "team.yaml").out
    _, _, place = undo(project, name)
    with world.serve() as server:
        project.route(server.address)
        server.fault(pattern, "flip")
        done = project.run("build", "team.yaml", "--jobs", "1")
        asked = next(a.path for a in server.log if a.status == 200 and a.path in server.paths(pattern))
        good = (world.root / asked.lstrip("/")).read_bytes()
        assert (done.code, done.out) == (2, "")
        assert done.err.endswith(
            f" has {digest(flipped(good))}, but the lock pins {digest(good)} ({len(good)} bytes)\n"
            f"  from {server.address}{asked}\n{DIFFERS}"
        ), done.err
        assert not place.exists()
        server.fault(pattern, "500", times=2)
        again = project.ok("build", "team.yaml", "--jobs", "1", "--json").json[0]
    assert f"{again['image']}@{again['digest']}\n" == expected
    assert again["made"]["tasks"] == 1


@pytest.mark.world
@pytest.mark.xdist_group("real")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_build_that_is_ended_while_it_compiles_leaves_no_process_and_goes_on(
    built: RealProject, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    project = real_copy(built, tmp_path / "p")
    expected = built.ok("build", "team.yaml").out
    store, plan, _ = undo(project, "bitops")
    env = {**os.environ, **project.env}
    words = [sys.executable, "-m", "cregraph", "build", "team.yaml", "--jobs", "1"]
    process = subprocess.Popen(
        words, cwd=project.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    said = iter(process.stderr.readline, "")
    assert any("begun" in line for line in said)
    soon(lambda: _below(process.pid) > 1)
    time.sleep(0.3)
    family = _family(process.pid)
    started = time.monotonic()
    process.send_signal(sent)
    done = ended(process)
    assert done.code == code, done.err
    assert time.monotonic() - started < 10
    if sent == signal.SIGINT:
        assert done.err.endswith(INTERRUPTED)
    soon(lambda: not any(_alive(pid) for pid in family), seconds=5)
    assert [task.name.split(" ")[0] for task in pending(plan, store).tasks] == ["bitops"]
    outdated(project.folder / "cache" / "tmp")
    again = project.ok("build", "team.yaml", "--json").json[0]
    assert f"{again['image']}@{again['digest']}\n" == expected
    assert again["made"]["tasks"] == 1
    assert list((project.folder / "cache" / "tmp").iterdir()) == []


def _family(pid: int) -> list[int]:
    """All processes below `pid`."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _below(pid: int) -> int:
    return len(_family(pid))


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
