"""Resolve moves what must move and nothing else; a plan's key follows what decides bytes and nothing else.

On the demo's sources: a real channel, a CRAN, an index, a base, all on file://.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cregraph import resolve as resolving
from cregraph.build.image_build import build
from cregraph.demo.demo_project import write_project
from cregraph.errors import CregraphError
from cregraph.kinds import KINDS
from cregraph.kinds.base import PinContext
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.lock_file import Lock, dumps, loads
from cregraph.lock.pins import Ask, Pin, Target
from cregraph.plan.planner import make_plan
from cregraph.resolve import Upgrade, order, resolve
from cregraph.session.project import Project
from cregraph.sources import images
from cregraph.sources.configured import ConfiguredSources
from cregraph.store import Store
from tests.test_r_kind import description, tarball

TOOL = "recipe: tool\nabout: files\nsteps:\n  - file: {at: /opt/tool, from: ./tool}\n  - file: {at: /opt/link, link: /opt/tool}\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A demo's project with files of its own, and the text of its lock."""
    folder = tmp_path_factory.mktemp("resolve") / "made"
    folder.mkdir()
    write_project(folder)
    (folder / "recipes" / "tool").mkdir(parents=True)
    (folder / "recipes" / "tool.yaml").write_text(TOOL)
    (folder / "recipes" / "tool" / "a.txt").write_text("a")
    (folder / "recipes" / "tool" / "b.txt").write_text("b")
    profile = folder / "demo.yaml"
    profile.write_text(profile.read_text() + "with: [tool]\n")
    return folder, dumps(locked(folder))


@pytest.fixture
def own(made: tuple[Path, str], tmp_path: Path) -> Path:
    shutil.copytree(made[0], tmp_path / "own", symlinks=True)
    return tmp_path / "own"


@pytest.fixture
def old(made: tuple[Path, str]) -> Lock:
    return loads(made[1], name="old", kinds=KINDS)


def locked(
    folder: Path,
    old: Lock | None = None,
    *packages: str,
    all: bool = False,
    profile: str = "demo.yaml",
    offline: bool = True,
    today: str = "2026-01-02",
) -> Lock:
    project = Project(profile=folder / profile)
    store = Store(folder / "cache")
    asked = project.asked()
    sources = ConfiguredSources(kinds=KINDS, store=store, routes=project.routes(), local=project.local(), offline=offline)
    made = resolve(
        identity=asked.identity,
        stages=asked.stages,
        targets=asked.targets,
        sources=sources,
        context=PinContext(project=folder, shipped=project.recipes().folder, today=today),
        facts_for=lambda pin: images.facts_for(pin.artifact, sources, folder),
        old=old,
        upgrade=Upgrade(all=all, packages=frozenset(packages)),
    )
    return replace(made, recipes=project.recipes().sha256)


#: The targets that were resolved anew since the test began.
RESOLVED: list[str] = []


def resolved() -> list[str]:
    """Those of which somebody may have been asked: pinning files and a locked image looks at the project alone."""
    return [name for name in RESOLVED if name.partition(":")[0] not in ("file", "image")]


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    RESOLVED.clear()
    pinned = resolving._Resolver._pinned

    def noted(self: Any, target: Target, locked: Target | None) -> Target:
        RESOLVED.append(target.id)
        return pinned(self, target, locked)

    monkeypatch.setattr(resolving._Resolver, "_pinned", noted)


def edit(folder: Path, before: str, after: str, profile: str = "demo.yaml") -> None:
    path = folder / profile
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def versions(lock: Lock) -> dict[tuple[str, str], str]:
    return {(t.id, p.name): p.version or p.artifact.sha256 for t in lock.targets for p in t.pins}


