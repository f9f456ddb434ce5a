"""Hints work: each is applied as it is written, and the command then succeeds."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import Demo


def edited(project: Path, old: str, new: str, name: str = "demo.yaml") -> None:
    text = (project / name).read_text(encoding="utf-8")
    assert old in text
    (project / name).write_text(text.replace(old, new), encoding="utf-8")


def run(demo: Demo, hint: str) -> None:
    """Run the first command of a hint."""
    command = re.search(r"`(cregraph|git) ([^`]+)`", hint)
    assert command, hint
    if command[1] == "git":
        subprocess.run(["git", *shlex.split(command[2])], cwd=demo.folder, check=True, capture_output=True)
    else:
        demo.ok(*shlex.split(command[2]))


def name(demo: Demo, hint: str) -> None:
    """Write the name that a hint gives in place of the wrong one."""
    found = re.search(r"write `([^`]+)` instead(?: of `([^`]+)`)?", hint)
    assert found, hint
    edited(demo.folder, *NAMES[found[1]])


#: What is written wrong, and what a hint's words make of it.
NAMES = {
    "cre.r_version": ("r_verson", "r_version"),
    "extras.conda_r": ("conda-r", "conda_r"),
    "python.packages": ("pyhton", "python"),
    "r-demoframes": ("r-demofrmes", "r-demoframes"),
}


def version(demo: Demo, hint: str) -> None:
    """Ask for the version that a hint gives."""
    edited(demo.folder, "9.9", hint.rpartition(" ")[2])


def committed(project: Path) -> None:
    for words in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=me", "-c", "user.email=me@x", "commit", "--quiet", "-m", "x"),
    ):
        subprocess.run(["git", *words], cwd=project, check=True, capture_output=True)


def no_lock(project: Path) -> None:
    (project / "locks/demo.lock.json").unlink()


def broken_lock(project: Path) -> None:
    committed(project)
    edited(project, '"pins"', '"pinz"', "locks/demo.lock.json")


def damaged_recipes(project: Path) -> None:
    committed(project)
    recipe = next((project / "locks/recipes").glob("*/r.yaml"))
    recipe.write_text(recipe.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")


CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...], int, Callable[[Demo, str], None]]] = {
    "a misspelled field": (lambda p: edited(p, "r_version", "r_verson"), ("lock", "demo.yaml"), 2, name),
    "a misspelled section of a list": (lambda p: edited(p, "conda_r", "conda-r"), ("lock", "demo.yaml"), 2, name),
    "a misspelled stage": (lambda p: edited(p, "python:", "pyhton:"), ("lock", "demo.yaml"), 2, name),
    "a misspelled conda package": (lambda p: edited(p, "r-demoframes ", "r-demofrmes "), ("lock", "demo.yaml"), 2, name),
    "a version of R that no channel has": (lambda p: edited(p, '"4.5.2"', '"9.9"'), ("lock", "demo.yaml"), 2, version),
    "a stale lock": (lambda p: edited(p, "r-demoframes ", "r-demoframes =1.1.0 "), ("build", "demo.yaml"), 1, run),
    "no lock": (no_lock, ("build", "demo.yaml"), 1, run),
    "a lock that an edit broke": (broken_lock, ("build", "demo.yaml"), 2, run),
    "a recipe in the pinned set that an edit changed": (damaged_recipes, ("build", "demo.yaml"), 2, run),
}


@pytest.mark.parametrize("case", CASES)
def test_the_hint_is_applied_and_the_command_succeeds(case: str, made: Demo, tmp_path: Path) -> None:
    wrong, words, code, apply = CASES[case]
    demo = made.copy(tmp_path / "p")
    wrong(demo.folder)
    refused = demo.run(*words)
    assert refused.code == code, refused.err
    hint = refused.err.rpartition("hint: ")[2].strip()
    apply(demo, hint.replace("FILE", "locks/demo.lock.json"))
    demo.ok(*words)


#: Five wrong lines of three ecosystems, and what the hints make of them.
WRONG = {
    "- r-demoframes ": "- r-demofrmes ",
    "  pip:\n": "  cran: [demoplot, demostat]\n  pip:\n    - demo-absent\n    - demo-tables >=9\n",
}


def test_problems_of_three_ecosystems_are_reported_in_one_run_with_a_hint_that_works_for_each(own: Demo) -> None:
    for right, wrong in WRONG.items():
        edited(own.folder, right, wrong)
    before = (own.folder / "locks/demo.lock.json").read_bytes()
    refused = own.run("lock", "demo.yaml", "--json")
    assert refused.code == 2
    error = json.loads(refused.out)["error"]
    assert error["message"].splitlines()[0] == "demo.yaml: cannot lock: 5 problems"
    assert [(place["file"], place["line"]) for place in error["places"]] == [
        ("demo.yaml", None), ("demo.yaml", 17), ("demo.yaml", 18), ("demo.yaml", 18), ("demo.yaml", 21), ("demo.yaml", 20),
    ]  # fmt: skip
    hints = error["hint"].splitlines()
    assert [line[:2] for line in hints] == ["1.", "2.", "3.", "4.", "5."]
    assert (own.folder / "locks/demo.lock.json").read_bytes() == before

    for hint, wrong in (hints[0], "r-demofrmes"), (hints[1], "demoplot,"), (hints[2], "demostat]"):
        (near,) = re.findall(r"write `([^`]+)` instead", hint)
        edited(own.folder, wrong, near + wrong[-1:] if wrong[-1] in ",]" else near)
    (have,) = re.findall(r"loosen the line so that (\S+) satisfies it", hints[3])
    edited(own.folder, "demo-tables >=9\n", f"demo-tables =={have}\n")
    edited(own.folder, "    - demo-absent\n", "")  # "correct the name"
    own.ok("lock", "demo.yaml")


def test_without_a_lock_what_stands_on_a_refused_ecosystem_is_said_to_be_unchecked(own: Demo) -> None:
    for right, wrong in WRONG.items():
        edited(own.folder, right, wrong)
    (own.folder / "locks/demo.lock.json").unlink()
    refused = own.run("lock", "demo.yaml")
    assert (refused.code, "demo.yaml: cannot lock: 3 problems" in refused.err) == (2, True), refused.err
    assert [line[:8] for line in refused.err.splitlines() if line.startswith("hint")] == ["hint: 1.", "hint: 2.", "hint: 3."]
    assert "The r packages are not checked yet, because they need the conda packages." in refused.err


def test_the_hint_of_a_check_of_all_locks_names_the_stale_ones_only(own: Demo) -> None:
    (own.folder / "other.yaml").write_text((own.folder / "demo.yaml").read_text().replace("demo_r", "other_r"))
    own.ok("lock", "--all")
    own.ok("lock", "other.yaml")
    edited(own.folder, "- demo-greeting >=1", "- demo-greeting >=1.1", "other.yaml")
    refused = own.run("lock", "--all", "--check")
    assert refused.code == 1
    assert "hint: run `cregraph lock other.yaml`, then" in refused.err
    run(own, refused.err)
    own.ok("lock", "--all", "--check")
