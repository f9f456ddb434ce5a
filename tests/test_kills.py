"""What is killed or interrupted leaves nothing half-written, and the next run completes with the same digest."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cregraph.kinds import KINDS
from cregraph.lock import lock_file as locks
from cregraph.store import Store
from cregraph.store.atomic_file import write_file
from tests.environment.serving import Server
from tests.faults import (
    FRAMES,
    GENEROUS,
    INTERRUPTED,
    KILLED,
    Demo,
    ended,
    outdated,
    refused,
    soon,
)
from tests.small_registry import SmallRegistry


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
    server.seconds = 2 * GENEROUS  # who waits for it comes too late
    server.fault(f"*/{FRAMES}", "slow")
    process = cold.start("build", "demo.yaml", "--jobs", "1")
    soon(lambda: server.paths(f"*/{FRAMES}"))
    os.killpg(process.pid, signal.SIGINT)
    refused(ended(process), INTERRUPTED, code=130)
    cold.is_whole()
    cold.completes()


@pytest.mark.parametrize("path", ["*/linux-64/repodata.json*", "*/demostats_1.0-3.tar.gz"])
def test_ctrl_c_ends_a_lock_and_leaves_it_as_it_was(cold: Demo, server: Server, path: str) -> None:
    server.seconds = 2 * GENEROUS
    server.fault(path, "slow", times=9)
    (cold.folder / "sources.yaml").write_text(
        f"conda: {{demo: {server.address}/channel}}\ncran: {server.address}/cran\npypi: ./sources/simple\n"
        "url: {'https://files.invalid/': ./sources/files/}\n"
    )
    lock = cold.folder / "locks" / "with-cran.lock.json"
    new = lock.read_bytes()
    lock.unlink()
    process = cold.start("lock", "with-cran.yaml")
    soon(lambda: server.paths(path))
    os.killpg(process.pid, signal.SIGINT)
    refused(ended(process), INTERRUPTED, code=130)
    assert not lock.exists()
    cold.is_whole()
    server.clear()
    cold.ok("lock", "with-cran.yaml")
    assert b"demostats" in lock.read_bytes()
    assert (
        len(locks.loads(lock.read_text(), name="", kinds=KINDS).targets)
        == len(locks.loads(new.decode(), name="", kinds=KINDS).targets) + 1
    )


HOLDER = """
import sys, time
from pathlib import Path
from cregraph.store import Store
from cregraph.store.atomic_file import write_file
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
    young, old, foreign = ("1" * 64, "2" * 64, "somebody's own")
    (tmp_path / "partial").mkdir()
    for name, days in ((young, 13), (old, 15), (foreign, 15)):
        (tmp_path / "partial" / name).write_bytes(b"x")
        then = time.time() - days * 86400
        os.utime(tmp_path / "partial" / name, (then, then))
    Store(tmp_path).sweep()
    assert sorted(path.name for path in (tmp_path / "partial").iterdir()) == [young, foreign]


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


def test_overlapping_profiles_that_are_built_at_once_both_complete(
    made: Demo, cold: Demo, server: Server, tmp_path: Path
) -> None:
    """They share most packages, and fetch and make each of those once or twice, but never half."""
    profile = (cold.folder / "demo.yaml").read_text()
    (cold.folder / "other.yaml").write_text(profile.replace("- r-demoframes ", "- r-demoframes =1.1.0 "))
    shutil.copy(made.folder / "sources.yaml", cold.folder / "local.yaml")
    cold.ok("lock", "other.yaml", "--sources", "local.yaml")
    alone = replace(cold, folder=cold.folder, env={"CREGRAPH_CACHE": str(tmp_path / "alone")})
    expected = {"demo.yaml": cold.reference, "other.yaml": alone.ok("build", "other.yaml").out}
    assert expected["other.yaml"] != cold.reference
    for round in range(3):
        demo = replace(cold, env={"CREGRAPH_CACHE": str(tmp_path / str(round))})
        running = [(name, demo.start("build", name)) for name in (*expected, *expected)]
        for name, process in running:
            done = ended(process)
            assert (done.code, done.out) == (0, expected[name]), done.err
        assert demo.run("cache", "verify").code == 0
    cold.completes()


# -- at random moments ---------------------------------------------------------------------------------------------------------


def chance() -> random.Random:
    """Moments to kill at, by a seed that is printed: CREGRAPH_TEST_SEED takes the same ones again."""
    seed = int(os.environ.get("CREGRAPH_TEST_SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"CREGRAPH_TEST_SEED={seed}")
    return random.Random(seed)


def killed_after(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("phase", ["fetch", "assemble"])
def test_builds_that_are_killed_at_random_moments_are_gone_on_with(cold: Demo, server: Server, phase: str) -> None:
    moments = chance()
    if phase == "fetch":
        server.seconds = 0.3
        server.fault("*.conda", "slow", times=1000)
    else:
        cold.ok("build", "demo.yaml")
    for _ in range(5):
        if phase == "assemble":
            for section in ("cache/segments", "cache/layers", "cache/images", "image"):
                shutil.rmtree(cold.folder / section, ignore_errors=True)
        build = cold.start("build", "demo.yaml", "--output", "oci:image")
        killed_after(build, moments.uniform(0.25, 1.0))
        cold.is_whole()
        assert cold.run("cache", "verify").code == 0, "no record names what is not there"
    server.clear()
    outdated(cold.folder / "cache" / "tmp")
    cold.completes()
    assert list((cold.folder / "cache" / "tmp").iterdir()) == []


def test_pushes_that_are_killed_at_random_moments_are_gone_on_with(own: Demo) -> None:
    moments = chance()
    with SmallRegistry() as registry:
        output = f"registry:{registry.host}/team"
        for _ in range(5):
            push = own.start("build", "demo.yaml", "--output", output, program=("-c", SLOW_SENDS))
            killed_after(push, moments.uniform(0.4, 1.2))
            for (_, name), manifest in registry.manifests.items():  # what is named is whole
                if not name.startswith("sha256:"):
                    listed = json.loads(manifest)
                    for blob in (listed["config"], *listed["layers"]):
                        assert ("team/demo-r", blob["digest"]) in registry.blobs
        done = own.ok("build", "demo.yaml", "--output", output)
        assert done.out == own.reference
        tag = done.out.partition("@")[0].rpartition(":")[2]
        assert hashlib.sha256(registry.manifests["team/demo-r", tag]).hexdigest() == done.out.strip().rpartition(":")[2]


#: Takes a little time for each thing that is sent.
SLOW_SENDS = """
import runpy, socket, sys, time
sent = socket.socket.sendall
def slowly(self, *rest):
    time.sleep(0.02)
    return sent(self, *rest)
socket.socket.sendall = slowly
sys.argv[0] = "cregraph"
runpy.run_module("cregraph", run_name="__main__")
"""
