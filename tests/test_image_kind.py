"""Kind `image`: what a step asks, what is pinned, and what recipes see of a base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from cregraph.digest import is_sha256
from cregraph.errors import CregraphError
from cregraph.image.model.reference import DOCKER_HUB
from cregraph.kinds import KINDS
from cregraph.kinds.base import PinContext, PlaceContext
from cregraph.kinds.image import image_kind as image
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import BASE, BUILD_ROOT, Ask, Target
from cregraph.lock.staleness import group
from cregraph.plan.parts import Placement
from cregraph.profile.step import Step
from cregraph.sources import images
from cregraph.sources.protocol import Sources
from cregraph.store import Store
from tests.made_images import Made, base_tars, entry, layout, link, tar
from tests.small_registry import SmallRegistry

CPU = "container_runtime/cpu_x86_64"
OLD = "st_plat/runtime/snowbooks"
LISTED: dict[str, object] = {
    "reference": None,
    "registry": "snowflake",
    "folder": "snowflake/images",
    "repositories": [CPU, OLD],
    "tag": "2.7.2",
    "cuda": None,
    "build_root": None,
}


@dataclass
class SmallSources:
    store: Store
    hosts: Mapping[str, str] = field(default_factory=dict)
    offline: bool = False

    def routes(self, section: str, name: str) -> Sequence[str]:
        if section == "image":
            return ()
        assert section == "registry"
        return (self.hosts[name],) if name in self.hosts else ()


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))


@pytest.fixture
def small() -> Iterator[SmallRegistry]:
    with SmallRegistry() as registry:
        yield registry


def step(fields: Mapping[str, object], stage: str = "snowbooks") -> Step:
    where = {
        "": "recipes/snowbooks.yaml:19",
        "tag": "team.yaml:7: cre.snowbooks_tag",
        "reference": "team.yaml:9: snowbooks.image",
    }
    return Step(kind="image", stage=stage, fields=fields, where=where)


def target(fields: Mapping[str, object], place: str = BASE) -> Target:
    return next(one for one in group(image.ask(step(fields)), KINDS) if one.place == place)


def sources(tmp_path: Path, small: SmallRegistry | None = None, *, offline: bool = False) -> Sources:
    hosts = {"snowflake": f"http://{small.host}"} if small else {}
    return cast(Sources, SmallSources(Store(tmp_path / "store"), hosts, offline))


def given(tmp_path: Path, *, locked: Target | None = None, facts: BaseFacts | None = None) -> PinContext:
    return PinContext(project=tmp_path, shipped=tmp_path, locked=locked.pins if locked else (), facts=facts)


# ask


def test_the_list_is_asked_for_when_no_reference_is_given() -> None:
    (found,) = image.ask(step(LISTED))

    assert found == Ask(
        kind="image",
        place="base",
        stage="snowbooks",
        what={"registry": "snowflake", "folder": "snowflake/images", "repositories": [CPU, OLD], "tag": "2.7.2"},
        where="team.yaml:7: cre.snowbooks_tag",
    )


def test_a_reference_goes_before_the_list_and_is_written_in_full() -> None:
    (found,) = image.ask(step({**LISTED, "reference": "debian:12", "cuda": "12.8"}))

    assert found.what == {"reference": f"{DOCKER_HUB}/library/debian:12", "cuda": "12.8"}
    assert found.where == "team.yaml:9: snowbooks.image"


def test_a_named_build_root_is_a_target_of_its_own_and_the_base_itself_is_none() -> None:
    assert [one.target for one in image.ask(step({**LISTED, "build_root": "oci:bases/root"}))] == [
        "image:base",
        "image:build-root",
    ]
    assert [one.target for one in image.ask(step({**LISTED, "build_root": "base"}))] == ["image:base"]


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (
            {"tag": None},
            "recipes/snowbooks.yaml:19: `tag` is missing",
            "state `reference`, or `registry`, `repositories` and `tag`",
        ),
        ({"tag": "a b"}, "team.yaml:7: cre.snowbooks_tag: `a b` is not a tag", None),
        ({"repositories": []}, "recipes/snowbooks.yaml:19: `repositories` is missing", None),
        (
            {"repositories": ["UP/x"]},
            "recipes/snowbooks.yaml:19: the repository `snowflake/images/UP/x` has upper-case letters",
            None,
        ),
        ({"registry": "myorg.example"}, "recipes/snowbooks.yaml:19: `myorg.example` is not the name of a registry", None),
        ({"cuda": "twelve"}, "recipes/snowbooks.yaml:19: `twelve` is not a CUDA version", 'write a text such as "12.8", or null'),
        (
            {"reference": "oci:/somewhere/base"},
            "team.yaml:9: snowbooks.image: `oci:/somewhere/base` is a local path, which a lock must not contain",
            "write the folder relative to the project, such as `oci:bases/image`, or make a link to it in the project",
        ),
        ({"reference": "a b"}, "team.yaml:9: snowbooks.image: `a b` is not a repository's name", None),
    ],
)
def test_a_wrong_field_is_refused_with_its_line(change: dict[str, object], message: str, hint: str | None) -> None:
    with pytest.raises(CregraphError) as caught:
        image.ask(step({**LISTED, **change}))

    if change.get("reference") == "a b":
        message = message.replace("`a b` is", "`library/a b` is")
    assert str(caught.value) == message
    assert hint is None or caught.value.hint == hint


# pin


def test_the_first_repository_that_has_the_tag_is_pinned_and_named(small: SmallRegistry, tmp_path: Path) -> None:
    made = Made(*base_tars())
    small.hold(f"snowflake/images/{OLD}", "2.7.2", made)
    small.hold(f"snowflake/images/{CPU}", "2.9.0", Made(tar(entry("a"))))

    (pin,) = image.pin(target(LISTED), sources(tmp_path, small), given(tmp_path)).pins

    assert (pin.name, pin.version) == ("base", "2.7.2")
    assert pin.artifact.source == "registry:snowflake"
    assert pin.artifact.file == f"snowflake/images/{OLD}:2.7.2"
    assert (pin.artifact.sha256, pin.artifact.size) == (made.digest[7:], len(made.manifest))
    assert pin.data == {"cuda": None, "glibc": "2.36", "facts": pin.data["facts"]}
    assert is_sha256(pin.data["facts"])
    assert pin.asked == (f"snowbooks: snowflake:snowflake/images/{{{CPU},{OLD}}}:2.7.2",)
    assert small.host not in repr(pin)


def test_facts_are_written_once_and_read_from_then_on(small: SmallRegistry, tmp_path: Path) -> None:
    made = Made(*base_tars())
    small.hold(f"snowflake/images/{CPU}", "2.7.2", made)
    (pin,) = image.pin(target(LISTED), sources(tmp_path, small), given(tmp_path)).pins
    path = tmp_path / "bases" / f"{made.digest[7:]}.json"
    before = path.read_bytes()

    facts = images.facts_for(pin.artifact, sources(tmp_path), tmp_path)  # this sources knows no registry

    assert facts.digest == made.digest and facts.python is not None
    assert small.host.encode() not in before
    path.unlink()
    assert images.facts_for(pin.artifact, sources(tmp_path / "elsewhere", small), tmp_path) == facts
    assert path.read_bytes() == before


def test_facts_of_another_image_under_this_ones_name_are_refused(small: SmallRegistry, tmp_path: Path) -> None:
    made = Made(*base_tars())
    small.hold(f"snowflake/images/{CPU}", "2.7.2", made)
    (pin,) = image.pin(target(LISTED), sources(tmp_path, small), given(tmp_path)).pins
    other = replace(pin, artifact=replace(pin.artifact, sha256="0" * 64))
    (tmp_path / "bases" / f"{made.digest[7:]}.json").rename(tmp_path / "bases" / f"{'0' * 64}.json")

    with pytest.raises(CregraphError) as caught:
        images.facts_for(other.artifact, sources(tmp_path, small), tmp_path)

    assert str(caught.value) == f"bases/{'0' * 64}.json: digest: {made.digest} does not match the file name"


def test_a_locked_base_that_answers_the_same_is_not_asked_for(small: SmallRegistry, tmp_path: Path) -> None:
    small.hold(f"snowflake/images/{CPU}", "2.7.2", Made(*base_tars()))
    first = image.pin(target(LISTED), sources(tmp_path, small), given(tmp_path))
    small.asked.clear()
    small.hold(f"snowflake/images/{CPU}", "2.7.2", Made(tar(entry("moved"))))

    again = image.pin(target(LISTED), sources(tmp_path, offline=True), given(tmp_path, locked=first))

    assert again.pins == first.pins and small.asked == []


@pytest.mark.parametrize("change", [{"tag": "2.9.0"}, {"cuda": "12.8"}, {"repositories": [CPU]}])
def test_a_changed_ask_asks_anew(small: SmallRegistry, tmp_path: Path, change: dict[str, object]) -> None:
    moved = Made(tar(entry("moved")))
    small.hold(f"snowflake/images/{CPU}", "2.7.2", Made(*base_tars()))
    first = image.pin(target(LISTED), sources(tmp_path, small), given(tmp_path))
    for tag in ("2.7.2", "2.9.0"):
        small.hold(f"snowflake/images/{CPU}", tag, moved)

    (pin,) = image.pin(target({**LISTED, **change}), sources(tmp_path, small), given(tmp_path, locked=first)).pins

    assert pin.artifact.sha256 == moved.digest[7:]


def test_a_tag_that_no_repository_has_is_refused_with_all_that_were_tried(small: SmallRegistry, tmp_path: Path) -> None:
    with pytest.raises(CregraphError) as caught:
        image.pin(target(LISTED), sources(tmp_path, small), given(tmp_path))

    assert str(caught.value) == (
        f"{small.host} (registry `snowflake`) has none of these images:\n"
        f"  snowflake/images/{CPU}:2.7.2\n  snowflake/images/{OLD}:2.7.2"
    )


def test_a_refused_login_is_no_reason_to_take_the_next_repository(tmp_path: Path) -> None:
    with SmallRegistry("basic") as small:
        small.hold(f"snowflake/images/{OLD}", "2.7.2", Made(*base_tars()))
        with pytest.raises(CregraphError) as caught:
            image.pin(target(LISTED), sources(tmp_path, small), given(tmp_path))

    assert caught.value.hint == f"run `docker login {small.host}`"


def test_an_unnamed_registry_says_where_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(CregraphError) as caught:
        image.pin(target(LISTED), sources(tmp_path), given(tmp_path))

    assert str(caught.value) == "unknown registry `snowflake`"
    assert "`registry: {snowflake: {host: HOST}}`" in str(caught.value.hint)


def test_offline_asks_no_registry(small: SmallRegistry, tmp_path: Path) -> None:
    with pytest.raises(CregraphError, match="--offline is set"):
        image.pin(target(LISTED), sources(tmp_path, small, offline=True), given(tmp_path))
    with pytest.raises(CregraphError, match="--offline is set"):
        fields = {"reference": f"{small.host}/a:1"}
        image.pin(target(fields), sources(tmp_path, small, offline=True), given(tmp_path))
    assert small.asked == []


def test_a_layout_in_the_project_is_pinned_by_its_place_there_even_offline(tmp_path: Path) -> None:
    made = Made(*base_tars())
    layout(tmp_path / "images/base", made, tags=("2.5.0",))

    (pin,) = image.pin(target({"reference": "oci:images/base:2.5.0"}), sources(tmp_path, offline=True), given(tmp_path)).pins

    assert (pin.artifact.source, pin.artifact.file, pin.version) == ("oci:images/base", "2.5.0", "2.5.0")
    assert str(tmp_path) not in repr(pin)


def test_a_full_reference_is_pinned_by_its_host(small: SmallRegistry, tmp_path: Path) -> None:
    made = Made(*base_tars())
    small.hold("a/b", "1", made)
    by_tag = image.pin(target({"reference": f"{small.host}/a/b:1"}), sources(tmp_path), given(tmp_path)).pins[0]
    by_digest = image.pin(target({"reference": f"{small.host}/a/b@{made.digest}"}), sources(tmp_path), given(tmp_path)).pins[0]

    assert (by_tag.artifact.source, by_tag.artifact.file, by_tag.version) == (small.host, "a/b:1", "1")
    assert (by_digest.artifact.file, by_digest.version) == ("a/b", "")
    assert by_tag.artifact.sha256 == by_digest.artifact.sha256


def test_two_stages_that_want_different_bases_are_refused_with_both_lines(tmp_path: Path) -> None:
    one = image.ask(step({"reference": "oci:a"}))[0]
    two = replace(image.ask(step({"reference": "oci:b"}, stage="other"))[0], where="team.yaml:30: other.image")

    with pytest.raises(CregraphError) as caught:
        image.pin(Target(kind="image", place=BASE, asks=(one, two)), sources(tmp_path), given(tmp_path))

    assert str(caught.value) == "team.yaml:30: other.image: asks for oci:b, but team.yaml:9: snowbooks.image for oci:a"


# build root, late facts, placing


def glibc(version: str) -> Made:
    folder = "lib/x86_64-linux-gnu"
    return Made(tar(entry(f"{folder}/libc-{version}.so"), link(f"{folder}/libc.so.6", f"libc-{version}.so")))


def facts_with(tmp_path: Path, version: str) -> BaseFacts:
    layout(tmp_path / f"with-{version}", glibc(version))
    (pin,) = image.pin(target({"reference": f"oci:with-{version}"}), sources(tmp_path), given(tmp_path)).pins
    return images.facts_for(pin.artifact, sources(tmp_path), tmp_path)


def test_a_build_root_with_a_newer_glibc_is_refused_with_both_versions(tmp_path: Path) -> None:
    base = facts_with(tmp_path, "2.9")
    layout(tmp_path / "root", glibc("2.10"))
    asked = target({"reference": "oci:with-2.9", "build_root": "oci:root"}, BUILD_ROOT)

    with pytest.raises(CregraphError) as caught:
        image.pin(asked, sources(tmp_path), given(tmp_path, facts=base))

    assert str(caught.value) == ("the build root has glibc 2.10, the base has 2.9, so compiled programs cannot start on the base")
    locked = image.pin(asked, sources(tmp_path), given(tmp_path))
    assert (locked.pins[0].name, locked.pins[0].data["glibc"]) == ("build-root", "2.10")
    with pytest.raises(CregraphError, match=r"the build root has glibc 2\.10, the base has 2\.9"):
        image.pin(asked, sources(tmp_path), given(tmp_path, facts=base, locked=locked))


def test_an_equal_or_older_build_root_is_fine_and_one_without_glibc_is_not() -> None:
    image.check_glibc("2.36", "2.36")
    image.check_glibc("2.36", "2.9")
    with pytest.raises(CregraphError, match="the build root has no glibc"):
        image.check_glibc("2.36", None)


def with_users(tmp_path: Path) -> dict[str, object]:
    passwd = b"root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:/bin/sh\njovyan:x:1000:100::/home/jovyan:/bin/bash\n"
    layout(tmp_path / "base", Made(tar(entry("etc/passwd", passwd))))
    return {"reference": "oci:base"}


def test_user_and_home_of_a_step_are_those_of_the_base(tmp_path: Path) -> None:
    fields = with_users(tmp_path)
    asked = target({**fields, "user": "jovyan", "home": "/home/jovyan"})
    assert asked.options == {"user": "jovyan", "home": "/home/jovyan"}
    locked = image.pin(asked, sources(tmp_path), given(tmp_path))
    assert image.pin(target(fields), sources(tmp_path), given(tmp_path)).pins == locked.pins, "what is stated moves no pin"


@pytest.mark.parametrize("locked", [False, True], ids=["a new lock", "a locked base"])
@pytest.mark.parametrize(
    ("user", "home"), [("jupyter", "/home/jupyter"), ("jovyan", "/root")], ids=["no such user", "another home"]
)
def test_a_user_or_home_that_the_base_does_not_have_is_refused(tmp_path: Path, user: str, home: str, locked: bool) -> None:
    fields = with_users(tmp_path)
    before = image.pin(target(fields), sources(tmp_path), given(tmp_path)) if locked else None
    with pytest.raises(CregraphError) as caught:
        image.pin(target({**fields, "user": user, "home": home}), sources(tmp_path), given(tmp_path, locked=before))
    assert (
        caught.value.message == f"team.yaml:9: snowbooks.image: the base image has no user `{user}` with the home folder `{home}`"
    )
    assert caught.value.hint == "state `user` and `home` of a user that it has: `jovyan` (/home/jovyan), `root` (/root)"


def test_a_base_becomes_no_segment(tmp_path: Path) -> None:
    ground = PlaceContext(assembly=1, facts=facts_with(tmp_path, "2.36"), build_root="", targets=(), order=())

    assert image.place(target({"reference": "oci:x"}), ground) == Placement()