def changed(one: Lock, other: Lock) -> dict[str, tuple[str | None, str | None]]:
    a, b = versions(one), versions(other)
    return {key[1]: (a.get(key), b.get(key)) for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


# -- resolve -------------------------------------------------------------------------------------------------------------------


def test_what_is_fresh_is_not_resolved_again_and_asks_nobody(own: Path, old: Lock) -> None:
    for source in ("channel", "simple", "cran", "base"):
        shutil.rmtree(own / "sources" / source)
    again = locked(own, old)
    assert dumps(again) == dumps(old)
    assert resolved() == []


def test_a_newer_version_is_taken_only_where_somebody_asks(own: Path, old: Lock) -> None:
    edit(own, "- r-demoframes ", "- r-demoframes =1.1.0 ")
    older = locked(own, old)
    assert changed(old, older) == {"r-demoframes": ("1.2.0", "1.1.0")}
    edit(own, "- r-demoframes =1.1.0 ", "- r-demoframes ")
    kept = locked(own, older)
    assert changed(older, kept) == {}, "1.2.0 is there, and nobody asked to move"
    assert changed(kept, locked(own, kept, "r-demoframes")) == {"r-demoframes": ("1.1.0", "1.2.0")}
    assert changed(kept, locked(own, kept, all=True)) == {"r-demoframes": ("1.1.0", "1.2.0")}
    RESOLVED.clear()
    assert changed(kept, locked(own, kept, "demo-words")) == {}
    assert resolved() == ["python:$(snowbooks.python)"]


def test_one_target_that_is_asked_otherwise_leaves_the_others_alone(own: Path, old: Lock) -> None:
    edit(own, "- demo-greeting >=1", "- demo-greeting ==1.0")
    new = locked(own, old)
    assert changed(old, new) == {"demo-greeting": ("1.1", "1.0"), "demo-words": ("2.0", None)}
    assert resolved() == ["python:$(snowbooks.python)"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("r-demoframe", "write `r-demoframes` instead"),
        ("zzz", "write the name as in the lock, such as r-dplyr, survival or rpy2"),
    ],
)
def test_a_package_that_the_lock_does_not_pin_cannot_be_upgraded(own: Path, old: Lock, name: str, hint: str) -> None:
    with pytest.raises(CregraphError) as caught:
        locked(own, old, name)
    assert caught.value.message == f"`--upgrade-package {name}`: the lock pins no package of that name"
    assert caught.value.hint == hint
    assert resolved() == []


@pytest.mark.parametrize(("packages", "everything"), [((), True), (("demoplots",), False)])
def test_an_upgrade_of_r_looks_into_todays_snapshot_and_nothing_else_does(
    own: Path, packages: tuple[str, ...], everything: bool
) -> None:
    edit(own, "cran: ./sources/cran", "cran: ./sources/dated/{date}", "sources.yaml")
    edit(own, "  cran_snapshot: 2025-06-01\n", "", "with-cran.yaml")
    for date in ("2025-06-01", "2026-01-02"):
        shutil.copytree(own / "sources/cran", own / "sources/dated" / date)
    contrib = own / "sources/dated/2026-01-02/src/contrib"
    newer = description("demoplots", "0.5", Imports="demoframes, demostats")
    (contrib / "demoplots_0.5.tar.gz").write_bytes(tarball(newer))
    listed = (contrib / "PACKAGES").read_text() + "\n" + newer
    (contrib / "PACKAGES.gz").write_bytes(gzip.compress(listed.encode()))

    first = locked(own, profile="with-cran.yaml", today="2025-06-01")
    edit(own, "[demoplots]", "[demoplots, demostats]", "with-cran.yaml")
    kept = locked(own, first, profile="with-cran.yaml")
    assert changed(first, kept) == {}, "the lock's own snapshot is asked until an upgrade"

    moved = locked(own, kept, *packages, all=everything, profile="with-cran.yaml")
    assert changed(kept, moved) == {"demoplots": ("0.4.2", "0.5")}
    (dates,) = ({p.data["snapshot"] for p in t.pins if p.name == "demoplots"} for t in moved.targets if t.kind == "r")
    assert dates == {"2026-01-02"}


