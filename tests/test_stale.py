"""Whether a lock holds what is asked now: each reason, and what is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cregraph.digest import sha256
from cregraph.errors import CregraphError
from cregraph.kinds import KINDS
from cregraph.lock.lock_file import Identity, Lock, StageRecord
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.lock.staleness import group, reasons, same_asks

IDENTITY = Identity(name="team", image="team-r", label="v1", tag="v1")
STAGES = (
    StageRecord(name="base"),
    StageRecord(name="r", needs=("base",), env={"TZ": "UTC"}, checks=({"kind": "r", "code": ["1"]},)),
)


def ask(what: Any, *, target: str = "conda:/env", stage: str = "r", line: int = 1, **options: Any) -> Ask:
    name, _, place = target.partition(":")
    return Ask(kind=name, place=place, stage=stage, what=what, where=f"team.yaml:{line}: extras[{line}]", options=options)


def file(path: str, data: bytes) -> Pin:
    artifact = Artifact(kind="path", source=path, file="", sha256=sha256(data), size=len(data))
    return Pin(name=path, version="", artifact=artifact)


CONDA = Target(kind="conda", place="/env", options={"channels": ["forge"]}, asks=(ask("r-base =4.5"), ask("r-dplyr", line=2)))
FILES = Target(
    kind="file",
    place="",
    asks=(ask({"at": ["/opt/own"], "from": "./own"}, target="file:", line=7),),
    pins=(file("./own/a.py", b"a"), file("./own/b.py", b"b")),
)
LOCK = Lock(identity=IDENTITY, stages=STAGES, targets=(CONDA, FILES))
DISK = {"./own/a.py": b"a", "./own/b.py": b"b"}


def why(
    *,
    identity: Identity = IDENTITY,
    stages: tuple[StageRecord, ...] = STAGES,
    targets: tuple[Target, ...] = (CONDA, FILES),
    disk: Mapping[str, bytes] = DISK,
) -> list[str]:
    """The reasons for which LOCK is stale."""

    def read(source: str) -> bytes:
        if source not in disk:
            raise CregraphError(f"`{source}` cannot be read: No such file or directory")
        return disk[source]

    def files(source: str) -> list[str]:
        found = [name for name in disk if name == source or name.startswith(source + "/")]
        if not found:
            raise CregraphError(f"`{source}` does not exist")
        return found

    return reasons(LOCK, KINDS, identity=identity, stages=stages, targets=targets, read=read, files=files)


def test_a_lock_that_holds_what_is_asked_is_fresh() -> None:
    assert why() == []


@pytest.mark.parametrize("field", ["name", "image", "label", "tag", "base_type"])
def test_what_the_image_is_called_is_a_reason(field: str) -> None:
    before = getattr(IDENTITY, field)
    assert why(identity=replace(IDENTITY, **{field: "other"})) == [f"the image's {field}: `{before}` became `other`"]


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ((*STAGES, StageRecord(name="python")), ["stage `python` was added"]),
        (STAGES[:1], ["stage `r` is no longer used"]),
        ((STAGES[0], replace(STAGES[1], env={"TZ": "CET"})), ["stage `r`: env.TZ: `UTC` became `CET`"]),
        ((STAGES[0], replace(STAGES[1], env={})), ["stage `r`: env.TZ: `UTC` became `None`"]),
        ((STAGES[0], replace(STAGES[1], env={"TZ": "UTC", "A": "1"})), ["stage `r`: env.A: `None` became `1`"]),
        ((STAGES[0], replace(STAGES[1], needs=())), ["stage `r`: needs: `base` became ``"]),
        ((STAGES[0], replace(STAGES[1], checks=())), ["stage `r`: its checks changed"]),
        (STAGES[::-1], ["the order of the stages changed"]),
    ],
)
def test_what_a_stage_is_is_a_reason(stages: tuple[StageRecord, ...], expected: list[str]) -> None:
    assert why(stages=stages) == expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (
            (replace(CONDA, asks=(*CONDA.asks, ask("r-fable", line=3))), FILES),
            ["team.yaml:3: extras[3]: `r-fable` was added"],
        ),
        (
            (replace(CONDA, asks=CONDA.asks[:1]), FILES),
            ["team.yaml:2: extras[2]: `r-dplyr` was removed"],
        ),
        (
            (replace(CONDA, asks=(CONDA.asks[0], ask("r-dplyr =1.1", line=2))), FILES),
            ["team.yaml:2: extras[2]: `r-dplyr =1.1` was added", "team.yaml:2: extras[2]: `r-dplyr` was removed"],
        ),
        (
            (replace(CONDA, asks=(CONDA.asks[0], ask("r-dplyr", line=2, stage="base"))), FILES),
            ["team.yaml:2: extras[2]: `r-dplyr` was added", "team.yaml:2: extras[2]: `r-dplyr` was removed"],
        ),
        (
            (replace(CONDA, options={"channels": ["other"]}), FILES),
            ['team.yaml:1: extras[1]: channels: `["forge"]` became `["other"]`'],
        ),
        (
            (replace(CONDA, options={"channels": ["forge"], "cuda": "12"}), FILES),
            ["team.yaml:1: extras[1]: cuda: `null` became `12`"],
        ),
        (
            (CONDA, FILES, Target(kind="r", place="/lib", asks=(ask("survival", target="r:/lib", line=9),))),
            ["team.yaml:9: extras[9]: `survival` was added"],
        ),
        (
            (FILES,),
            [f"team.yaml:{n}: extras[{n}]: `{text}` was removed" for n, text in ((1, "r-base =4.5"), (2, "r-dplyr"))],
        ),
        ((CONDA,), ["team.yaml:7: extras[7]: `./own at /opt/own` was removed"]),
        (
            (CONDA, replace(FILES, asks=(*FILES.asks, ask({"at": ["/v"], "text": "1"}, target="file:", line=8)))),
            ["team.yaml:8: extras[8]: `text at /v` was added"],
        ),
    ],
)
def test_what_is_asked_is_a_reason_with_its_line(targets: tuple[Target, ...], expected: list[str]) -> None:
    assert why(targets=targets) == expected


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        ({**DISK, "./own/a.py": b"changed"}, ["`./own/a.py` changed since it was locked"]),
        ({**DISK, "./own/c.py": b"c"}, ["team.yaml:7: extras[7]: `./own/c.py` is new in `./own`"]),
        ({"./own/a.py": b"a"}, ["`./own/b.py` cannot be read: No such file or directory"]),
        (
            {},
            [
                "`./own/a.py` cannot be read: No such file or directory",
                "`./own/b.py` cannot be read: No such file or directory",
                "team.yaml:7: extras[7]: `./own` does not exist",
            ],
        ),
    ],
)
def test_the_project_s_own_files_are_reasons(disk: Mapping[str, bytes], expected: list[str]) -> None:
    assert why(disk=disk) == expected


def moved(target: Target, lines: Callable[[int], int]) -> Target:
    return replace(target, asks=tuple(replace(a, where=f"other.yaml:{lines(n)}: x") for n, a in enumerate(target.asks)))


@given(st.permutations([CONDA, FILES]), st.integers(min_value=1, max_value=9999), st.booleans())
def test_lines_that_moved_order_and_repetition_are_no_reason(targets: list[Target], line: int, twice: bool) -> None:
    there = [moved(t, lambda n: line + n) for t in targets]
    if twice:
        there = [replace(t, asks=(*t.asks, *reversed(t.asks))) for t in there]
    assert why(targets=tuple(there)) == []
    assert all(same_asks(old, new) for old, new in zip(sorted([CONDA, FILES], key=_id), sorted(there, key=_id), strict=True))


def _id(target: Target) -> str:
    return target.id


def test_asks_of_one_target_are_one_target_in_the_order_in_which_they_came() -> None:
    asks = [ask("a", channels=["x"]), ask("b", target="r:/lib"), ask("c", channels=["x"], line=3)]
    assert group(asks, KINDS) == (
        Target(kind="conda", place="/env", options={"channels": ["x"]}, asks=(asks[0], asks[2])),
        Target(kind="r", place="/lib", asks=(asks[1],)),
    )
    assert group([], KINDS) == ()


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [({"channels": ["x"]}, {"channels": ["y"]}, ("['x']", "['y']")), ({"channels": ["x"]}, {}, ("['x']", "None"))],
)
def test_two_values_of_one_option_are_refused_with_both_lines(
    first: Mapping[str, Any], second: Mapping[str, Any], said: tuple[str, str]
) -> None:
    with pytest.raises(CregraphError) as caught:
        group([ask("a", line=3, **first), ask("b", line=5, **second)], KINDS)
    assert caught.value.message == (
        "`conda:/env` has asks with two values of `channels`:\n"
        f"  team.yaml:3: extras[3]: {said[0]}\n  team.yaml:5: extras[5]: {said[1]}"
    )
    assert caught.value.hint == "use one value in all steps that fill this target"
