"""Standard recipes are pinned: a newer cregraph with other recipes changes no lock, no tag and no digest (design 3).

Two versions of cregraph are built as wheels: this commit, and one with another hook and another list of default packages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cregraph.demo.demo_project import write_project
from tests.test_conda_kind import Made, write_channel

ROOT = Path(__file__).parents[1]
DEFAULTS = ("r-cli", "r-rlang", "r-reticulate", "r-tidyverse", "r-dbplyr", "r-httr2", "r-lazyeval", "r-dbi", "r-jsonlite")
MORE = ("r-dplyr", "zlib", "liblzma-devel", "r-new", "r-more", "micromamba")
PROFILE = """\
cre: {name: team, image: team, tag: v1, r_version: "4.5.2", snowbooks_tag: demo, adbc: false}
snowbooks: {image: "oci:sources/base", build_root: null}
micromamba: {channels: [team]}
python: {packages: ["demo-tables >=2"]}
without: [cran, tarballs]
"""
SOURCES = "conda: {team: ./channel}\ncran: ./sources/cran\npypi: ./sources/simple\n"


@dataclass(frozen=True)
class Version:
    """An installed version of cregraph, at work in a project."""

    site: Path
    project: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "TMPDIR")}
        return subprocess.run(
            [sys.executable, "-m", "cregraph", *words],
            cwd=self.project,
            env={**kept, "PYTHONPATH": str(self.site), "GIT_CONFIG_GLOBAL": os.devnull},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def ok(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def at(self, project: Path) -> Version:
        return replace(self, project=project)

    def build(self) -> str:
        """The reference of the image, from an empty store."""
        shutil.rmtree(self.project / "cache", ignore_errors=True)
        (self.project / "cache").mkdir()
        return self.ok("build", "team.yaml")

    @property
    def named(self) -> str:
        lock = json.loads((self.project / "locks/team.lock.json").read_text())
        return str(lock["recipes"])

    @property
    def tree(self) -> Path:
        return self.project / "locks/recipes" / self.named[:16]


def wheel(source: Path, into: Path) -> Path:
    """What an installation of `source` has, without its dependencies."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    site = into / "site"
    with zipfile.ZipFile(next(into.glob("*.whl"))) as archive:
        archive.extractall(site)
    return site


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """This version, and the next one."""
    folder = tmp_path_factory.mktemp("versions")
    source = folder / "source"
    source.mkdir()
    for name in ("cregraph", "recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    first = wheel(source, folder / "first")
    hook, defaults = source / "recipes/hook/00-sfnb-enable-r.py", source / "recipes/r.yaml"
    hook.write_text(hook.read_text() + "# the next version\n")
    defaults.write_text(defaults.read_text().replace("      - r-cli\n", "      - r-cli\n      - r-new\n"))
    return first, wheel(source, folder / "second")


@pytest.fixture
def old(sites: tuple[Path, Path], tmp_path: Path) -> Version:
    """The first version, in a project of git that it locked."""
    project = tmp_path / "project"
    project.mkdir()
    write_project(project)
    for left in ("demo.yaml", "with-cran.yaml"):
        (project / left).unlink()
    packages = [Made(name=name, version="2.0") for name in (*DEFAULTS, *MORE)]
    write_channel(project / "channel", [*packages, Made(name="r-base", version="4.5.2"), Made(name="python", version="3.11.9")])
    (project / "team.yaml").write_text(PROFILE)
    (project / "sources.yaml").write_text(SOURCES)
    made = Version(sites[0], project)
    made.ok("lock", "team.yaml")
    git(project, "init", "--quiet", "--initial-branch=main")
    commit(project, "locked")
    return made


@pytest.fixture
def new(sites: tuple[Path, Path], old: Version) -> Version:
    """The next version, in the same project."""
    return Version(sites[1], old.project)


def git(project: Path, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=env)
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done


def commit(project: Path, text: str) -> None:
    git(project, "add", "-A")
    git(project, "commit", "--quiet", "-m", text)


def test_a_newer_version_builds_an_old_lock_to_the_same_digest(old: Version, new: Version, tmp_path: Path) -> None:
    """From an empty store, from a vendored folder, and after `git checkout` of an old commit."""
    reference = old.build()
    checked = new.run("lock", "team.yaml", "--check")
    assert (checked.returncode, checked.stdout) == (0, "locks/team.lock.json is fresh\n")
    (command,) = re.findall(r"differ from those that the lock pins\. To take them, run `cregraph ([^`]+)`", checked.stderr)
    assert new.build() == reference

    old.ok("vendor", "vendor", "team.yaml")
    away = tmp_path / "away"
    shutil.copytree(old.project, away, ignore=shutil.ignore_patterns("cache", "sources", "channel"))
    (away / "sources.yaml").unlink()
    shutil.rmtree(away / "locks/recipes")  # the vendored folder carries the set too
    (away / "cache").mkdir()
    assert new.at(away).ok("build", "team.yaml", "--sources", "vendor/sources.yaml") == reference

    new.ok(*command.split())
    assert "differ from those" not in new.run("lock", "team.yaml", "--check").stderr
    commit(new.project, "upgraded")
    assert new.build() != reference
    git(new.project, "checkout", "--quiet", "HEAD~1")
    assert new.build() == reference


def test_an_edit_keeps_the_old_set_also_for_a_stage_that_is_newly_used(old: Version, new: Version) -> None:
    pinned = new.named
    text = PROFILE.replace("[cran, tarballs]", "[tarballs]") + "extras: {conda_r: [r-more], cran_snapshot: 2025-06-01}\n"
    (new.project / "team.yaml").write_text(text)
    new.ok("lock", "team.yaml")
    lock = (new.project / "locks/team.lock.json").read_text()
    assert new.named == pinned
    assert '"name": "r-more"' in lock and '"name": "r-new"' not in lock
    assert '"name": "cran"' in lock


def test_upgrade_recipes_moves_the_set_and_diff_shows_how(old: Version, new: Version) -> None:
    pinned, tree = new.named, new.tree
    new.ok("lock", "team.yaml", "--upgrade")
    assert new.named == pinned, "only --upgrade-recipes moves the set"
    new.ok("lock", "team.yaml", "--upgrade-recipes")
    assert new.named != pinned
    assert new.tree.is_dir() and tree.is_dir(), "git sees an added tree, not renamed files"
    commit(new.project, "upgraded")
    shown = new.run("diff", "HEAD~1", "HEAD")
    assert shown.returncode == 1
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert any(row[:4] == ["conda", "+", "r-new", "2.0"] for row in rows)
    assert any(row[-5:] == ["hook/00-sfnb-enable-r.py", "changed,", "+1", "-0", "lines"] for row in rows)
    assert any(row[-5:] == ["r.yaml", "changed,", "+1", "-0", "lines"] for row in rows)
    answer = json.loads(new.run("diff", "HEAD~1", "HEAD", "--format", "json").stdout)
    assert answer["locks"][0]["recipes"]["new"] == new.named
    assert new.ok("lock", "team.yaml", "--check") == "locks/team.lock.json is fresh\n"
    (new.project / "team.yaml").write_text(PROFILE + "extras: {conda_r: [r-more]}\n")
    new.ok("lock", "team.yaml")
    assert new.tree.is_dir() and not tree.exists(), "the next change deletes a set that no lock names"


def test_a_first_lock_starts_with_the_set_of_its_parent_else_of_the_other_locks(old: Version, new: Version) -> None:
    (new.project / "child.yaml").write_text("extends: team.yaml\ncre: {name: child, image: child, tag: v1}\n")
    (new.project / "other.yaml").write_text(PROFILE.replace("name: team, image: team", "name: other, image: other"))
    for name in ("child", "other"):
        new.ok("lock", f"{name}.yaml")
        assert json.loads((new.project / f"locks/{name}.lock.json").read_text())["recipes"] == new.named
    assert [path.name for path in (new.project / "locks/recipes").iterdir()] == [new.named[:16]], "profiles share a set"
    new.ok("lock", "team.yaml", "--upgrade-recipes")
    assert len(list((new.project / "locks/recipes").iterdir())) == 2, "the others still name the old set"
    new.ok("lock", "--all", "--upgrade-recipes")
    (new.project / "team.yaml").write_text(PROFILE + "extras: {conda_r: [r-more]}\n")
    new.ok("lock", "team.yaml")
    assert [path.name for path in (new.project / "locks/recipes").iterdir()] == [new.named[:16]]


def test_missing_or_changed_bytes_are_refused_with_the_path_and_the_way_out(old: Version, new: Version) -> None:
    hook = new.tree / "hook/00-sfnb-enable-r.py"
    hook.write_text(hook.read_text() + "import os\n")
    for words in (("lock", "team.yaml"), ("lock", "team.yaml", "--check"), ("build", "team.yaml"), ("plan", "team.yaml")):
        done = new.run(*words)
        assert done.returncode == 2
        assert f"locks/recipes/{new.named[:16]}" in done.stderr and "git checkout --" in done.stderr
    git(new.project, "checkout", "--", f"locks/recipes/{new.named[:16]}")
    new.ok("lock", "team.yaml", "--check")
    shutil.rmtree(new.tree)
    done = new.run("build", "team.yaml")
    assert done.returncode == 2
    assert f"`locks/recipes/{new.named[:16]}` is missing" in done.stderr
    old.ok("lock", "team.yaml", "--check")  # the version that has the set needs no tree
    old.ok("lock", "team.yaml")  # and writes it
    new.ok("lock", "team.yaml", "--check")


def test_an_interrupted_command_leaves_a_tree_that_lock_completes(old: Version) -> None:
    (old.tree / "r.yaml").unlink()
    assert old.run("lock", "team.yaml", "--check").returncode == 2
    old.ok("lock", "team.yaml")
    assert old.ok("lock", "team.yaml", "--check") == "locks/team.lock.json is fresh\n"


def test_a_recipe_of_the_team_wins_and_is_not_stored(old: Version, new: Version) -> None:
    (new.project / "recipes").mkdir()
    text = (new.tree / "r.yaml").read_text().replace("      - r-cli\n", "")
    (new.project / "recipes/r.yaml").write_text(text)
    stale = new.run("lock", "team.yaml", "--check")
    assert stale.returncode == 1 and "`r-cli` was removed" in stale.stderr
    pinned = new.named
    new.ok("lock", "team.yaml")
    assert new.named == pinned


def test_branches_that_upgraded_differently_conflict_in_one_line_and_either_side_can_be_taken(old: Version, new: Version) -> None:
    """One branch upgrades by the next version, the other by a version whose hook alone differs."""
    third = old.project.parent / "third"
    shutil.copytree(new.site, third)
    hook = third / "cregraph/standard/hook/helpers/r_helpers.py"
    hook.write_text(hook.read_text() + "# the third version\n")
    git(old.project, "checkout", "--quiet", "-b", "third")
    Version(third, old.project).ok("lock", "team.yaml", "--upgrade-recipes")
    commit(old.project, "third")
    git(old.project, "checkout", "--quiet", "main")
    new.ok("lock", "team.yaml", "--upgrade-recipes")
    commit(old.project, "second")
    merged = git(old.project, "merge", "third", ok=False)
    assert merged.returncode == 1
    text = (old.project / "locks/team.lock.json").read_text()
    assert text.count("<<<<<<<") == 1
    conflict = text.partition("<<<<<<<")[2].partition(">>>>>>>")[0].splitlines()[1:]
    assert [line.split(":")[0] for line in conflict if not line.startswith("=======")] == ['"recipes"', '"recipes"']
    refused = new.run("lock", "team.yaml")
    assert refused.returncode == 2 and "merge" in refused.stderr
    for side in ("--ours", "--theirs"):
        git(old.project, "checkout", side, "--", "locks/team.lock.json")
        new.ok("lock", "team.yaml")
        assert new.ok("lock", "team.yaml", "--check") == "locks/team.lock.json is fresh\n"
        git(old.project, "checkout", "--merge", "--", "locks/team.lock.json")


def test_a_checkout_that_changes_line_endings_is_as_fresh_as_any(old: Version, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(old.project, "clone", "--quiet", "-c", "core.autocrlf=true", str(old.project), str(clone))
    assert b"\r\n" in (clone / "team.yaml").read_bytes(), "git changed what it may change"
    assert old.at(clone).ok("lock", "team.yaml", "--check") == "locks/team.lock.json is fresh\n"