def test_names_of_packages_that_are_upgraded_are_in_any_case(own: Path, made: tuple[Path, str]) -> None:
    (own / "locks").mkdir()
    (own / "locks" / "demo.lock.json").write_text(made[1])
    words = ["lock", "demo.yaml", "--upgrade-package", "R-DemoFrames", "--offline"]
    done = subprocess.run([sys.executable, "-m", "cregraph", *words], cwd=own, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "locks/demo.lock.json\n"), done.stderr
    assert (own / "locks" / "demo.lock.json").read_text() == made[1]


def test_a_base_that_moved_is_asked_for_only_when_its_ask_changed_and_then_what_stands_on_it_is_resolved(
    own: Path, old: Lock
) -> None:
    shutil.copytree(own / "sources" / "base", own / "sources" / "new")
    _relabel(own / "sources" / "base")
    assert changed(old, locked(own, old)) == {}, "the name leads to another image now, and nobody asked to move"
    assert resolved() == []
    RESOLVED.clear()
    moved = locked(own, old, "base")
    assert list(changed(old, moved)) == ["base"]
    conda = [t.id for t in old.targets if t.kind == "conda" and t.pins]
    assert {*conda, "python:$(snowbooks.python)"} == set(resolved())
    RESOLVED.clear()
    edit(own, '"oci:sources/base"', '"oci:sources/new"')
    same = locked(own, old)
    assert changed(old, same) == {}
    assert resolved() == [], "another name of the same image moves nothing that stands on it"


def _relabel(layout: Path) -> None:
    """Let the layout hold another image with the same files."""
    import hashlib
    import json

    index = json.loads((layout / "index.json").read_text())
    blobs = layout / "blobs" / "sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    config["config"]["Labels"]["moved"] = "yes"

    def put(value: Any) -> dict[str, Any]:
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    manifest["config"] |= put(config)
    index["manifests"][0] |= put(manifest)
    (layout / "index.json").write_text(json.dumps(index))


def test_a_file_of_the_project_that_changed_moves_its_pin_alone(own: Path, old: Lock) -> None:
    (own / "recipes" / "tool" / "a.txt").write_text("other")
    (own / "recipes" / "tool" / "b.txt").unlink()
    (own / "recipes" / "tool" / "c.txt").write_text("c")
    new = locked(own, old)
    assert set(changed(old, new)) == {f"./recipes/tool/{name}.txt" for name in "abc"}
    assert resolved() == []


def test_what_only_a_sandbox_sees_is_pinned_only_when_something_is_compiled(old: Lock) -> None:
    hidden = old.target("conda:/cregraph/python")
    assert hidden is not None
    assert (len(hidden.asks), hidden.pins) == (1, ())


def test_a_lock_needs_a_base(own: Path) -> None:
    project = Project(profile=own / "demo.yaml")
    asked = project.asked()
    sources = ConfiguredSources(
        kinds=KINDS, store=Store(own / "cache"), routes=project.routes(), local=project.local(), offline=True
    )
    with pytest.raises(CregraphError) as caught:
        resolve(
            identity=asked.identity,
            stages=asked.stages,
            targets=[t for t in asked.targets if t.kind == "file"],
            sources=sources,
            context=PinContext(project=own, shipped=project.recipes().folder),
            facts_for=lambda pin: images.facts_for(pin.artifact, sources, own),
        )
    assert caught.value.message == "no stage asks for a base image"
    assert caught.value.hint == "use the stage `snowbooks` or `base`, or an `image` step"


def test_targets_are_resolved_base_first_and_the_sandbox_s_last() -> None:
    named = [("conda", "/cregraph/x"), ("python", "x"), ("file", ""), ("r", "/lib"), ("conda", "/env")]
    named += [("image", "build-root"), ("image", "base")]
    targets = [Target(kind=name, place=place, scope=KINDS[name].scope(place)) for name, place in named]
    found = [t.id for t in order(targets)]
    assert found[:2] == ["image:base", "image:build-root"]
    assert found[-1] == "conda:/cregraph/x"
    assert found.index("conda:/env") < found.index("r:/lib")
    assert [t.id for t in order(targets[::-1])] == found


# -- plan ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planned(made: tuple[Path, str]) -> tuple[Lock, BaseFacts]:
    lock = loads(made[1], name="old", kinds=KINDS)
    return lock, Project(profile=made[0] / "demo.yaml").facts(lock.base)


