"""Names of images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cregraph.errors import CregraphError
from cregraph.image.model.reference import (
    DOCKER_HUB,
    DockerName,
    LayoutName,
    Reference,
    address,
    is_local,
    parse,
    parse_reference,
)

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("debian:12", (DOCKER_HUB, "library/debian", "12", "")),
        ("grafana/loki", (DOCKER_HUB, "grafana/loki", "", "")),
        (f"index.{DOCKER_HUB}/debian", (DOCKER_HUB, "library/debian", "", "")),
        ("localhost/x", ("localhost", "x", "", "")),
        ("localhost:5000/a/b_c/d-e:T.1", ("localhost:5000", "a/b_c/d-e", "T.1", "")),
        ("Reg.Example:443/a__b", ("reg.example:443", "a__b", "", "")),
        (f"reg.example/a@sha256:{HEX}", ("reg.example", "a", "", f"sha256:{HEX}")),
        (f"reg.example/a:1@sha256:{HEX}", ("reg.example", "a", "1", f"sha256:{HEX}")),
        ("[::1]:5000/a", ("[::1]:5000", "a", "", "")),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(text: str, expected: tuple[str, str, str, str]) -> None:
    found = parse_reference(text)

    assert (found.host, found.repository, found.tag, found.digest) == expected
    assert parse_reference(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/x",
        "reg.example/",
        "reg.example/a//b",
        "reg.example/../b",
        "reg.example/a:",
        "reg.example/a:-x",
        "reg.example/a b",
        "reg.example/a:" + "x" * 129,
        "reg.example/" + "a/" * 200 + "a",
        "reg.example/a@sha256:123",
        "reg.example/a@md5:" + HEX,
        "reg.example:99999/a",
        "user:pw@reg.example/a",
        "https://reg.example/a",
        "reg.example/a\n",
        "reg.example/a?x=1",
        "docker:",
        "docker:-v",
        "docker:a b",
        "oci:",
    ],
)
def test_what_is_outside_the_grammar_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(CregraphError) as caught:
        parse(text, where="cregraph.yaml:4: image")

    assert str(caught.value).startswith("cregraph.yaml:4: image: ")


def test_upper_case_is_refused_with_the_right_spelling_and_folded_on_request() -> None:
    with pytest.raises(CregraphError) as caught:
        parse_reference("reg.example/MYDB/Schema/repo:V1", where="x")

    assert caught.value.hint == "write `mydb/schema/repo`"
    assert str(parse_reference("reg.example/MYDB/Schema/repo:V1", fold=True)) == "reg.example/mydb/schema/repo:V1"


def test_layouts_and_engines_are_named_with_a_word_and_a_colon() -> None:
    assert parse("oci:bases/x:2.5.0") == LayoutName(folder="bases/x", tag="2.5.0")
    assert parse("oci:../bases/x") == LayoutName(folder="../bases/x")
    assert parse("oci:a:b/c") == LayoutName(folder="a:b/c")
    assert parse("docker:me/x:1") == DockerName(name="me/x:1")
    assert str(parse("oci:bases/x:2.5.0")) == "oci:bases/x:2.5.0"


def test_only_this_machine_is_local() -> None:
    assert [is_local(host) for host in ("localhost", "localhost:5000", "127.0.0.1:5057", "127.1.2.3", "[::1]:5000")] == [True] * 5
    assert [is_local(host) for host in ("localhost.example", "127.0.0.1.example", "10.0.0.1", "reg.example:5000")] == [False] * 4


def test_docker_hub_answers_at_another_host_than_its_name() -> None:
    assert address(DOCKER_HUB) != DOCKER_HUB
    assert address("reg.example") == "reg.example"


@given(st.text(max_size=60))
def test_any_text_is_a_reference_that_reads_back_or_an_error_of_ours(text: str) -> None:
    try:
        found = parse(text)
    except CregraphError:
        return
    assert parse(str(found)) == found
    assert not isinstance(found, Reference) or "://" not in str(found)
