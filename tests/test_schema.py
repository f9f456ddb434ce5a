"""The committed schema is the one that the recipes give, and agrees with what composing says."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
import yaml

from cregraph.profile.recipe import Recipe
from cregraph.profile.stated import Stated
from cregraph.profile.switches import STANDARD
from cregraph.profile.yaml_reader import read_yaml
from tests.composing import MINIMAL, ROOT, composed, example
from tests.profile_schema import profile_schema, schema_text

COMMITTED = ROOT / "docs" / "profile.schema.json"


def standard_recipes() -> tuple[Recipe, ...]:
    """Those of an image unless its profile says otherwise, and `base`."""
    other = composed(f"cre: {{tag: v1}}\nwithout: [{', '.join(STANDARD)}]\nwith: [base]\nbase: {{image: x}}\n")
    return (*composed(MINIMAL).recipes, *other.recipes)


def validator(*recipes: Recipe) -> Any:
    return jsonschema.Draft202012Validator(profile_schema(recipes or standard_recipes()))


def test_the_committed_schema_is_what_the_recipes_give(request: pytest.FixtureRequest) -> None:
    text = schema_text(standard_recipes())
    if request.config.getoption("--update-golden"):
        COMMITTED.write_text(text, encoding="utf-8")
    assert COMMITTED.read_text(encoding="utf-8") == text, "run pytest --update-golden tests/test_schema.py"


def test_the_schema_is_one_of_2020_12() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(COMMITTED.read_text(encoding="utf-8")))


def test_the_order_of_the_recipes_never_shows() -> None:
    recipes = standard_recipes()
    for seed in range(10):
        assert schema_text(random.Random(seed).sample(recipes, k=len(recipes))) == schema_text(recipes)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "examples").glob("*.yaml")))
def test_the_examples_are_valid(name: str) -> None:
    read = yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text(encoding="utf-8"))
    validator().validate(read)
    validator(*example(name).recipes).validate(read)


def test_a_teams_recipe_brings_its_section() -> None:
    schema = profile_schema(example("geo").recipes)
    assert schema["properties"]["duckdb"]["properties"]["version"]["type"] == ["string", "null"]
    assert list(validator(*example("geo").recipes).iter_errors({"duckdb": {"verson": "1"}}))


def test_every_field_of_every_stage_is_there() -> None:
    properties = profile_schema(standard_recipes())["properties"]
    assert set(properties) == {"extends", "with", "without", "cre", "snowflake", "extras", "base", *STANDARD}
    assert sorted(properties["extras"]["properties"]) == ["conda_r", "cran", "cran_binaries", "cran_snapshot", "pip"]
    assert sorted(properties["cre"]["properties"]) == [
        "adbc",
        "base_image_type",
        "image",
        "name",
        "r_version",
        "runtime_config",
        "snowbooks_tag",
        "tag",
        "version_label",
    ]


def loaded(node: Stated) -> Any:
    if node.is_mapping:
        return {key: loaded(item) for key, item in node.fields.items()}
    return [loaded(item) for item in node.items] if node.is_list else node.value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "extras:\ntarballs:\nwith:\nwithout: []\n",
        "extras: {cran_snapshot: 2025-06-01, pip:, conda_r: [r-a], cran: []}\n",
        "snowbooks: {build_root: null, image: 'oci:./base'}\n",
        "tarballs: {zoo: ./zoo, xts: null}\n",
        "snowflake: {registry_url: x.example, image_repo_path: a/b/c}\n",
        "with: [adbc]\nadbc: {version: 1.11.0}\nmicromamba: {channels: [a, b]}\n",
        "without: [tarballs]\nextends: null\n",
    ],
)
def test_an_editor_finds_no_fault_with_what_composes(text: str) -> None:
    assert composed(MINIMAL + text).stages
    validator().validate(loaded(read_yaml(MINIMAL + text, file="p.yaml")))


@pytest.mark.parametrize(
    "wrong",
    [
        {"cre": {"r_version": 4.5}},
        {"cre": {"r_verson": "4.5"}},
        {"cre": {"adbc": "yes"}},
        {"cre": {"base_image_type": "TPU"}},
        {"extras": {"pip": "x"}},
        {"extras": {"cran_snapshot": "yesterday"}},
        {"tarballs": ["x"]},
        {"with": "duckdb"},
        {"duckdb": "1.4"},
    ],
    ids=json.dumps,
)
def test_an_editor_is_told(wrong: dict[str, Any]) -> None:
    assert list(validator().iter_errors(wrong))
