"""`cregraph shell` on the test environment: a task's own sandbox, with the package's sources and R in it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from cregraph.cli.shell import task_called
from cregraph.engines import namespaces
from cregraph.errors import CregraphError
from cregraph.plan.parts import Task, task
from tests.at_a_terminal import at_a_terminal
from tests.real_project import RealProject

pytestmark = [pytest.mark.environment]

SHELL = ("shell", "--profile", "team.yaml", "--engine", "native")


@pytest.fixture(scope="module", autouse=True)
def _namespaces(tmp_path_factory: pytest.TempPathFactory) -> None:
    reason = namespaces.available(tmp_path_factory.mktemp("probe"))
    if reason:
        pytest.skip(f"no namespaces here: {reason}")


def test_a_command_runs_in_a_tasks_sandbox_and_its_status_is_ours(built: RealProject) -> None:
    script = "ls /cregraph/in; pwd; ls -A; echo lost > /opt/new; R --version | head -1; exit 5"
    done = built.run(*SHELL, "zoo", "--", "/bin/sh", "-c", script)
    assert done.code == 5, done.err
    first, *rest = done.out.splitlines()
    assert first == "source" and rest[0] == "/cregraph/build"
    assert done.err.startswith("task zoo (stage cran, ")
    assert "cregraph keeps no change" in done.err
    assert "R CMD INSTALL" not in rest and "CMD INSTALL" in done.err


def test_what_a_task_needs_is_there_and_its_command_can_be_rerun(built: RealProject) -> None:
    """caTools stands on bitops; what is printed is the command, quoted for a shell."""
    shown = built.run(*SHELL, "caTools", "--", "true").err
    command = shown.partition("\n    ")[2].replace("\n    ", "\n")
    library = "/home/jupyter/micromamba/envs/workspace_env/lib/R/library"
    done = built.run(
        *SHELL, "catools", "--", "/bin/sh", "-euc", f"ls {library}/bitops/DESCRIPTION\n{command}\nls {library}/caTools/libs"
    )
    assert done.code == 0, done.err
    assert f"{library}/bitops/DESCRIPTION" in done.out
    assert done.out.splitlines()[-1] == "caTools.so"
    assert built.ok("plan", "team.yaml", "--json").json["tasks"]  # nothing of it was kept: the plan reads as before


def test_a_person_at_a_terminal_gets_a_shell_with_a_prompt(built: RealProject) -> None:
    program = [sys.executable, "-m", "cregraph", *SHELL, "zoo"]
    env = {**os.environ, **built.env, "TERM": "xterm"}
    keys = [("zoo# ", "echo $((40 + 2)) $TERM; exit 3\n"), ("42 xterm", "")]
    code, shown = at_a_terminal(program, keys, folder=built.folder, env=env)
    assert code == 3, shown
    assert list((Path(built.env["CREGRAPH_CACHE"]) / "tmp").iterdir()) == []


def test_where_there_is_no_such_program_a_way_out_is_said(built: RealProject) -> None:
    done = built.run(*SHELL, "zoo", "--", "no-such-program")
    assert done.code == 127
    assert "env: 'no-such-program': No such file or directory" in done.err


@pytest.mark.docker
def test_with_docker_the_sandbox_is_a_container_of_the_tasks_image(built: RealProject) -> None:
    script = "ls /cregraph/in; echo lost > /cregraph/in/new; pwd; R --version | head -1; exit 5"
    done = built.run("shell", "--profile", "team.yaml", "--engine", "docker", "zoo", "--", "/bin/sh", "-c", script)
    assert done.code == 5, done.err
    assert done.out.splitlines()[:2] == ["source", "/cregraph/build"] and "R version" in done.out
    assert "Read-only file system" in done.err and "in the docker engine" in done.err


def test_what_is_missing_beneath_a_task_is_made_first(built: RealProject, tmp_path: Path) -> None:
    """A store that has nothing: bitops is compiled, caTools is not."""
    done = built.run(*SHELL, "caTools", "--", "true", env={"CREGRAPH_CACHE": str(tmp_path / "store")})
    assert done.code == 0, done.err
    records = [json.loads(path.read_text()) for path in (tmp_path / "store/tasks").rglob("*.json")]
    assert len(records) == 1
    assert "task bitops: made" in done.err and "task caTools: made" not in done.err


def tasks() -> list[Task]:
    def one(name: str, salt: str) -> Task:
        root = "sha256:" + "0" * 64
        return task(assembly=1, kind="r", stage="cran", name=name, root=root, argv=("x", salt), env={}, output="/o")

    return [one("zoo", "1"), one("xts 1.2", "2"), one("twice 1", "3"), one("twice 2", "4")]


def test_a_task_is_found_by_name_or_key_and_the_nearest_is_named() -> None:
    zoo, xts, twice, _ = all_tasks = tasks()
    assert task_called("zoo", all_tasks) is zoo
    assert task_called("ZOO", all_tasks) is zoo
    assert task_called("xts", all_tasks) is task_called("xts 1.2", all_tasks) is xts
    assert task_called(twice.key[:12], all_tasks) is twice
    for called, words in (("zo", "write `zoo` instead"), ("twice", "use the key"), ("nothing-like-it", "zoo, xts 1.2")):
        with pytest.raises(CregraphError) as error:
            task_called(called, all_tasks)
        assert error.value.hint is not None and words in error.value.hint
    with pytest.raises(CregraphError, match=r"unknown task `zoo\\x1b`"):
        task_called("zoo\x1b", all_tasks)
    with pytest.raises(CregraphError, match="has no task"):
        task_called("zoo", [])
