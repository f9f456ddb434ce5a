"""What a profile says: merging with its parents, switching stages, and YAML that holds no surprise."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cregraph.errors import CregraphError
from cregraph.profile.compose import Composition
from cregraph.profile.yaml_reader import read_yaml
from tests.composing import MINIMAL, ROOT, composed
from tests.faults import within


def value(text: str) -> object:
    return read_yaml(f"x: {text}\n", file="p.yaml").fields["x"].value


def r_specs(found: Composition) -> list[str]:
    specs: list[str] = found.stage("r").steps[0].fields["specs"]
    return specs


def test_yes_no_and_dates_are_text_and_only_true_and_false_are_booleans() -> None:
    assert [value(t) for t in ("yes", "no", "on", "off", "y", "2025-06-01", "1_000", "12:30", "0x1f", "0o17", "2.5.0")] == [
        "yes",
        "no",
        "on",
        "off",
        "y",
        "2025-06-01",
        "1_000",
        "12:30",
        "0x1f",
        "0o17",
        "2.5.0",
    ]
    assert [value(t) for t in ("true", "False", "null", "~", "", "'null'")] == [True, False, None, None, None, "null"]


def test_a_number_keeps_how_it_was_written() -> None:
    nodes = [read_yaml(f"x: {t}", file="p").fields["x"] for t in ("4.50", "1e3", "-7", "0755", ".5", "4.", ".inf", "9" * 5000)]
    assert all(node.is_number for node in nodes)
    assert [node.raw for node in nodes[:6]] == ["4.50", "1e3", "-7", "0755", ".5", "4."]


def test_every_node_knows_its_line_and_field() -> None:
    top = read_yaml("a:\n  b:\n    - x\n    - {c: y}\n", file="p.yaml")
    leaf = top.fields["a"].fields["b"].items[1].fields["c"]
    assert (leaf.value, leaf.place.line, leaf.place.field) == ("y", 4, "a.b[1].c")
    assert leaf.where == "p.yaml:4: a.b[1].c"
    assert (top.fields["a"].place.line, top.fields["a"].fields["b"].place.line) == (1, 2)


HOSTILE = {
    "deep lists": "[" * 100_000,
    "deep mappings": "{a: " * 5_000,
    "deep blocks": "- " * 100_000,
    "many values": "[" + "1," * 300_000 + "]",
    "long": "a" * (1 << 20 | 1),
    "laughs": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    "escape": '"\\UFFFFFFFF"',
    "surrogate": '"\\ud800"',
    "NUL": '"\\0"',
    "version": "%YAML 1." + "9" * 5_000 + "\n---\na",
    "tag": "!!python/object/apply:os.system [id]",
    "long key": "k" * 300 + ": x",
    "complex key": "? [a]\n: b",
    "two documents": "a: 1\n---\nb: 2\n",
    "control": "\x1b[2J: x",
    "tabs": "a:\n\t- b",
    "open": "a: [b",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_soon_and_in_one_printable_line(name: str) -> None:
    with within(), pytest.raises(CregraphError) as caught:
        read_yaml(HOSTILE[name], file="p.yaml")
    assert caught.value.message.startswith("p.yaml:")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


def test_a_recipe_whose_references_double_is_refused_soon() -> None:
    gives = "".join(f"  g{i}: $(g{i + 1})$(g{i + 1})\n" for i in range(60)) + "  g60: xx\n"
    files = {"p.yaml": MINIMAL + "with: [mine]\n", "recipes/mine.yaml": f"recipe: mine\ngives:\n{gives}"}
    with within(), pytest.raises(CregraphError, match="expand to too many values"):
        composed(files)


WORDS = ["cre", "extras", "with", "without", "extends", "r", "tag", "adbc", "tarballs", "pip", "null", "true", "4.5", "p.yaml"]
SIGNS = ["$(r.prefix)", "&a", "*a", "#", "|", "?", "!", "é", ": ", "\n", "\n  ", "- ", "[", "]", "{", "}", ",", '"', "'", "\t"]
PIECES = st.sampled_from(WORDS + SIGNS)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join)))
@example("extends: p.yaml\n")
@example("cre.tag: v1\n")
@example("cre: []\nextras: 1\nwith: {a: b}\nwithout: x\n")
@example("with: [[a]]\n")
@example("extends: \x00\n")
def test_any_profile_gives_a_composition_or_a_refusal(text: str) -> None:
    for profile in (text, MINIMAL + text):
        try:
            composed(profile)
        except CregraphError as error:
            assert error.message


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(
            PIECES,
            st.sampled_from(
                ["params", "steps", "gives", "env", "checks", "needs", "type: text", "default: a", "from: a.b", "$(", ")"]
            ),
        ),
        max_size=40,
    ).map("".join)
)
def test_any_recipe_gives_a_composition_or_a_refusal(text: str) -> None:
    for recipe in (text, f"recipe: mine\n{text}"):
        try:
            composed({"p.yaml": MINIMAL + "with: [mine]\n", "recipes/mine.yaml": recipe})
        except CregraphError as error:
            assert error.message


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_an_example_with_any_line_damaged_is_composed_or_refused(data: st.DataObject) -> None:
    lines = (ROOT / "examples" / "multilang_r.yaml").read_text(encoding="utf-8").splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = data.draw(
        st.sampled_from(["", lines[at] + ":", lines[at][2:], "  " + lines[at], lines[at].replace(":", ""), "- x", "a: b"])
    )
    try:
        composed("\n".join(lines))
    except CregraphError as error:
        assert error.message


def test_extras_add_to_the_parents_and_parameters_replace() -> None:
    files = {
        "base.yaml": MINIMAL + "extras: {conda_r: [r-a], pip: [x]}\nr: {packages: [r-one, r-two]}\n",
        "p.yaml": "extends: base.yaml\nextras: {conda_r: [r-b]}\nr: {packages: [r-three]}\n",
    }
    found = composed(files)
    assert r_specs(found) == ["r-base =4.5.2", "r-three", "r-a", "r-b"]
    assert found.stage("r").steps[0].where["specs[2]"] == "base.yaml:2: extras.conda_r[0]"
    assert found.stage("r").steps[0].where["specs[3]"] == "p.yaml:2: extras.conda_r[0]"
    assert found.stage("python").steps[0].fields["requirements"][-1] == "x"
    assert found.profile.files == ("base.yaml", "p.yaml")


def test_tarballs_of_a_child_replace_the_parents_by_name() -> None:
    files = {
        "base.yaml": MINIMAL + "tarballs: {aa: 'https://x.example/aa_1.tar.gz', bb: 'https://x.example/bb_1.tar.gz'}\n",
        "p.yaml": "extends: base.yaml\ntarballs: {aa: 'https://x.example/aa_2.tar.gz'}\n",
        "q.yaml": "extends: base.yaml\ntarballs: {aa: null}\n",
    }
    assert composed(files).stage("tarballs").steps[0].fields["packages"] == {
        "aa": "https://x.example/aa_2.tar.gz",
        "bb": "https://x.example/bb_1.tar.gz",
    }
    assert composed(files, "q.yaml").stage("tarballs").steps[0].fields["packages"] == {"bb": "https://x.example/bb_1.tar.gz"}


def test_a_parents_label_is_not_inherited_by_a_file_that_states_its_own() -> None:
    base = 'cre: {tag: v1, version_label: v1.2026, r_version: "4.5.2", snowbooks_tag: "2.5.0"}\n'
    stated = composed({"base.yaml": base, "p.yaml": "extends: base.yaml\ncre: {tag: v2}\n"})
    assert (stated.profile.tag, stated.profile.label, stated.env["SFNB_CRE_VERSION"]) == ("v2", "v2", "v2")
    silent = composed({"base.yaml": base, "p.yaml": "extends: base.yaml\ncre: {name: other}\n"})
    assert (silent.profile.tag, silent.profile.label) == ("v1", "v1.2026")
    labelled = composed({"base.yaml": base, "p.yaml": "extends: base.yaml\ncre: {version_label: v3}\n"})
    assert (labelled.profile.tag, labelled.profile.label) == ("v3", "v3")


def test_a_chain_of_parents_is_read_from_the_farthest_and_paths_start_beside_each_file() -> None:
    files = {
        "a/base.yaml": MINIMAL + "extras: {pip: [one]}\n",
        "a/b/middle.yaml": "extends: ../base.yaml\nextras: {pip: [two]}\n",
        "p.yaml": "extends: a/b/middle.yaml\nextras: {pip: [three]}\n",
    }
    found = composed(files)
    assert found.profile.files == ("a/base.yaml", "a/b/middle.yaml", "p.yaml")
    assert found.stage("python").steps[0].fields["requirements"][-3:] == ["one", "two", "three"]


def test_stages_are_switched_off_and_on_again_down_the_chain() -> None:
    files = {
        "base.yaml": MINIMAL.replace("tag: v1", "tag: v1, adbc: false") + "without: [tarballs]\n",
        "p.yaml": "extends: base.yaml\nwith: [adbc, tarballs]\ntarballs: {zoo: ./zoo}\n",
        "q.yaml": "extends: base.yaml\ncre: {adbc: true}\n",
    }
    assert [s.name for s in composed(files, "base.yaml").stages] == ["snowbooks", "micromamba", "r", "cran", "python", "hook"]
    assert len(composed(files).stages) == 8
    assert [s.name for s in composed(files, "q.yaml").stages][4] == "adbc"


def test_what_a_parent_states_for_a_stage_that_a_child_switches_off_is_let_be() -> None:
    files = {
        "base.yaml": MINIMAL + "tarballs: {zoo: ./zoo}\nadbc: {version: 1.11.0}\n",
        "p.yaml": "extends: base.yaml\nwithout: [tarballs]\ncre: {adbc: false}\n",
    }
    assert {"tarballs", "adbc"}.isdisjoint(stage.name for stage in composed(files).stages)


def test_a_list_whose_items_are_all_commented_out_changes_nothing() -> None:
    found = composed(MINIMAL + "extras:\n  conda_r:\n  # - r-sf\nr:\n  packages:\n  # - r-one\n")
    assert r_specs(found) == r_specs(composed(MINIMAL))


def test_names_that_are_not_stated_come_from_the_files() -> None:
    profile = composed({"teams/geo.yaml": MINIMAL}, "teams/geo.yaml").profile
    assert (profile.name, profile.image, profile.cre_name, profile.label) == ("geo", "geo", "geo", "v1")
    assert composed({"my-team.yaml": MINIMAL}, "my-team.yaml").profile.cre_name == "my_team"


def test_stages_may_set_one_variable_alike() -> None:
    files = {"p.yaml": MINIMAL + "with: [mine]\n", "recipes/mine.yaml": "recipe: mine\nenv: {TZ: UTC}\n"}
    assert composed(files).env["TZ"] == "UTC"


def test_composing_twice_gives_the_same() -> None:
    one, two = (composed(MINIMAL) for _ in range(2))
    assert [stage.steps for stage in one.stages] == [stage.steps for stage in two.stages]
