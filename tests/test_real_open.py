"""`examples/open.yaml` to the end, on an image that is not Snowflake's: its names lead to the test environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cregraph.image.model.reference import DOCKER_HUB
from tests.environment import Environment
from tests.environment.jupyter import jupyter_images
from tests.real_project import RealProject

pytestmark = [pytest.mark.environment, pytest.mark.docker]

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"
EXAMPLE = Path(__file__).parent.parent / "examples" / "open.yaml"
#: Changes of the example: the environment has one R, and the engine may hold images of other runs.
HERE = """\
extends: open.yaml
cre: {image: "@IMAGE@", tag: v1, r_version: "4.2.2"}
"""


@pytest.fixture(scope="module")
def project(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> RealProject:
    """A project with the example, whose names lead to the environment by sources.yaml alone."""
    found = RealProject.make(tmp_path_factory.mktemp("open") / "project", environment)
    image = yaml.safe_load((found.folder / "team.yaml").read_text())["cre"]["image"]
    (found.folder / "team.yaml").write_text(HERE.replace("@IMAGE@", f"{image}-open"))
    (found.folder / "open.yaml").write_text(EXAMPLE.read_text(encoding="utf-8"))
    host, _, repository = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["base"]["image"].partition("/")
    layout = jupyter_images(environment, f"{host} {repository}", f"{DOCKER_HUB} library/debian:11-slim")
    sources = yaml.safe_load((found.folder / "sources.yaml").read_text())
    (found.folder / "sources.yaml").write_text(yaml.safe_dump({**sources, "image": str(layout)}))
    found.ok("lock", "team.yaml")
    return found


def test_the_example_is_locked_by_its_public_names_only(project: RealProject) -> None:
    text = project.lock.read_text()
    assert '"image:base"' in text and "$(base.python)" in text
    assert "quay.io" in text and str(project.environment.root) not in text
    assert "/home/jupyter" not in text
    (facts,) = [
        read for path in (project.folder / "bases").glob("*.json") if (read := json.loads(path.read_text()))["python"] is not None
    ]
    assert facts["python"]["executable"] == "/opt/conda/bin/python3.11"
    assert facts["users"]["jovyan"] == [1000, 100, "/home/jovyan"]


def test_a_wrong_home_is_refused_with_the_one_that_the_image_has(project: RealProject, tmp_path: Path) -> None:
    (project.folder / "wrong.yaml").write_text("extends: team.yaml\ncre: {tag: v2}\nbase: {home: /home/jupyter}\n")
    done = project.run("lock", "wrong.yaml")
    assert done.code == 2
    assert "the base image has no user `jovyan` with the home folder `/home/jupyter`" in done.err
    assert "`jovyan` (/home/jovyan)" in done.err
    assert "open.yaml:" in done.err


def test_a_fresh_init_with_the_template_open_is_locked_without_an_edit_of_its_base(project: RealProject) -> None:
    project.ok("init", "fresh", "--template", "open")
    fresh = project.folder / "fresh" / "cregraph.yaml"
    text = fresh.read_text()
    assert text.count('r_version: "4.5.2"') == 1
    fresh.write_text(text.replace('r_version: "4.5.2"', 'r_version: "4.2.2"'))
    (project.folder / "fresh" / "sources.yaml").write_text((project.folder / "sources.yaml").read_text())
    project.ok("lock", "fresh/cregraph.yaml")
    project.ok("lock", "fresh/cregraph.yaml", "--check")


def test_a_percent_R_cell_answers_in_a_kernel_of_the_users_own(project: RealProject) -> None:
    done = project.run("test", "team.yaml", "--json")
    assert done.code == 0, done.err + done.out
    checks = {check["name"]: check for check in done.json["checks"]}
    assert all(check["ok"] for check in checks.values()), done.out
    for name in ("kernel: %%R is R 4.2.2", "kernel: %%R after a restart", "hook: says that it is there", "python: pip check"):
        assert name in checks, sorted(checks)
    assert {"r: dplyr", "r: lme4", "r: lmtest", "r: xts"} <= {name.rpartition(" ")[0] for name in checks}


def test_the_last_section_of_the_tutorial_can_be_typed(project: RealProject, tmp_path: Path) -> None:
    image = yaml.safe_load((project.folder / "team.yaml").read_text())["cre"]["image"]
    example = EXAMPLE.read_text(encoding="utf-8").replace("image: open-r", f"image: {image}-typed")
    (tmp_path / "open.yaml").write_text(re.sub(r'r_version: ".*"', 'r_version: "4.2.2"', example))
    env = {
        **os.environ,
        **project.env,
        "CREGRAPH_SOURCES": str(project.folder / "sources.yaml"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **{f"GIT_{who}_{what}": "me@team.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    section = TUTORIAL.read_text(encoding="utf-8").partition("\n## 9.")[2]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL) for line in block.splitlines()]
    assert "cregraph test open.yaml" in lines
    said = {}
    for line in lines:
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == (1 if line.endswith("# exit code 1") else 0), f"{line}\n{done.stderr}"
        said[line.partition("#")[0].strip()] = done.stdout
    assert re.search(r"^conda +\+ r-codetools ", said["cregraph diff"], flags=re.MULTILINE)
    assert said["cregraph build open.yaml --output docker"].startswith(f"{image}-typed:v1-")
