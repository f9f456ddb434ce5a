"""`--json` prints one JSON object with a version, also for "no" and for errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults import Demo
from tests.test_docs import click_commands

#: Commands that print JSON, with what they need before their options.
NEEDED = {"why": ["x"], "verify": ["oci:image"], "export": ["dockerfile"], "vendor": ["v"]}
WITH_JSON = sorted(name for name, command in click_commands().items() if any("--json" in p.opts for p in command.params))
#: Commands that read no profile.
WITHOUT_PROFILE = {"cache ls", "cache gc", "cache verify", "diff"}


def failed(project: Demo, *words: str, code: int) -> dict[str, Any]:
    """What stdout holds after a command that fails. stderr has the same in words."""
    done = project.run(*words)
    assert done.code == code, done.err
    answer = json.loads(done.out)
    assert set(answer) == {"version", "error", "exit"} and (answer["version"], answer["exit"]) == (1, code)
    error: dict[str, Any] = answer["error"]
    assert set(error) == {"message", "places", "hint"}
    assert f"error: {error['message']}\n" in done.err
    assert error["hint"] is None or f"hint: {error['hint']}\n" in done.err
    return error


@pytest.mark.parametrize("name", WITH_JSON)
def test_an_unknown_option_is_json_for_every_command(made: Demo, name: str) -> None:
    error = failed(made, *name.split(), *NEEDED.get(name, []), "--json", "--nonsense", code=2)
    assert "--nonsense" in str(error["message"]) and error["hint"] == f"run `cregraph {name} --help`"


@pytest.mark.parametrize("name", [name for name in WITH_JSON if name not in WITHOUT_PROFILE])
def test_a_missing_profile_is_json_for_every_command(made: Demo, name: str) -> None:
    more = ["--output", "x"] if name == "export" else []
    error = failed(made, *name.split(), *NEEDED.get(name, []), "missing.yaml", "--json", *more, code=2)
    assert "missing.yaml" in str(error["message"])


@pytest.mark.parametrize("words", [["plan"], ["build"], ["push"], ["vendor", "v"], ["export", "dockerfile", "-o", "x"]])
def test_a_stale_lock_is_json_with_the_places(made: Demo, tmp_path: Path, words: list[str]) -> None:
    demo = made.copy(tmp_path / "p")
    profile = demo.folder / "demo.yaml"
    profile.write_text(profile.read_text().replace("- r-demoframes ", "- r-demoframes =1.1.0 "))
    place = ["127.0.0.1:1/db"] if words == ["push"] else []
    error = failed(demo, *words[:2], "demo.yaml", *place, *words[2:], "--json", code=1)
    places = error["places"][:2]
    assert [place["file"] for place in places] == ["locks/demo.lock.json", "demo.yaml"]
    stale = demo.run("lock", "demo.yaml", "--check", "--json")
    assert (stale.code, stale.json["version"], stale.json["locks"][0]["fresh"]) == (1, 1, False)


def test_an_error_of_a_profile_has_its_line(made: Demo, tmp_path: Path) -> None:
    demo = made.copy(tmp_path / "p")
    profile = demo.folder / "demo.yaml"
    profile.write_text(profile.read_text().replace("r_version:", "r_verson:"))
    places = failed(demo, "lock", "demo.yaml", "--json", code=2)["places"]
    assert [(p["file"], p["line"]) for p in places if p["text"].startswith("cre.r_verson: ")] == [("demo.yaml", 6)]


def test_an_unknown_command_and_an_answer_are_json(made: Demo, tmp_path: Path) -> None:
    assert "buidl" in str(failed(made, "buidl", "--json", code=2)["message"])
    assert made.ok("plan", "demo.yaml", "--json").json["version"] == 1
    assert made.ok("build", "demo.yaml", "--json").json["images"][0]["tag"]
    assert failed(made, "diff", "no-such-revision", "--format", "json", code=2)["message"]