def each_ask(lock: Lock, change: Callable[[Ask], Ask]) -> Lock:
    return replace(lock, targets=tuple(replace(t, asks=tuple(change(a) for a in t.asks)) for t in lock.targets))


def each_pin(lock: Lock, change: Callable[[Pin], Pin], *kinds: str) -> Lock:
    targets = [replace(t, pins=tuple(change(p) for p in t.pins)) if not kinds or t.kind in kinds else t for t in lock.targets]
    return replace(lock, targets=tuple(targets))


def renamed(lock: Lock) -> Lock:
    """The project's own files under other names, with the same bytes and places."""

    def other(text: str) -> str:
        return text.replace("./recipes/tool", "./elsewhere/x").replace("standard:hook", "./recipes/hook")

    def ask(a: Ask) -> Ask:
        return replace(a, what={**a.what, "from": other(a.what["from"])}) if a.kind == "file" and "from" in a.what else a

    def pin(p: Pin) -> Pin:
        return replace(p, name=other(p.name), artifact=replace(p.artifact, source=other(p.artifact.source)))

    return each_pin(each_ask(lock, ask), pin, "file")


#: What decides no byte.
NEUTRAL: dict[str, Callable[[Lock], Lock]] = {
    "lines moved": lambda lock: each_ask(lock, lambda a: replace(a, where="other.yaml:99: somewhere")),
    "texts of asks in pins": lambda lock: each_pin(
        lock, lambda p: replace(p, asked=tuple(f"{t} " for t in p.asked)), "image", "file"
    ),
    "python's source": lambda lock: each_pin(
        lock, lambda p: replace(p, artifact=replace(p.artifact, source="other")), "python", "image"
    ),
    "places of files in their source": lambda lock: each_pin(
        lock, lambda p: replace(p, artifact=replace(p.artifact, file=f"moved/{p.artifact.file}")), "image"
    ),
    "order of asks": lambda lock: replace(lock, targets=tuple(replace(t, asks=t.asks[::-1]) for t in lock.targets)),
    "order of pins": lambda lock: replace(lock, targets=tuple(replace(t, pins=t.pins[::-1]) for t in lock.targets)),
    "order of targets": lambda lock: replace(lock, targets=lock.targets[::-1]),
    "an ask repeated": lambda lock: replace(
        lock, targets=tuple(replace(t, asks=(*t.asks, *t.asks)) if t.kind in ("conda", "python") else t for t in lock.targets)
    ),
    "names of the project's files": renamed,
    "checks": lambda lock: replace(lock, stages=tuple(replace(s, checks=()) for s in lock.stages)),
    "repeated reading": lambda lock: loads(dumps(lock), name="again", kinds=KINDS),
}


def digits(pin: Pin) -> Pin:
    return replace(pin, artifact=replace(pin.artifact, sha256=pin.artifact.sha256[::-1]))


def only(name: str, change: Callable[[Pin], Pin]) -> Callable[[Lock], Lock]:
    return lambda lock: each_pin(lock, lambda p: change(p) if p.name == name else p)


def first_file(change: Callable[[dict[str, Any]], dict[str, Any]], key: str) -> Callable[[Lock], Lock]:
    def at(lock: Lock) -> Lock:
        chosen = next(a for t in lock.targets if t.kind == "file" for a in t.asks if key in a.what)
        return each_ask(lock, lambda a: replace(a, what=change(dict(a.what))) if a == chosen else a)

    return at


def in_stage(name: str, **env: str) -> Callable[[Lock], Lock]:
    return lambda lock: replace(
        lock, stages=tuple(replace(s, env={**s.env, **env}) if s.name == name else s for s in lock.stages)
    )


