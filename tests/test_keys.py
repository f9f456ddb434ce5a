"""Every single value of a lock, changed one at a time: it decides bytes and the key changes, or it does not and nothing does.

The lock is the tiny project's, with an R package more that is compiled against the built one. A field that is new in locks
is in neither list, and fails here until somebody says which it is.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cregraph.errors import CregraphError
from cregraph.kinds import KINDS
from cregraph.lock import base_facts_json as facts_json
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.lock_file import loads
from cregraph.plan.planner import Plan, make_plan
from tests.golden_tiny import TINY

Path = tuple[str | int, ...]

SOURCE = {
    "name": "fromsource",
    "version": "2.1",
    "source": "cran",
    "file": "2025-06-01/fromsource_2.1.tar.gz",
    "sha256": "5" * 64,
    "size": 1000,
    "needs": ["r:tinybuilt"],
    "provides": ["r:fromsource 2.1"],
    "asked": ["tiny: fromsource"],
    "data": {
        "depends": ["R >=4.1", "tinybuilt"],
        "linking_to": [],
        "compiles": False,
        "snapshot": "2025-06-01",
        "binaries": "bookworm/4.4",
        "no_binary": "the repository does not have it",
    },
}
#: What decides bytes, as patterns over `kind/field…` of targets and over the head of the lock; anything else must be neutral.
DECIDES = re.compile(
    "|".join(
        (
            r"image/(name|image|label|tag|base_type)",  # they are labels of the image
            r"stages/env/.*",
            r"targets/(conda|r|python|archive|file)/id",
            r"targets/[\w-]+/pins/sha256",
            # The lock in the image has them, and conda-meta; of files and archives only places are there.
            r"targets/(conda|r|r-built|python)/pins/(name|version|size)",
            r"targets/(archive|file)/pins/size",
            r"targets/archive/pins/data/form",
            r"targets/conda/pins/(source|file|data/(?!subdir).*)",  # conda-meta says all that a channel says
            r"targets/image/pins/data/facts",
            r"targets/(file|archive)/asks/what/(at|text|link|mode|owner).*",
            r"targets/r/pins/(needs|data/compiles)",  # what a task sees
        )
    )
)
#: What decides no byte, in the same form.
NEUTRAL = re.compile(
    "|".join(
        (
            r"targets/\w+/asks/(where|stage)",  # a stage has a key of its own
            r"targets/(conda|r|python|image)/asks/what.*",
            r"targets/\w+/options/.*",  # they decide what is pinned, and the pins are there
            r"targets/[\w-]+/pins/(asked|provides)",
            r"targets/(r|python|image)/pins/(source|file)",
            r"targets/r-built/pins/file",
            r"targets/(archive|file)/pins/(source|file|kind|version)",
            r"targets/image/pins/(name|version|size|data/(cuda|glibc|tag|repository))",
            r"targets/(r|r-built)/pins/data/(depends|linking_to|snapshot|binaries|no_binary|built|platform)",
            r"targets/r-built/pins/data/compiles",
            r"targets/conda/pins/(needs|data/subdir)",  # the file's folder is what counts
            r"stages/needs",
            r"recipes",  # what a lock takes from the set stands in its stages, asks and pins
        )
    )
)
#: Together with another field only: such a lock contradicts itself, and is refused.
TOGETHER = re.compile(
    r"version|assembly|platform|stages/name|targets/(archive|file)/(asks/what/(url|from)|pins/name)|targets/\w+/kind"
    r"|targets/image/id|targets/r-built/pins/(source|data/form)|targets/python/pins/data/form"
)


@pytest.fixture(scope="module")
def lock() -> dict[str, Any]:
    data = json.loads((TINY / "locks/tiny.lock.json").read_text())
    (library,) = (t for t in data["targets"] if t["kind"] == "r")
    library["asks"].append({"what": "fromsource", "stage": "tiny", "where": "recipes/tiny.yaml: steps.r.packages"})
    library["pins"].append(copy.deepcopy(SOURCE))
    return dict(data)


@pytest.fixture(scope="module")
def facts() -> BaseFacts:
    (path,) = (TINY / "bases").glob("*.json")
    return facts_json.loads(path.read_text(), name=path.name)


def plan(data: dict[str, Any], facts: BaseFacts) -> Plan:
    lock = loads(json.dumps(data), name="lock", kinds=KINDS)
    return make_plan(lock, replace(facts, digest="sha256:" + lock.base.artifact.sha256))


def leaves(value: Any, at: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*at, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, (*at, index))
    elif value != []:
        yield at


def changed(data: dict[str, Any], at: Path) -> dict[str, Any]:
    """The lock with the value at `at` another one of its type."""
    made = copy.deepcopy(data)
    holder = made
    for step in at[:-1]:
        holder = holder[step]  # type: ignore[index]
    old: Any = holder[at[-1]]  # type: ignore[index]
    new: Any = "12.8"
    if isinstance(old, bool):
        new = not old
    elif isinstance(old, int):
        new = old + 1
    elif at[-1] == "stage":
        new = "base" if old == "tiny" else "tiny"
    elif isinstance(old, str):
        new = re.sub(r"[0-9A-Za-z](?=[^0-9A-Za-z]*$)", lambda found: "8" if found[0] != "8" else "7", old) if old else "1"
    assert new != old
    holder[at[-1]] = new  # type: ignore[index]
    return made


def named(data: dict[str, Any], at: Path) -> str:
    """`targets/r/pins/data/depends` for a place in the lock: indices are left out, a target goes by its kind."""
    words = [str(step) for step in at if isinstance(step, str)]
    if at[0] == "targets":
        target = data["targets"][at[1]]
        built = at[2] == "pins" and target["pins"][at[3]].get("data", {}).get("form") == "binary"
        words.insert(1, target["kind"] + "-built" * built)
    return "/".join(words)


def bytes_of(found: Plan) -> Any:
    """All that the bytes follow from."""
    return (
        found.key,
        found.tag,
        [(layer.name, layer.key) for layer in found.layers],
        sorted(found.segments),
        sorted(task.key for task in found.tasks),
        dict(found.env),
        dict(found.labels),
    )


def test_every_value_of_a_lock_decides_bytes_and_the_key_or_neither(lock: dict[str, Any], facts: BaseFacts) -> None:
    before = plan(lock, facts)
    seen: dict[str, set[str]] = {"decides": set(), "neutral": set(), "together": set()}
    wrong = []
    for at in leaves(lock):
        name = named(lock, at)
        kinds = [kind for kind, form in zip(seen, (DECIDES, NEUTRAL, TOGETHER), strict=True) if form.fullmatch(name)]
        if len(kinds) != 1:
            wrong.append(f"{name}: {kinds or 'say whether it decides bytes'}")
            continue
        seen[kinds[0]].add(name)
        try:
            after = plan(changed(lock, at), facts)
        except CregraphError:
            if kinds == ["neutral"]:  # a contradiction that is found is never built; but then it is no neutral change
                wrong.append(f"{name} {at}: refused")
            continue
        if (after.key != before.key) != (kinds == ["decides"]) and kinds != ["together"]:
            wrong.append(f"{name} {at}: {'moved' if after.key != before.key else 'left'} the key")
        elif after.key == before.key and bytes_of(after) != bytes_of(before):
            wrong.append(f"{name} {at}: the key is equal, and what it covers is not")
    assert wrong == [], "\n".join(wrong)
    assert len(seen["decides"]) > 25 and len(seen["neutral"]) > 25


@pytest.mark.parametrize("name", ["my-tool", "tinybuilt", "tiny-odd", "./recipes/tiny.yaml", "https://tiny.invalid/one.gz"])
def test_other_bytes_of_one_artifact_touch_its_own_segment_and_what_is_compiled_against_it(
    lock: dict[str, Any], facts: BaseFacts, name: str
) -> None:
    made = copy.deepcopy(lock)
    (pin,) = (p for t in made["targets"] for p in t["pins"] if p["name"] == name)
    pin["sha256"] = "e" * 64
    before, after = plan(lock, facts), plan(made, facts)
    moved = {s.name for s in after.segments.values() if s.key not in before.segments}
    own = {s.name for s in after.segments.values() if s.artifact and s.artifact.sha256 == "e" * 64}
    dependents = {"fromsource"} if name == "tinybuilt" else set()
    assert moved == {*own, *dependents, "/opt/cregraph/lock.json"}
    tasks = {t.key for t in before.tasks}
    assert {t.name for t in after.tasks if t.key not in tasks} == dependents
