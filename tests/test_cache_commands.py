"""What commands say of a remote cache: names that are none and what a plan counts on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small_registry import SmallRegistry
from tests.test_push import Machine


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's project, locked, its store empty."""
    folder = tmp_path_factory.mktemp("cached") / "demo"
    subprocess.run([sys.executable, "-m", "cregraph", "demo", str(folder)], check=True, capture_output=True)
    for made in ("cache", "image"):
        shutil.rmtree(folder / made)
    (folder / "cache").mkdir()
    return folder


@pytest.fixture
def registry() -> Iterator[SmallRegistry]:
    with SmallRegistry() as small:
        yield small


def machine(demo: Path, folder: Path, registry: SmallRegistry) -> Machine:
    shutil.copytree(demo, folder, symlinks=True)
    with (folder / "sources.yaml").open("a") as sources:
        sources.write(
            f"cache: {{team: {{ref: {registry.host}/team/cache, trusted: true}}, loose: {registry.host}/team/cache2}}\n"
        )
    return Machine(folder=folder)


def test_a_cache_to_write_to_that_is_none_is_said_before_anything_is_made(
    demo: Path, registry: SmallRegistry, tmp_path: Path
) -> None:
    here = machine(demo, tmp_path / "here", registry)
    done = here.run("build", "demo.yaml", "--cache-write", "teem")

    assert done.code == 2
    assert "`--cache-write teem`: does not name a cache" in done.err and "write `team` instead" in done.err
    assert not list((here.folder / "cache").glob("segments/*"))


def test_a_plan_counts_on_what_a_build_then_takes(demo: Path, registry: SmallRegistry, tmp_path: Path) -> None:
    machine(demo, tmp_path / "ci", registry).ok("build", "demo.yaml", "--cache-write", "team")
    here = machine(demo, tmp_path / "here", registry)
    asked = len(registry.asked)
    alone = json.loads(here.ok("plan", "demo.yaml", "--json").out)
    assert (alone["cache"], len(registry.asked)) == (None, asked)
    assert alone["fetch"]["files"]

    plan = json.loads(here.ok("plan", "demo.yaml", "--cache", "team", "--json").out)
    shown = here.ok("plan", "demo.yaml", "--cache", "team").out
    assert not list((here.folder / "cache").glob("segments/*"))  # it only asked
    built = json.loads(here.ok("build", "demo.yaml", "--cache", "team", "--json").out)["images"][0]["cache"]["read"]
    assert {name: plan["cache"][name] for name in ("tasks", "segments", "bytes")} == {
        name: built[name] for name in ("tasks", "segments", "bytes")
    }
    assert (plan["fetch"]["files"], plan["segments"]["make"]) == ([], [])
    assert {row["what"] for row in plan["things"] if row["subject"] == "segment"} == {"cache"}
    assert f"all {built['segments']} are here or in {registry.host}/team/cache" in shown


def test_a_plan_says_which_cache_has_nothing_or_does_not_answer(demo: Path, registry: SmallRegistry, tmp_path: Path) -> None:
    here = machine(demo, tmp_path / "here", registry)
    assert (
        f"{registry.host}/team/cache2 has nothing that is missing here; not"
        in here.ok("plan", "demo.yaml", "--cache", "loose").out
    )
    with SmallRegistry() as gone:
        host = gone.host
    done = here.ok("plan", "demo.yaml", "--cache", f"{host}/x")
    assert f"{host}/x does not respond: skipped" in done.out
    assert here.run("plan", "demo.yaml", "--cache", "teem").code == 2


def test_a_plan_of_what_is_built_says_that_all_is_here(demo: Path, registry: SmallRegistry, tmp_path: Path) -> None:
    here = machine(demo, tmp_path / "here", registry)
    assert "all 24 to make" in here.ok("plan", "demo.yaml").out
    here.ok("build", "demo.yaml")
    shown = here.ok("plan", "demo.yaml").out
    assert "  segments  none to make: all 24 are here\n  tasks     none\n  fetch     no file\n" in shown


@pytest.mark.parametrize(("auth", "said"), [("basic", "login required"), ("scoped", "team/cache")])
def test_a_cache_that_refuses_the_login_is_refused_before_the_first_download_and_the_hint_works(
    demo: Path, tmp_path: Path, auth: str, said: str
) -> None:
    with SmallRegistry(auth) as registry:
        registry.closed = {"team/cache"}
        here = machine(demo, tmp_path / "here", registry)
        done = here.run("build", "demo.yaml", "--cache-write", "team")

    assert (done.code, done.out) == (2, ""), done.err
    assert "error: `--cache-write team`: " in done.err and said in done.err
    assert not list((here.folder / "cache").glob("segments/*"))
    assert "build without `--cache-write`" in done.err
    here.ok("build", "demo.yaml")
