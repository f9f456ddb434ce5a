"""The lock file: the same content gives the same bytes, and a broken one is refused with its place."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cregraph.errors import CregraphError
from cregraph.kinds import KINDS
from cregraph.lock.lock_file import Identity, Lock, StageRecord, dumps, loads
from cregraph.lock.pins import Artifact, Ask, Pin, Target

HEX = "0123456789abcdef" * 4


def a_pin(name: str, version: str = "1.0", digest: str = HEX) -> Pin:
    artifact = Artifact(kind="conda", source="conda-forge", file=f"linux-64/{name}-{version}-0.conda", sha256=digest, size=10)
    return Pin(
        name=name,
        version=version,
        artifact=artifact,
        needs=("conda:libz",),
        provides=(f"conda:{name} {version}",),
        asked=("r: r-dplyr",),
        data={"build": "0"},
    )


def a_lock(*pins: Pin) -> Lock:
    base = Artifact(kind="image", source="registry:snowflake", file="snowbooks:2.5.0", sha256=HEX, size=5)
    prefix = "/home/jupyter/micromamba/envs/workspace_env"
    return Lock(
        identity=Identity(name="team", image="sfnb-team", label="v1", tag="v1"),
        stages=(StageRecord(name="snowbooks"), StageRecord(name="r", needs=("snowbooks",), env={"TZ": "UTC"})),
        targets=(
            Target(kind="image", place="base", pins=(Pin(name="base", version="2.5.0", artifact=base),)),
            Target(
                kind="conda",
                place=prefix,
                options={"channels": ["conda-forge"]},
                asks=(Ask(kind="conda", place=prefix, stage="r", what="r-dplyr", where="team.yaml:3: extras.conda_r[0]"),),
                pins=pins or (a_pin("r-dplyr"), a_pin("libz")),
            ),
        ),
    )


names = st.text(alphabet="abcdefgh-", min_size=1, max_size=8).filter(lambda s: s.strip("-"))


@given(st.sets(names, min_size=1, max_size=12), st.randoms())
def test_the_order_in_which_pins_arrive_never_reaches_the_file(found: set[str], rng: random.Random) -> None:
    pins = [a_pin(name) for name in found]
    shuffled = list(pins)
    rng.shuffle(shuffled)
    assert dumps(a_lock(*pins)) == dumps(a_lock(*shuffled))


@given(st.sets(names, min_size=1, max_size=12))
def test_what_is_written_reads_back_as_itself(found: set[str]) -> None:
    text = dumps(a_lock(*[a_pin(name) for name in found]))
    assert dumps(loads(text, name="locks/x.lock.json", kinds=KINDS)) == text


def test_one_bump_is_one_line_of_difference_with_empty_lines_around_it() -> None:
    old = dumps(a_lock(a_pin("a"), a_pin("b"), a_pin("c"))).splitlines()
    new = dumps(a_lock(a_pin("a"), a_pin("b", "2.0"), a_pin("c"))).splitlines()
    changed = [i for i, (one, two) in enumerate(zip(old, new, strict=True)) if one != two]
    assert len(changed) == 1
    assert new[changed[0] - 1] == "" == new[changed[0] + 1]


def test_it_is_json_and_ends_with_a_newline() -> None:
    text = dumps(a_lock())
    assert json.loads(text)["version"] == 1
    assert text.endswith("}\n")


def edited(path: str, value: object) -> str:
    data = json.loads(dumps(a_lock()))
    at = data
    *way, last = path.split("/")
    for step in way:
        at = at[int(step) if step.isdigit() else step]
    at[int(last) if last.isdigit() else last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "targets/0/pins/0/sha256",
            "XYZ",
            "targets[0].pins[0] (libz).sha256: `XYZ` is not a sha256 (expected 64 lower-case hex digits)",
        ),
        ("targets/0/pins/0/size", "10", "targets[0].pins[0] (libz).size: expected a whole number from 0"),
        ("targets/0/pins/0/size", True, "targets[0].pins[0] (libz).size: expected a whole number from 0"),
        ("targets/0/pins/0/size", -1, "targets[0].pins[0] (libz).size: expected a whole number from 0"),
        (
            "targets/0/pins/0/file",
            "../../etc/passwd",
            "targets[0].pins[0] (libz).file: `../../etc/passwd` leads out of its source",
        ),
        ("targets/0/pins/0/name", 3, "targets[0].pins[0].name: expected a text"),
        ("targets/0/pins/0/colour", "red", "targets[0].pins[0] (libz).colour: unknown field"),
        ("targets/0/asks/0/stage", "rr", "targets[0].asks[0].stage: no stage `rr` is in this lock"),
        ("targets/0/id", "python:x", "targets[0].id: `python:x` is not a target of kind `conda`"),
        ("targets/1/pins", [], "targets: expected exactly one pin of `image:base`"),
        ("platform", "linux/arm64", "platform: `linux/arm64` is not linux/amd64"),
        ("targets", {}, "targets: expected a list"),
        ("stages/0/checks", 5, "stages[0].checks: expected a list"),
        ("stages/0/checks", [{"kind": "sh", "code": []}], "stages[0].checks[0].kind: expected `r`, `python` or `kernel`"),
    ],
)
def test_a_hand_edit_that_breaks_the_lock_is_refused_with_its_place(path: str, value: object, message: str) -> None:
    with pytest.raises(CregraphError) as caught:
        loads(edited(path, value), name="locks/x.lock.json", kinds=KINDS)
    assert str(caught.value) == f"locks/x.lock.json: {message}"
    assert caught.value.hint is not None
    assert "Or remove the file and run `cregraph lock`" in caught.value.hint


def test_a_package_pinned_twice_is_refused() -> None:
    data = json.loads(dumps(a_lock()))
    data["targets"][0]["pins"].append(data["targets"][0]["pins"][0])
    with pytest.raises(CregraphError, match=r"`libz` is pinned twice in `conda:/home/jupyter/micromamba/envs/workspace_env`"):
        loads(json.dumps(data), name="x", kinds=KINDS)


def test_a_newer_lock_is_refused_with_both_numbers() -> None:
    with pytest.raises(CregraphError) as caught:
        loads('{"version": 9, "unknown": 1}', name="locks/geo.lock.json", kinds=KINDS)
    assert str(caught.value) == "locks/geo.lock.json: lock version 9 (expected at most 1)"
    assert caught.value.hint == "upgrade cregraph"


def test_another_assembly_is_refused_with_the_way_out() -> None:
    with pytest.raises(CregraphError) as caught:
        loads(dumps(replace(a_lock(), assembly=7)), name="locks/geo.lock.json", kinds=KINDS)
    assert str(caught.value) == "locks/geo.lock.json: assembly 7 (expected 1, which this version of cregraph writes)"


def test_a_merge_that_was_not_finished_is_recognised_with_its_line() -> None:
    lines = dumps(a_lock()).splitlines()
    lines[9:9] = ["<<<<<<< HEAD", "=======", ">>>>>>> other"]
    with pytest.raises(CregraphError) as caught:
        loads("\n".join(lines), name="locks/geo.lock.json", kinds=KINDS)
    assert str(caught.value).startswith("locks/geo.lock.json:10: git's conflict markers are in the lock")


@given(st.text(max_size=200))
def test_any_text_is_a_lock_or_is_refused_in_words(text: str) -> None:
    with pytest.raises(CregraphError):
        loads(text, name="x", kinds=KINDS)


def test_a_field_that_stands_twice_is_refused() -> None:
    with pytest.raises(CregraphError, match="the field `version` is given twice in one object"):
        loads('{"version": 1, "version": 1}', name="x", kinds=KINDS)


def test_depth_that_would_exhaust_the_reader_is_refused() -> None:
    with pytest.raises(CregraphError):
        loads("[" * 100_000, name="x", kinds=KINDS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "`1.5` is not a whole number"),
        ("\ud800", "a text in the lock contains an unpaired surrogate (\\ud800 or similar)"),
    ],
)
def test_values_that_no_key_could_cover_are_refused(value: object, message: str) -> None:
    with pytest.raises(CregraphError) as caught:
        loads(edited("targets/0/pins/0/data", {"x": value}), name="x", kinds=KINDS)
    assert str(caught.value) == f"x: {message}"
