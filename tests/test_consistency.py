"""A lock that lost or contradicts something is stale, and locking mends it; two additions merge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cregraph.demo.demo_project import write_project
from cregraph.kinds import KINDS
from cregraph.lock.consistency import find_problems
from cregraph.lock.lock_file import loads


def cregraph(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "cregraph", *words], cwd=folder, capture_output=True, text=True)


def git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    names = ("-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "merge.conflictStyle=merge")
    return subprocess.run(["git", *names, *words], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The demo's project, locked."""
    folder = tmp_path / "p"
    folder.mkdir()
    write_project(folder)
    done = cregraph(folder, "lock", "demo.yaml")
    assert done.returncode == 0, done.stderr
    return folder


def lock_of(folder: Path) -> Path:
    return folder / "locks" / "demo.lock.json"


def without(text: str, name: str) -> str:
    """The lock's text with the line of a pin taken out, as a bad merge would."""
    data = json.loads(text)
    for target in data["targets"]:
        target["pins"] = [pin for pin in target["pins"] if pin["name"] != name]
    return json.dumps(data)


def test_a_lost_pin_makes_the_lock_stale_by_name_and_locking_brings_it_back(project: Path) -> None:
    whole = lock_of(project).read_text()
    lock_of(project).write_text(without(whole, "r-demoframes"))
    checked = cregraph(project, "lock", "demo.yaml", "--check")
    assert checked.returncode == 1
    assert "`r-demoframes` is asked for, but the lock has no pin for it" in checked.stderr
    assert cregraph(project, "build", "demo.yaml").returncode == 1
    assert cregraph(project, "lock", "demo.yaml").returncode == 0
    assert lock_of(project).read_text() == whole


def test_a_lost_dependency_is_named_by_who_needs_it(project: Path) -> None:
    lock = loads(lock_of(project).read_text(), name="x", kinds=KINDS)
    needed = next(need for t in lock.targets for p in t.pins for need in p.needs)
    name = needed.partition(":")[2]
    broken = loads(without(lock_of(project).read_text(), name), name="x", kinds=KINDS)
    assert any(f"needs `{name}`" in why for listed in find_problems(broken, KINDS).values() for why in listed)


def test_a_version_that_was_edited_does_not_agree_with_what_the_pin_provides(project: Path) -> None:
    data = json.loads(lock_of(project).read_text())
    pin = next(p for t in data["targets"] for p in t["pins"] if p["name"] == "r-demoframes")
    pin["version"] = "9.9"
    assert any(
        "`r-demoframes` 9.9: `provides` in the lock has another name" in why
        for listed in find_problems(loads(json.dumps(data), name="x", kinds=KINDS), KINDS).values()
        for why in listed
    )


def test_a_sound_lock_has_no_holes(project: Path) -> None:
    assert find_problems(loads(lock_of(project).read_text(), name="x", kinds=KINDS), KINDS) == {}


def test_facts_that_were_edited_are_refused_and_made_anew_by_locking(project: Path) -> None:
    """The base's config and directories decide bytes, so the lock names the file that holds them."""
    (facts,) = (project / "bases").glob("*.json")
    true = facts.read_bytes()
    facts.write_bytes(true.replace(b"DASHBOARD_PORT=12003", b"DASHBOARD_PORT=66666"))
    done = cregraph(project, "build", "demo.yaml")
    assert done.returncode == 1
    assert "but the lock pins sha256:" in done.stderr
    facts.unlink()
    assert cregraph(project, "lock", "demo.yaml", "--check").returncode == 1
    assert cregraph(project, "lock", "demo.yaml").returncode == 0
    assert facts.read_bytes() == true


def test_two_branches_that_each_add_something_merge_without_a_conflict_in_the_lock(project: Path) -> None:
    """A line number in the lock would move with every line above it; a pin has empty lines around it."""
    git(project, "init", "-q", "-b", "main")
    (project / ".gitignore").write_text("cache/\nworld/\n")
    git(project, "add", "-A")
    assert git(project, "commit", "-qm", "base").returncode == 0

    def add(branch: str, field: str, value: str, comment: str) -> None:
        git(project, "checkout", "-q", "-b", branch, "main")
        path = project / "demo.yaml"
        profile = yaml.safe_load(path.read_text())
        profile["extras"].setdefault(field, []).append(value)
        path.write_text(comment + yaml.safe_dump(profile, sort_keys=False))
        done = cregraph(project, "lock", "demo.yaml")
        assert done.returncode == 0, done.stderr
        assert git(project, "commit", "-qam", branch).returncode == 0

    add("a", "conda_r", "demo-zlib", "# one comment\n# more\n")
    add("b", "pip", "demo-words", "")
    merged = git(project, "merge", "-q", "a", "-m", "both")
    conflicts = git(project, "diff", "--name-only", "--diff-filter=U").stdout.split()
    assert "locks/demo.lock.json" not in conflicts, merged.stdout + merged.stderr
