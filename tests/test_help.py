"""Help: one golden page for each command, in 80 columns, with examples that run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cregraph.cli.app import COMMANDS, GROUPS, app_for, command_of
from cregraph.cli.help_page import pages
from cregraph.demo.demo_project import write_project
from tests.conftest import Golden
from tests.faults import Demo
from tests.test_conda_kind import Made, write_channel
from tests.test_docs import ROOT, click_commands

NAMES = sorted(click_commands())
EXAMPLES = [(name, example) for name in NAMES for example, _ in pages()[name]["examples"]]
#: Examples that are parsed and not run, by their beginning, with the reason.
NOT_RUN = {
    "cregraph test": "needs Docker: tests/test_real_docker.py",
    "cregraph build --output docker": "needs Docker: tests/test_real_docker.py",
    "cregraph verify my-team:v1": "needs Docker: tests/test_verify.py",
    "cregraph verify registry:": "needs a registry: tests/test_verify.py",
    "cregraph push": "needs a registry: tests/test_push.py",
    "cregraph plan --remote": "needs a registry: tests/test_plan.py",
    "cregraph shell": "needs R and a package to compile: tests/test_real_shell.py",
}
#: Exit codes of the examples that do not exit with 0. A machine without an engine fails `doctor`.
CODES = {
    "cregraph diff HEAD~1": {1},
    "cregraph diff main...HEAD": {1},
    "cregraph diff old.lock.json my_team.yaml": {1},
    "cregraph doctor": {0, 1},
    "cregraph doctor my_team.yaml": {0, 1},
    "cregraph doctor --builder remote": {0, 1},
}


def page(words: list[str]) -> str:
    done = CliRunner().invoke(app_for(words), words, prog_name="cregraph")
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A git project with two commits on `main` and one on `topic`, that has every file which the examples name."""
    demo = Demo(folder=tmp_path_factory.mktemp("help") / "project")
    demo.folder.mkdir()
    write_project(demo.folder)
    write_channel(demo.folder / "sources/more", [Made(name="r-dplyr", version="1.1.4", depends=["r-base"])])
    sources = demo.folder / "sources.yaml"
    sources.write_text(sources.read_text().replace("conda: {", "conda: {more: ./sources/more, "))
    profile = (demo.folder / "demo.yaml").read_text().replace("channels: [demo]", "channels: [demo, more]")
    for name in ("cregraph.yaml", "my_team.yaml"):
        (demo.folder / name).write_text(profile)
    for name in ("demo.yaml", "with-cran.yaml"):
        (demo.folder / name).unlink()
    git(demo, "init", "-q", "-b", "main")
    commit(demo)
    shutil.copy(demo.folder / "locks/my_team.lock.json", demo.folder / "old.lock.json")
    for number, name in enumerate(("my_team.yaml", "cregraph.yaml")):
        changed = profile.replace("- r-demoframes ", "- r-dplyr\n    - r-demoframes ")
        (demo.folder / name).write_text(changed)
        if number:
            git(demo, "checkout", "-q", "-b", "topic")
        commit(demo)
    demo.ok("build", "--output", "oci:image")
    return demo


def git(demo: Demo, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *words], cwd=demo.folder, check=True, capture_output=True)


def commit(demo: Demo) -> None:
    demo.ok("lock", "cregraph.yaml", "my_team.yaml")
    git(demo, "add", "*.yaml", "locks", "bases")
    git(demo, "commit", "-qm", "a change")


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_is_the_golden_page(golden: Golden, name: str) -> None:
    text = page([*name.split(), "--help"])
    assert page([*name.split(), "-h"]) == text
    golden.check(f"help/{name.replace(' ', '-')}.txt", text)


def test_the_help_of_cregraph_is_the_golden_page_and_fits_one_screen(golden: Golden) -> None:
    text = page(["--help"])
    assert len(text.splitlines()) < 30
    assert list(GROUPS) == ["Make", "Review", "Publish", "Look after"]
    golden.check("help/cregraph.txt", text)
    golden.check("help/cache.txt", page(["cache", "--help"]))


def test_every_page_is_plain_and_fits_80_columns() -> None:
    for text in [page(["--help"]), page(["cache", "--help"]), *(page([*name.split(), "--help"]) for name in NAMES)]:
        assert [line for line in text.splitlines() if len(line) > 80 or line != line.rstrip()] == []
        assert "<" not in text


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_every_option_in_one_of_two_groups_and_every_argument(name: str) -> None:
    command: Any = click_commands()[name]
    text = page([*name.split(), "--help"])
    parts = dict(re.findall(r"^(Arguments|Common options|Other options|Options):\n((?:  .+\n)+)", text, re.MULTILINE))
    assert not {"Options", "Other options"} <= parts.keys()
    listed = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", "".join(text for title, text in parts.items() if title != "Arguments"), re.M)
    options = [max(p.opts, key=len) for p in command.params if p.param_type_name == "option"]
    assert sorted(listed) == sorted([*options, "--help"])
    arguments = [p.metavar for p in command.params if p.param_type_name == "argument"]
    assert re.findall(r"^  ([A-Z/]+)", parts.get("Arguments", ""), re.M) == arguments


def test_the_first_sentence_of_a_page_is_the_one_in_the_list_of_commands() -> None:
    for name, about in COMMANDS.items():
        command = command_of(name)
        assert isinstance(command, typer.Typer) or (command.__doc__ or "").splitlines()[0] == about
        assert f"\n  {about}\n" in page([name, "--help"])
        assert f" {name:<8}{about}\n" in page(["--help"])


@pytest.mark.parametrize("name", NAMES)
def test_see_also_names_commands_and_pages_that_exist(name: str) -> None:
    for one in pages()[name]["see"].split(", "):
        assert one.removeprefix("cregraph ") in click_commands() or (ROOT / one).is_file(), one


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_an_example_runs_and_exits_as_its_page_says(project: Demo, tmp_path: Path, name: str, example: str) -> None:
    words = shlex.split(example)[1:]
    command: Any = typer.main.get_command(app_for())
    for number in range(len(name.split()) if words[: len(name.split())] == name.split() else 1):
        command = command.commands[words[number]]
    command.make_context(name, words[len(name.split()) :])  # raises for an unknown option or a missing argument
    if any(example.startswith(beginning) for beginning in NOT_RUN):
        return
    if name in ("init", "demo"):
        demo = Demo(folder=tmp_path)
        (tmp_path / "environment.yml").write_text("name: x\nchannels: [conda-forge]\ndependencies: [r-base =4.5.2, r-dplyr]\n")
    else:
        demo = project.copy(tmp_path / "copy")
    if example.endswith("--sources vendored/sources.yaml"):
        demo.ok("vendor", "vendored")
    done = demo.run(*words)
    assert done.code in CODES.get(example, {0}), done.err
    assert done.code in pages()[name]["exits"]