#: What decides bytes: of a file, a place, the config or a label.
DECIDING: dict[str, Callable[[Lock], Lock]] = {
    **{f"bytes of {name}": only(name, digits) for name in ("r-base", "demo-words", "micromamba", "./recipes/tool/a.txt")},
    "a version": only("demo-words", lambda p: replace(p, version="2.0.post1")),
    "a pin less": lambda lock: replace(
        lock, targets=tuple(replace(t, pins=tuple(p for p in t.pins if p.name != "demo-words")) for t in lock.targets)
    ),
    "a conda channel's name": only("r-base", lambda p: replace(p, artifact=replace(p.artifact, source="other"))),
    "a variable": in_stage("r", TZ="CET"),
    "a variable more": in_stage("hook", MORE="1"),
    "the label": lambda lock: replace(lock, identity=replace(lock.identity, label="v2")),
    "the image's name": lambda lock: replace(lock, identity=replace(lock.identity, image="other")),
    "a file's text": first_file(lambda what: {**what, "text": "other"}, "text"),
    "a file's place": first_file(lambda what: {**what, "at": ["/opt/elsewhere"]}, "from"),
    "a file's mode": first_file(lambda what: {**what, "mode": 0o600}, "text"),
    "a file's owner": first_file(lambda what: {**what, "owner": "nobody"}, "text"),
    "where a link leads": first_file(lambda what: {**what, "link": "/elsewhere"}, "link"),
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(neutral=st.lists(st.sampled_from(sorted(NEUTRAL)), unique=True), deciding=st.none() | st.sampled_from(sorted(DECIDING)))
def test_a_key_changes_if_and_only_if_something_that_decides_bytes_does(
    planned: tuple[Lock, BaseFacts], neutral: list[str], deciding: str | None
) -> None:
    lock, facts = planned
    before = make_plan(lock, facts)
    changed = DECIDING[deciding](lock) if deciding else lock
    assert deciding is None or changed != lock
    for name in neutral:
        changed = NEUTRAL[name](changed)
    after = make_plan(changed, facts)
    assert (after.key == before.key) == (deciding is None)
    assert (after.tag == before.tag) == (deciding is None)
    if deciding is None:
        assert [layer.key for layer in after.layers] == [layer.key for layer in before.layers]
        assert after.segments.keys() == before.segments.keys()
        assert (after.stages, after.env, after.labels) == (before.stages, before.env, before.labels)


@pytest.mark.parametrize("name", sorted(DECIDING))
def test_each_thing_that_decides_bytes_changes_the_key(planned: tuple[Lock, BaseFacts], name: str) -> None:
    lock, facts = planned
    assert make_plan(DECIDING[name](lock), facts).key != make_plan(lock, facts).key


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_each_thing_that_decides_no_byte_leaves_the_key(planned: tuple[Lock, BaseFacts], name: str) -> None:
    lock, facts = planned
    assert make_plan(NEUTRAL[name](lock), facts).key == make_plan(lock, facts).key


def test_a_changed_pin_changes_its_stage_and_no_stage_above_it(planned: tuple[Lock, BaseFacts]) -> None:
    lock, facts = planned
    before, after = make_plan(lock, facts), make_plan(only("demo-words", digits)(lock), facts)
    assert {name for name in before.stages if before.stages[name] != after.stages[name]} == {"python"}
    assert len({s.key for s in after.layers} - {s.key for s in before.layers}) == 2, "its own, and the one with the lock"


def test_facts_of_another_image_are_refused(planned: tuple[Lock, BaseFacts]) -> None:
    lock, facts = planned
    other = replace(facts, digest="sha256:" + "0" * 64)
    with pytest.raises(CregraphError) as caught:
        make_plan(lock, other)
    assert caught.value.message == (
        f"the base facts are of sha256:{'0' * 64}, but the lock pins sha256:{lock.base.artifact.sha256}"
    )


@pytest.mark.parametrize("label", ["", "-x", "a b", "a" * 116, "ü", "a/b"])
def test_a_label_that_cannot_begin_a_tag_is_refused(planned: tuple[Lock, BaseFacts], label: str) -> None:
    lock, facts = planned
    with pytest.raises(CregraphError) as caught:
        make_plan(replace(lock, identity=replace(lock.identity, label=label)), facts)
    assert caught.value.message == f"the version label `{label}` cannot be the beginning of a tag"
    assert caught.value.hint == "use letters, digits, `.`, `_` and `-`, at most 115 of them (cre.version_label or cre.tag)"


# -- what leaves the tag alone leaves the digest alone -------------------------------------------------------------------------


def _other_base(folder: Path) -> None:
    (folder / "sources" / "base").rename(folder / "sources" / "moved base")
    edit(folder, '"oci:sources/base"', '"oci:sources/moved base"')


def _other_sources(folder: Path) -> None:
    for name in ("channel", "simple"):
        (folder / "sources" / name).rename(folder / "sources" / f"{name}-moved")
    edit(folder, "/channel", "/channel-moved", "sources.yaml")
    edit(folder, "/simple", "/simple-moved", "sources.yaml")


def _parent(folder: Path) -> None:
    shutil.move(folder / "demo.yaml", folder / "parent.yaml")
    (folder / "demo.yaml").write_text("extends: parent.yaml\n")


EDITS: dict[str, tuple[bool, Callable[[Path], object]]] = {
    "a comment": (True, lambda f: edit(f, "extras:", "\n# more\nextras:")),
    "an order": (True, lambda f: edit(f, "    - r-demoframes ", "    - r-demotools\n    - r-demoframes ")),
    "a repetition": (True, lambda f: edit(f, "    - demo-greeting >=1", "    - demo-greeting >=1\n    - demo-greeting >=1")),
    "what the base has": (True, lambda f: edit(f, "    - demo-greeting >=1", "    - demo-tables\n    - demo-greeting >=1")),
    "a range that holds": (True, lambda f: edit(f, "demo-greeting >=1", "demo-greeting >=1,<2")),
    "sources moved": (True, _other_sources),
    "base moved": (True, _other_base),
    "profile split": (True, _parent),
    "a version": (False, lambda f: edit(f, "demo-greeting >=1", "demo-greeting ==1.0 # >=1")),
    "a file": (False, lambda f: (f / "recipes" / "tool" / "a.txt").write_text("other")),
    "a label": (False, lambda f: edit(f, "  tag: v1", "  tag: v2")),
    "a file's place": (False, lambda f: edit(f, "/opt/link,", "/opt/other,", "recipes/tool.yaml")),
}
SEEN: dict[str, str] = {}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.lists(st.sampled_from(sorted(EDITS)), unique=True, max_size=4))
def test_what_leaves_the_tag_alone_leaves_the_digest_alone(
    made: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory, chosen: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("edited") / "p"
    shutil.copytree(made[0], folder, symlinks=True)
    first = ["a comment", "an order", "a repetition", "what the base has", "a range that holds", "a version", "a label"]
    for name in sorted(chosen, key=lambda n: (first.index(n) if n in first else 99, n == "profile split", n)):
        try:
            EDITS[name][1](folder)
        except AssertionError:  # another edit took its line
            chosen = [n for n in chosen if n != name]
    lock = locked(folder, loads(made[1], name="old", kinds=KINDS))
    project = Project(profile=folder / "demo.yaml")
    facts = project.facts(lock.base)
    plan = make_plan(lock, facts)
    sources = ConfiguredSources(kinds=KINDS, store=Store(folder / "cache"), routes=project.routes(), local=project.local())
    digest = build(plan, facts, store=sources.store, fetch=sources.fetch, engine=_no_engine).image.digest
    assert SEEN.setdefault(plan.tag, digest) == digest
    neutral = make_plan(loads(made[1], name="old", kinds=KINDS), facts).tag
    assert (plan.tag == neutral) == all(EDITS[name][0] for name in chosen)


def _no_engine() -> Any:
    raise AssertionError("nothing of this is compiled")


def test_a_profile_of_another_file_name_is_the_same_image(own: Path, old: Lock) -> None:
    (own / "demo.yaml").rename(own / "other name.yaml")
    new = locked(own, old, profile="other name.yaml")
    facts = Project(profile=own / "demo.yaml").facts(new.base)
    assert make_plan(new, facts).tag == make_plan(old, facts).tag
