"""The committed recipes and examples ask for what the reference stack is made of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cregraph.kinds import KINDS
from cregraph.kinds.base import PlaceContext
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact, Pin
from cregraph.lock.staleness import group
from cregraph.profile.compose import Composition
from cregraph.profile.recipe import read_recipe
from cregraph.profile.switches import STANDARD
from tests.composing import MINIMAL, ROOT, composed, example, refusal, standard

PREFIX = "/home/jupyter/micromamba/envs/workspace_env"
LIBRARY = f"{PREFIX}/lib/R/library"
CORE_SPECS = [
    "r-cli",
    "r-rlang >=1.0.0",
    "r-reticulate >=1.34",
    "r-tidyverse",
    "r-dbplyr",
    "r-httr2 >=1.0.0",
    "r-lazyeval",
    "r-dbi >=1.2.0",
    "r-jsonlite",
    "r-dplyr >=1.1.0",
    "zlib",
    "liblzma-devel",
]
TARBALLS = {
    "snowflakeR": "https://github.com/Snowflake-Labs/snowflakeR/releases/download/v0.1.0/snowflakeR_0.1.0.tar.gz",
    "RSnowflake": "https://github.com/Snowflake-Labs/RSnowflake/releases/download/v0.2.0/RSnowflake_0.2.0.tar.gz",
}


def fields(composition: Composition, stage: str, kind: str) -> list[dict[str, object]]:
    return [dict(step.fields) for step in composition.stage(stage).steps if step.kind == kind]


def test_the_seeds_profile_composes_to_the_right_asks() -> None:
    team = example("my_team")
    assert tuple(stage.name for stage in team.stages) == STANDARD
    assert fields(team, "snowbooks", "image") == [
        {
            "registry": "snowflake",
            "folder": "snowflake/images/snowflake_images",
            "repositories": ["container_runtime/cpu_x86_64", "st_plat/runtime/x86/runtime_image/snowbooks"],
            "tag": "2.5.0",
            "build_root": "docker.io/library/debian:11-slim",
        }
    ]
    assert fields(team, "micromamba", "conda") == [
        {"prefix": "/home/jupyter/micromamba", "specs": ["micromamba 2.*"], "channels": ["conda-forge"]}
    ]
    assert fields(team, "r", "conda") == [
        {
            "prefix": PREFIX,
            "specs": ["r-base =4.5.2", *CORE_SPECS, "r-fable=0.4.0", "r-lme4=1.1-35"],
            "channels": ["conda-forge"],
        }
    ]
    assert fields(team, "cran", "r") == [{"library": LIBRARY, "from": "cran", "packages": []}]
    assert fields(team, "tarballs", "r") == [{"library": LIBRARY, "from": "cran", "packages": TARBALLS}]
    assert fields(team, "adbc", "conda") == [
        {
            "prefix": PREFIX,
            "specs": ["libadbc-driver-snowflake *", "r-nanoarrow >=0.3"],
            "channels": ["conda-forge"],
        }
    ]
    assert [step["packages"] for step in fields(team, "adbc", "r")] == [
        ["adbcdrivermanager"],
        {"adbcsnowflake": "standard:adbc/adbcsnowflake"},
    ]
    assert fields(team, "python", "python") == [
        {
            "into": "$(snowbooks.python)",
            "requirements": ["rpy2 >=3.5,<4", "tabulate", "rpy2>=3.5,<4", "tabulate>=0.9"],
            "build": {
                "conda": {"prefix": PREFIX, "specs": ["r-base"], "channels": ["conda-forge"]},
                "env": {"R_HOME": f"{PREFIX}/lib/R", "RPY2_CFFI_MODE": "API"},
            },
        }
    ]


def test_the_seeds_files_marks_and_variables_are_there() -> None:
    team = example("my_team")
    files = {
        at: {key: value for key, value in step.fields.items() if key != "at"}
        for stage in team.stages
        for step in stage.steps
        if step.kind == "file"
        for at in step.fields["at"]
    }
    assert files == {
        "/root/micromamba": {"link": "/home/jupyter/micromamba"},
        "/home/jupyter/.workspace_env_prefix": {"text": f"{PREFIX}\n", "owner": "jupyter"},
        "/root/.workspace_env_prefix": {"text": f"{PREFIX}\n"},
        "/var/db/timezone/localtime": {"link": "/usr/share/zoneinfo/UTC"},
        "/home/jupyter/.ipython/profile_default/startup/00-sfnb-enable-r.py": {
            "from": "standard:hook/00-sfnb-enable-r.py",
            "owner": "jupyter",
        },
        "/root/.ipython/profile_default/startup/00-sfnb-enable-r.py": {"from": "standard:hook/00-sfnb-enable-r.py"},
        "/opt/sfnb/helpers": {"from": "standard:hook/helpers"},
        "/opt/sfnb/config/cre_multilang_r.yaml": {"from": "standard:hook/cre_multilang_r.yaml"},
        "/opt/sfnb/CRE_VERSION": {"text": "v1.20260529\n"},
    }
    assert team.env == {
        "MAMBA_ROOT_PREFIX": "/home/jupyter/micromamba",
        "SFNB_CONFIG_PATH": "/opt/sfnb/config/cre_multilang_r.yaml",
        "SFNB_CRE_ADBC": "1",
        "SFNB_CRE_VERSION": "v1.20260529",
        "SFNB_CUSTOM_RUNTIME": "1",
        "SFNB_ENV_NAME": "workspace_env",
        "SFNB_HELPERS_PATH": "/opt/sfnb/helpers",
        "SFNB_MICROMAMBA_ROOT": "/home/jupyter/micromamba",
        "TZ": "UTC",
    }
    assert [(stage.name, check["kind"], check["code"]) for stage in team.stages for check in stage.checks] == [
        ("adbc", "r", ["adbcsnowflake::adbcsnowflake()"]),
        ("hook", "kernel", ["%%R\ncat(R.version.string)"]),
    ]


def test_the_seeds_profile_names_the_image() -> None:
    profile = example("my_team").profile
    assert (profile.name, profile.image, profile.tag, profile.label, profile.cre_name, profile.base_type) == (
        "my_team",
        "sfnb-multilang-r",
        "v1.20260529",
        "v1.20260529",
        "my_team_multilang_r",
        "CPU",
    )
    assert (profile.registry_url, profile.image_repo_path) == (None, None)


def test_every_value_names_the_line_that_stated_it() -> None:
    team = example("my_team")
    (conda,) = [step for step in team.stage("r").steps if step.kind == "conda"]
    assert conda.where["specs[0]"] == "examples/my_team.yaml:6: cre.r_version"
    assert conda.where["specs[3]"] == "recipes/r.yaml:13: packages[2]"
    assert conda.where["specs[14]"] == "examples/my_team.yaml:16: extras.conda_r[1]"
    assert conda.place_of("channels[0]") == "recipes/micromamba.yaml:7: channels[0]"
    (tarballs,) = team.stage("tarballs").steps
    assert tarballs.place_of("packages.RSnowflake") == "examples/my_team.yaml:11: tarballs.RSnowflake"
    (python,) = team.stage("python").steps
    assert python.place_of("requirements[3]") == "examples/my_team.yaml:20: extras.pip[1]"
    assert python.place_of("into") == "recipes/python.yaml:9: steps[0].python.into"
    assert conda.where[""] == "recipes/r.yaml:25: steps[0]"


def test_the_reference_stack_composes_to_the_right_asks() -> None:
    reference = example("multilang_r")
    assert tuple(stage.name for stage in reference.stages) == STANDARD
    (conda,) = fields(reference, "r", "conda")
    assert conda["specs"] == ["r-base =4.5.2", *CORE_SPECS]
    assert fields(reference, "tarballs", "r")[0]["packages"] == TARBALLS
    assert fields(reference, "python", "python")[0]["requirements"] == [
        "rpy2 >=3.5,<4",
        "tabulate",
        "rpy2>=3.5,<4",
        "tabulate>=0.9",
    ]
    assert reference.profile.image_repo_path == "mydb/myschema/my_cre_images"
    assert reference.profile.registry_url == "myorg-myaccount.registry.snowflakecomputing.com"
    assert reference.env["SFNB_CRE_VERSION"] == "v1"


def test_a_teams_recipe_and_an_extending_profile_compose_to_the_right_asks() -> None:
    geo = example("geo")
    names = ["snowbooks", "micromamba", "r", "cran", "tarballs", "python", "hook", "duckdb"]
    assert [stage.name for stage in geo.stages] == names
    (image,) = fields(geo, "snowbooks", "image")
    assert (image["tag"], image["cuda"]) == ("2.9.0", "12.8")
    assert image["repositories"] == [
        "container_runtime/gpu_x86_64",
        "st_plat/runtime/x86/generic_gpu/runtime_image/snowbooks",
    ]
    (conda,) = fields(geo, "r", "conda")
    assert conda["specs"] == ["r-base =4.5.2", *CORE_SPECS, "r-fable=0.4.0", "r-lme4=1.1-35", "r-sf"]
    assert fields(geo, "cran", "r") == [{"library": LIBRARY, "from": "cran", "packages": ["survival==3.5-8"]}]
    assert fields(geo, "tarballs", "r")[0]["packages"] == TARBALLS
    assert fields(geo, "duckdb", "conda") == [{"prefix": PREFIX, "specs": ["r-duckdb =1.4.1"], "channels": ["conda-forge"]}]
    assert fields(geo, "duckdb", "python") == [{"into": "$(snowbooks.python)", "requirements": ["duckdb ==1.4.1"]}]
    extension = "duckdb/extensions/v1.4.1/linux_amd64/httpfs.duckdb_extension"
    assert fields(geo, "duckdb", "archive") == [
        {
            "url": "https://extensions.duckdb.org/v1.4.1/linux_amd64/httpfs.duckdb_extension.gz",
            "at": [f"/root/.local/share/R/{extension}", f"/root/.{extension}"],
        }
    ]
    assert (geo.profile.image, geo.profile.label, geo.profile.cre_name, geo.profile.base_type) == (
        "sfnb-multilang-r",
        "v2",
        "geo_r",
        "GPU",
    )
    assert "SFNB_CRE_ADBC" not in geo.env
    assert geo.env["SFNB_CRE_VERSION"] == "v2"


def test_no_build_root_means_the_base_itself() -> None:
    found = composed(MINIMAL + "snowbooks: {build_root: null, image: 'oci:./base'}\n")
    (image,) = fields(found, "snowbooks", "image")
    assert "build_root" not in image
    assert image["reference"] == "oci:./base"


def on(home: str, user: str, more: str = "") -> Composition:
    """The standard stages over another base."""
    base = f"without: [snowbooks]\nwith: [base]\nbase: {{image: 'oci:./base', user: {user}, home: {home}}}\n"
    return composed('cre: {tag: v1, r_version: "4.5.2", adbc: false}\n' + base + more)


def test_another_base_brings_its_user_its_home_and_its_python() -> None:
    found = on("/home/jovyan", "jovyan")
    assert [stage.name for stage in found.stages] == ["base", "micromamba", "r", "cran", "tarballs", "python", "hook"]
    assert (found.stage("micromamba").needs, found.stage("hook").needs) == (("base",), ("base", "python", "r"))
    assert fields(found, "base", "image") == [
        {
            "reference": "oci:./base",
            "build_root": "docker.io/library/debian:11-slim",
            "user": "jovyan",
            "home": "/home/jovyan",
        }
    ]
    assert fields(found, "micromamba", "conda")[0]["prefix"] == "/home/jovyan/micromamba"
    assert fields(found, "python", "python")[0]["into"] == "$(base.python)"
    files = [(place, step.get("owner")) for name in ("r", "hook") for step in fields(found, name, "file") for place in step["at"]]
    assert ("/home/jovyan/.workspace_env_prefix", "jovyan") in files
    assert ("/home/jovyan/.ipython/profile_default/startup/00-sfnb-enable-r.py", "jovyan") in files
    assert not [place for place, _ in files if "/home/jupyter" in place]


def test_over_a_base_whose_home_is_root_no_path_is_declared_twice_and_no_link_leads_to_itself() -> None:
    found = on("/root", "root")
    asks = [ask for stage in found.stages for step in stage.steps for ask in KINDS[step.kind].ask(step)]
    (files,) = [target for target in group(asks, KINDS) if target.kind == "file"]
    assert not [ask for ask in files.asks if ask.what.get("link") in ask.what["at"]]
    facts = BaseFacts(digest="", config={}, layers=(), glibc=None, users={"root": (0, 0, "/root")}, python=None)
    pins = tuple(
        Pin(name=name, version="", artifact=Artifact(kind="path", source=name, file="", sha256="0" * 64, size=1))
        for ask in files.asks
        if (name := ask.what.get("from")) is not None
    )
    context = PlaceContext(assembly=1, facts=facts, build_root="", targets=(), order=())
    places = [one.place["at"] for one in KINDS["file"].place(replace(files, pins=pins), context).segments]
    assert "/root/.workspace_env_prefix" in places
    assert sorted(places) == sorted(set(places))


def test_the_root_of_micromamba_stays_the_profiles_to_say() -> None:
    found = on("/home/jovyan", "jovyan", "micromamba: {root: /opt/conda-r}\n")
    assert fields(found, "micromamba", "conda")[0]["prefix"] == "/opt/conda-r"
    places = [found.stage("micromamba").steps[0].where["prefix"] for found in (example("my_team"), on("/home/x", "x"))]
    assert places == ["recipes/micromamba.yaml:6: root", "p.yaml:4: base.home"]


def test_base_stands_for_the_stage_with_the_image_whatever_its_name() -> None:
    files = {
        "p.yaml": 'cre: {tag: v1, r_version: "4.5.2", adbc: false}\nwithout: [snowbooks]\nwith: [ours]\n',
        "recipes/ours.yaml": "recipe: ours\nsteps:\n- image: {reference: 'oci:base'}\ngives: {user: me, home: /home/me}\n",
    }
    found = composed(files)
    assert found.stages[0].name == "ours"
    assert found.stage("python").needs == ("ours", "r")
    assert fields(found, "python", "python")[0]["into"] == "$(ours.python)"
    assert fields(found, "r", "conda")[0]["prefix"] == "/home/me/micromamba/envs/workspace_env"


def test_a_recipe_with_the_image_that_gives_no_home_is_refused_with_its_name() -> None:
    files = {
        "p.yaml": f"cre: {{tag: v1}}\nwithout: [{', '.join(set(STANDARD) - {'micromamba'})}]\nwith: [ours]\n",
        "recipes/ours.yaml": "recipe: ours\nsteps:\n- image: {reference: 'oci:base'}\n",
    }
    message, hint = refusal(files)
    assert message == "recipes/micromamba.yaml:6: root: stage `ours` gives no `home`"
    assert hint == "add `home` to `gives` of the recipe `ours`"


def test_a_snapshot_reaches_every_stage_that_fills_the_library() -> None:
    found = composed(MINIMAL + "extras: {cran_snapshot: 2025-06-01, cran: [zoo]}\n")
    steps = [step for stage in found.stages for step in stage.steps if step.kind == "r"]
    assert len(steps) == 4
    assert {step.fields["snapshot"] for step in steps} == {"2025-06-01"}


def test_built_packages_are_asked_for_by_every_stage_that_fills_the_library() -> None:
    found = composed(MINIMAL + "extras: {cran_binaries: jammy, cran: [zoo]}\n")
    steps = [step for stage in found.stages for step in stage.steps if step.kind == "r"]
    assert [step.fields["binaries"] for step in steps] == ["jammy"] * 4


def test_channels_replace_the_default_everywhere() -> None:
    found = composed(MINIMAL + "micromamba: {channels: [ours, conda-forge]}\n")
    steps = [step for stage in found.stages for step in stage.steps if step.kind == "conda"]
    assert len(steps) == 3
    assert all(step.fields["channels"] == ["ours", "conda-forge"] for step in steps)
    (python,) = found.stage("python").steps
    assert python.fields["build"]["conda"]["channels"] == ["ours", "conda-forge"]


def test_paths_of_a_profile_lie_beside_it_and_those_of_a_recipe_beside_that() -> None:
    files = {
        "teams/p.yaml": MINIMAL.replace("tag: v1", "tag: v1, runtime_config: ../shared/runtime.yaml")
        + "with: [mine]\ntarballs: {mypkg: ./mypkg, other: other.tar.gz}\n",
        "teams/recipes/mine.yaml": "recipe: mine\nparams: {extra: {type: path, default: ./mine/b}}\n"
        "steps:\n- file: {at: /a, from: ./mine/a}\n- file: {at: /b, from: $(extra)}\n- file: {at: /c, text: ./mine/c}\n",
    }
    found = composed(files, "teams/p.yaml")
    assert [step.fields.get("from", step.fields.get("text")) for step in found.stage("mine").steps] == [
        "./teams/recipes/mine/a",
        "./teams/recipes/mine/b",
        "./mine/c",
    ]
    (tarballs,) = found.stage("tarballs").steps
    assert tarballs.fields["packages"] == {"mypkg": "./teams/mypkg", "other": "./teams/other.tar.gz"}
    runtime = next(s for s in found.stage("hook").steps if s.fields["at"] == ["/opt/sfnb/config/cre_multilang_r.yaml"])
    assert runtime.fields["from"] == "./shared/runtime.yaml"


def test_what_the_recipes_ship_lies_beside_them() -> None:
    found = example("my_team")
    shipped = [s.fields["from"] for stage in found.stages for s in stage.steps if s.kind == "file" and "from" in s.fields]
    shipped.append("standard:adbc/adbcsnowflake")
    for source in shipped:
        assert (ROOT / "recipes" / source.removeprefix("standard:")).exists(), source


@pytest.mark.parametrize("name", [*STANDARD, "base"])
def test_a_standard_recipe_says_what_it_is_for(name: str) -> None:
    found = standard(name)
    assert found is not None
    recipe = read_recipe(found.text, file=found.file, folder=found.folder, name=name, kinds=KINDS)
    assert recipe.about
    assert all(param.about for param in recipe.params)
