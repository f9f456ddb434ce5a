"""Faults while real software is compiled: bytes that differ, kills, two at once."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cregraph.build.image_build import missing_work
from cregraph.plan.planner import Plan, make_plan
from cregraph.session.project import Project
from cregraph.store import Store
from tests.environment import Environment
from tests.faults import (
    DIFFERS,
    INTERRUPTED,
    digest,
    ended,
    flipped,
    outdated,
    soon,
)
from tests.real_project import RealProject


def real_copy(built: RealProject, folder: Path) -> RealProject:
    """The same project with a store of its own, whose objects are hard links: they are read-only."""
    project = RealProject.make(folder, built.environment)
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


@pytest.mark.environment
@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        pytest.param("bitops", "*/bitops_*.tar.gz", marks=pytest.mark.proofs),
        ("snowflakeR", "*/snowflakeR_0.1.0.tar.gz"),
        pytest.param("rpy2-rinterface", "*/rpy2_rinterface-*.tar.gz", marks=pytest.mark.proofs),
    ],
)
def test_a_flipped_byte_in_a_source_that_is_compiled_is_refused(
    built: RealProject, environment: Environment, tmp_path: Path, name: str, pattern: str
) -> None:
    project = real_copy(built, tmp_path / "p")
    expected = built.ok("build", "team.yaml").out
    _, _, place = undo(project, name)
    with environment.serve() as server:
        project.route(server.address)
        server.fault(pattern, "flip")
        done = project.run("build", "team.yaml", "--jobs", "1")
        asked = next(a.path for a in server.log if a.status == 200 and a.path in server.paths(pattern))
        good = (environment.root / asked.lstrip("/")).read_bytes()
        assert (done.code, done.out) == (2, "")
        assert done.err.endswith(
            f" has {digest(flipped(good))}, but the lock pins {digest(good)} ({len(good)} bytes)\n"
            f"  from {server.address}{asked}\n{DIFFERS}"
        ), done.err
        assert not place.exists()
        server.fault(pattern, "500", times=2)
        again = project.ok("build", "team.yaml", "--jobs", "1", "--json").json["images"][0]
    assert f"{again['image']}@{again['digest']}\n" == expected
    assert again["made"]["tasks"] == 1


@pytest.mark.environment
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
    assert any(": started" in line for line in said)
    soon(lambda: _held_up(process.pid))
    family = _family(process.pid)
    process.send_signal(sent)
    done = ended(process)
    assert done.code == code, done.err
    if sent == signal.SIGINT:
        assert done.err.endswith(INTERRUPTED)
    soon(lambda: not any(_alive(pid) for pid in family))
    assert [task.name.split(" ")[0] for task in missing_work(plan, store).tasks] == ["bitops"]
    outdated(project.folder / "cache" / "tmp")
    again = project.ok("build", "team.yaml", "--json").json["images"][0]
    assert f"{again['image']}@{again['digest']}\n" == expected
    assert again["made"]["tasks"] == 1
    assert list((project.folder / "cache" / "tmp").iterdir()) == []


@pytest.mark.proofs
@pytest.mark.environment
def test_builds_that_are_killed_at_random_moments_while_they_compile_are_gone_on_with(built: RealProject, tmp_path: Path) -> None:
    seed = int(os.environ.get("CREGRAPH_TEST_SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"CREGRAPH_TEST_SEED={seed}")
    moments = random.Random(seed)
    project = real_copy(built, tmp_path / "p")
    expected = built.ok("build", "team.yaml").out
    for name in ("bitops", "caTools", "xts", "lmtest", "plyr"):
        undo(project, name)
    for _ in range(3):
        build = start(project, "build", "team.yaml")
        try:
            build.communicate(timeout=moments.uniform(0.8, 5.0))
        except subprocess.TimeoutExpired:
            family = _family(build.pid)
            os.killpg(build.pid, signal.SIGKILL)
            build.communicate()
            soon(lambda f=family: not any(_alive(pid) for pid in f))
    outdated(project.folder / "cache" / "tmp")
    assert project.ok("build", "team.yaml").out == expected
    assert project.ok("cache", "verify").out == "the store is complete\n"
    assert list((project.folder / "cache" / "tmp").iterdir()) == []


@pytest.mark.environment
def test_overlapping_profiles_that_are_built_at_once_compile_what_they_share_once(built: RealProject, tmp_path: Path) -> None:
    project = real_copy(built, tmp_path / "p")
    expected = built.ok("build", "team.yaml").out
    shutil.copy(project.folder / "team.yaml", project.folder / "other.yaml")
    project.edit(name="other.yaml", cran=["caTools", "xts"], conda_r=["r-codetools"])
    project.edit({"tarballs": {}}, name="other.yaml")
    shutil.copy(project.lock, project.folder / "locks" / "other.lock.json")  # so that no pin moves
    project.ok("lock", "other.yaml")
    shared = {"bitops", "xts"}
    for name in shared:
        undo(project, name)
    builds = {name: start(project, "build", name) for name in ("team.yaml", "other.yaml")}
    done = {name: ended(build) for name, build in builds.items()}
    assert {name: one.code for name, one in done.items()} == {"team.yaml": 0, "other.yaml": 0}, done
    assert done["team.yaml"].out == expected
    begun = [line for one in done.values() for line in one.err.splitlines() if ": started" in line]
    for name in shared:
        assert sum(name in line for line in begun) == 1, begun
    assert project.ok("build", "other.yaml").out == done["other.yaml"].out


@pytest.mark.environment
def test_clearing_the_store_again_and_again_disturbs_no_build_that_compiles(built: RealProject, tmp_path: Path) -> None:
    """The lock file is away meanwhile, so that nothing but the running build keeps what it needs."""
    project = real_copy(built, tmp_path / "p")
    expected = built.ok("build", "team.yaml").out
    for name in ("bitops", "caTools", "xts", "lmtest"):
        undo(project, name)
    lock = project.lock.read_bytes()
    build = start(project, "build", "team.yaml")
    soon(lambda: list((project.folder / "cache" / "users").glob("*")))
    project.lock.unlink()
    garbage = Store(project.folder / "cache").add(b"put there by somebody else, while the build runs")
    clearings = 0
    while build.poll() is None:
        done = project.ok("cache", "gc", "--json").json
        if build.poll() is None:  # else it may have ended before this clearing looked
            assert len(done["roots"]) == 1, "the running build's"
            clearings += 1
    out, err = build.communicate()
    assert (build.returncode, out) == (0, expected), err
    assert clearings >= 3
    project.lock.write_bytes(lock)
    project.ok("cache", "gc")
    assert not Store(project.folder / "cache").has(garbage)
    # Whether the last clearing came after the build's end, when nothing kept anything, is chance; the image is the same.
    assert project.ok("build", "team.yaml").out == expected
    assert project.ok("cache", "verify").out == "the store is complete\n"


def start(project: RealProject, *words: str) -> subprocess.Popen[str]:
    """`cregraph WORDS`, to be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "cregraph", *words],
        cwd=project.folder,
        env={**os.environ, **project.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


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


def _held_up(pid: int) -> bool:
    """Whether the command of a task runs below `pid` and is stopped, so that it does not end before it is ended."""
    for below in _family(pid):
        with contextlib.suppress(OSError):
            numbers = re.search(r"^NSpid:(.*)$", Path(f"/proc/{below}/status").read_text(), re.MULTILINE)
            inner = numbers[1].split()[1:] if numbers else []
            if inner and inner[-1] != "1":  # the first process of the sandbox is cregraph's own
                os.kill(below, signal.SIGSTOP)
                return _alive(below)
    return False


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
