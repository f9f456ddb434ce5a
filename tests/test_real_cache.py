"""Outputs and the remote cache on real software: what a second machine may take, and what it may not."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path

import pytest

from tests.engine_names import repository
from tests.environment import Environment
from tests.real_project import RealProject
from tests.test_real_image import copy_of, reference

pytestmark = [pytest.mark.environment]

#: Words before a command that is to find no sandbox: no namespace may be made, and no Docker engine is named.
NO_ENGINE = (
    *("env", "-u", "DOCKER_HOST", "unshare", "--user", "--map-root-user", "sh", "-c"),
    "".join(f"echo 0 > /proc/sys/user/max_{kind}_namespaces;" for kind in ("user", "mnt", "pid", "uts", "ipc", "net"))
    + 'exec "$@"',
    "sh",
)


def elsewhere(built: RealProject, environment: Environment, folder: Path) -> RealProject:
    """The same project on another machine: its files, and a cold store."""
    project = RealProject.make(folder, environment)
    for name in ("locks", "bases"):
        shutil.copytree(built.folder / name, project.folder / name)
    return project


def outputs(project: RealProject) -> Path:
    return project.folder / "locks" / "team.outputs.json"


def test_a_build_records_what_each_task_gave_and_writes_it_only_when_it_changes(built: RealProject, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path / "p")
    recorded = json.loads(outputs(project).read_text())
    assert len(recorded["tasks"]) == 13
    assert {"caTools", "xts", "snowflakeR"} <= {row["name"] for row in recorded["tasks"]}
    before = outputs(project).stat().st_mtime_ns
    project.ok("build", "team.yaml")
    assert outputs(project).stat().st_mtime_ns == before
    project.edit(cran=["doParallel", "caTools", "xts", "lmtest", "reshape2", "bitops==1.0-7"])
    project.ok("lock", "team.yaml")
    assert json.loads(outputs(project).read_text()) == recorded
    project.ok("build", "team.yaml")
    after = json.loads(outputs(project).read_text())
    changed = [row["name"] for row in after["tasks"] if row not in recorded["tasks"]]
    assert sorted(changed) == ["bitops", "caTools"]
    assert len(after["tasks"]) == 13


def contradict(project: RealProject, name: str) -> tuple[str, str]:
    """Record another result for a task; the true digest and the recorded one."""
    data = json.loads(outputs(project).read_text())
    row = next(row for row in data["tasks"] if row["name"] == name)
    true, row["sha256"] = row["sha256"], "0" * 64
    outputs(project).write_text(json.dumps(data))
    return true, "0" * 64


def test_a_store_that_contradicts_what_is_recorded_makes_no_image(built: RealProject, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path / "p")
    digests = contradict(project, "bitops")
    text = outputs(project).read_text()
    done = project.run("build", "team.yaml", "--output", "oci:image")
    assert done.code == 1
    assert "task bitops" in done.err and all(digest in done.err for digest in digests) and "--rebuild" in done.err
    assert done.out == "" and not (project.folder / "image").exists()
    assert outputs(project).read_text() == text


def test_outputs_that_a_merge_left_open_are_an_error_with_the_line(built: RealProject, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path / "p")
    outputs(project).write_text("<<<<<<< HEAD\n" + outputs(project).read_text())
    done = project.run("build", "team.yaml")
    assert done.code == 2
    assert "team.outputs.json:1: git's conflict markers" in done.err


@pytest.fixture(scope="module")
def cache(built: RealProject) -> str:
    """A repository of the test registry with all that one machine made."""
    ref = f"{os.environ['CREGRAPH_TEST_REGISTRY']}/{repository('cache')}"
    done = built.ok("build", "team.yaml", "--cache-write", ref, "--json").json["images"][0]["cache"]["write"]
    assert (done["tasks"], done["there"], done["unreachable"]) == (13, 0, None)
    assert done["segments"] > 200
    return ref


@pytest.mark.docker
def test_a_second_machine_that_could_not_compile_gets_the_image_from_recorded_results(
    built: RealProject, environment: Environment, cache: str, tmp_path: Path
) -> None:
    """No namespaces, no Docker engine, an untrusted cache: results by the lock's outputs, everything else from its sources."""
    project = elsewhere(built, environment, tmp_path / "two")
    refused = project.run("build", "team.yaml", prefix=NO_ENGINE)
    assert refused.code == 2 and "packages to compile" in refused.err
    done = project.ok("build", "team.yaml", "--cache", cache, prefix=NO_ENGINE)
    assert done.out.strip() == reference(built)
    assert "tasks: 0 run, 13 reused" in done.err


