"""locks/<profile>.outputs.json: its form, what a reader refuses, and what a build makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cregraph.errors import CregraphError, Refused
from cregraph.lock.outputs import Output, Outputs, dumps, loads, updated
from cregraph.session.project import Project
from tests.test_tasks import make

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def outputs(**names: str) -> Outputs:
    return Outputs(tasks={key: Output(name=name, sha256=C, size=9) for name, key in names.items()})


def test_what_is_written_reads_back_and_is_sorted_by_name_whatever_the_order() -> None:
    text = dumps(outputs(zoo=A, bitops=B))
    assert dumps(outputs(bitops=B, zoo=A)) == text
    assert loads(text, name="x") == outputs(bitops=B, zoo=A)
    assert text.index('"bitops"') < text.index('"zoo"')


def test_a_bump_is_one_line_of_a_diff_with_empty_lines_around_it() -> None:
    before = dumps(outputs(bitops=A, caTools=B, zoo=C)).splitlines()
    after = dumps(outputs(bitops=A, caTools="d" * 64, zoo=C)).splitlines()
    changed = [i for i, (one, two) in enumerate(zip(before, after, strict=True)) if one != two]
    assert len(changed) == 1
    assert before[changed[0] - 1] == before[changed[0] + 1] == ""


def test_no_task_is_a_readable_file_too() -> None:
    assert loads(dumps(Outputs()), name="x") == Outputs()


def a_row(**changes: object) -> dict[str, object]:
    return {"key": A, "name": "zoo", "sha256": B, "size": 3, **changes}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"version": 2, "tasks": []}, "outputs version 2 (expected at most 1)"),
        ({"version": 0, "tasks": []}, "version: expected a whole number from 1"),
        ({"version": True, "tasks": []}, "version: expected a whole number from 1"),
        ({"version": 1}, "tasks: is missing"),
        ({"version": 1, "tasks": [], "host": "x"}, "host: unknown field"),
        ([], "expected an object"),
        ({"version": 1, "tasks": ["x"]}, "tasks[0]: expected an object"),
        ({"version": 1, "tasks": [a_row(key="A" * 64)]}, "tasks[0].key: `AAAA"),
        (
            {"version": 1, "tasks": [a_row(sha256="../../x")]},
            "tasks[0].sha256: `../../x` is not a sha256",
        ),
        ({"version": 1, "tasks": [a_row(size=-1)]}, "tasks[0].size: expected a whole number from 0"),
        ({"version": 1, "tasks": [a_row(size=1.5)]}, "`1.5` is not a whole number"),
        ({"version": 1, "tasks": [a_row(name=None)]}, "tasks[0].name: expected a text"),
        ({"version": 1, "tasks": [a_row(name="\ud800")]}, "tasks[0].name: expected a text"),
        ({"version": 1, "tasks": [a_row(name="\x1b[2J")]}, "tasks[0].name: expected a text"),
        ({"version": 1, "tasks": [a_row(time=1)]}, "tasks[0].time: unknown field"),
        ({"version": 1, "tasks": [a_row(), a_row(sha256=C)]}, "zoo (aaaaaaaaaaaa…) is listed twice with different results"),
    ],
)
def test_a_hand_edit_that_breaks_it_is_said_with_its_place(data: object, said: str) -> None:
    with pytest.raises(CregraphError) as caught:
        loads(json.dumps(data), name="locks/team.outputs.json")
    assert caught.value.message.startswith("locks/team.outputs.json:")
    assert said in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["{", '{"version": 1, "version": 1, "tasks": []}', "[" * 100_000])
def test_what_is_no_json_is_an_error_in_words(text: str) -> None:
    with pytest.raises(CregraphError, match=r"^x:"):
        loads(text, name="x")


def test_a_merge_that_was_not_finished_is_recognised_with_its_line() -> None:
    text = dumps(outputs(zoo=A)).replace('{"key"', '<<<<<<< HEAD\n{"key"')
    with pytest.raises(CregraphError, match=r"^x:5: git's conflict markers"):
        loads(text, name="x")


def test_new_keys_are_added_recorded_ones_kept_and_those_that_the_lock_lost_dropped() -> None:
    old, new = make("old"), make("new")
    before = Outputs(tasks={old.key: Output(name="old", sha256=A, size=1), "f" * 64: Output(name="gone", sha256=B, size=1)})
    after = updated(before, {old.key: "old", new.key: "new"}, {new.key: (C, 5)})
    assert after.tasks == {old.key: before.tasks[old.key], new.key: Output(name="new", sha256=C, size=5)}


def test_another_result_for_a_recorded_key_is_refused_naming_task_and_both_digests() -> None:
    zoo = make("zoo")
    before = Outputs(tasks={zoo.key: Output(name="zoo", sha256=A, size=1)})
    with pytest.raises(Refused, match=f"task zoo gave sha256:{B}, but the recorded outputs have sha256:{A}") as caught:
        updated(before, {zoo.key: "zoo"}, {zoo.key: (B, 1)})
    assert "--rebuild" in str(caught.value.hint)
    assert caught.value.exit_code == 1


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "team.yaml").write_text("cre: {}\n")
    return Project.of(str(tmp_path / "team.yaml"))


def test_a_project_without_tasks_gets_no_file_and_equal_outputs_are_not_written_again(project: Project) -> None:
    assert project.read_outputs() == Outputs()
    assert not project.write_outputs(Outputs())
    assert not project.outputs_file.exists()
    assert project.write_outputs(outputs(zoo=A))
    assert not project.write_outputs(outputs(zoo=A))
    assert project.read_outputs() == outputs(zoo=A)
    assert project.write_outputs(Outputs())
    assert project.read_outputs() == Outputs()


def test_outputs_that_cannot_be_read_are_said_with_the_way_out(project: Project) -> None:
    project.outputs_file.parent.mkdir()
    project.outputs_file.write_bytes(b"\xff\xfe")
    with pytest.raises(CregraphError, match="not UTF-8") as caught:
        project.read_outputs()
    assert "git checkout" in str(caught.value.hint)