@pytest.mark.docker
def test_without_recorded_outputs_an_untrusted_cache_makes_nobody_compile_less(
    built: RealProject, environment: Environment, cache: str, tmp_path: Path
) -> None:
    project = elsewhere(built, environment, tmp_path / "two")
    outputs(project).unlink()
    done = project.run("build", "team.yaml", "--cache", cache, prefix=NO_ENGINE)
    assert done.code == 2 and "packages to compile" in done.err


@pytest.mark.docker
def test_a_trusted_cache_gives_everything_and_no_artifact_is_fetched(
    built: RealProject, environment: Environment, cache: str, tmp_path: Path
) -> None:
    project = elsewhere(built, environment, tmp_path / "two")
    recorded = outputs(project).read_bytes()
    outputs(project).unlink()
    sources = project.folder / "sources.yaml"
    sources.write_text(sources.read_text() + f"\ncache: {{team: {{ref: {cache}, trusted: true}}}}\n")
    done = project.ok("build", "team.yaml", "--cache", "team", "--json", prefix=NO_ENGINE).json["images"][0]
    assert done["digest"] == reference(built).partition("@")[2]
    assert (done["made"]["tasks"], done["made"]["artifacts"]) == (0, 0)
    assert done["cache"]["read"]["refused"] == []
    assert outputs(project).read_bytes() == recorded


@pytest.mark.docker
def test_a_result_that_another_machine_made_otherwise_is_an_incident_and_nothing_is_published(
    built: RealProject, cache: str, tmp_path: Path
) -> None:
    """The first writer's result of a key stands; the second is told, exit 1, before its image goes anywhere."""
    from cregraph.remote_cache.cache_repository import RemoteCache

    project = copy_of(built, tmp_path / "p")
    row = json.loads(outputs(project).read_text())["tasks"][0]
    host, _, repository = cache.partition("/")
    other = f"{host}/{repository}-{secrets.token_hex(4)}"
    from cregraph.plan.parts import Task
    from cregraph.store import Store

    store = Store(tmp_path / "other")
    sha256 = store.add(b"what another machine compiled")
    task = Task(key=row["key"], kind="r", stage="", name=row["name"], root="", argv=("x",), env={}, output="/x")
    assert RemoteCache(host, other.partition("/")[2]).upload_task(task, store, sha256, 29)

    done = project.run("build", "team.yaml", "--cache-write", other, "--output", "oci:image")
    assert done.code == 1
    assert f"task {row['name']}" in done.err and row["sha256"] in done.err and sha256 in done.err
    assert not (project.folder / "image").exists()


def test_a_cache_that_does_not_answer_is_left_out_in_one_line(built: RealProject, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path / "p")
    project.edit(conda_r=["r-lme4=1.1-31", "r-codetools", "odd-noarch"])
    project.ok("lock", "team.yaml")
    sources = project.folder / "sources.yaml"
    sources.write_text(sources.read_text() + "\ncache: {team: {ref: '127.0.0.1:9/cache', trusted: true}}\n")
    done = project.ok("build", "team.yaml", "--cache", "team", env={"PYTHONWARNINGS": "error"})
    assert len([line for line in done.err.splitlines() if "skipped the cache 127.0.0.1:9/cache" in line]) == 1
