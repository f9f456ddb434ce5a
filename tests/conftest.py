"""Options and fixtures that all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine_names import remove_ours
from tests.faults import cold, made, own, running, server  # noqa: F401
from tests.real_project import RealProject
from tests.world import World
from tests.world.needed import needed

REQUIRE_DOCKER = os.environ.get("CREGRAPH_REQUIRE_DOCKER") == "1"


# A shell ignores some signals for what it puts into the background, and children inherit that: tests of Ctrl-C would wait.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files from what the code gives now")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Docker tests skip where there is no engine, saying so, unless CREGRAPH_REQUIRE_DOCKER=1 asks for them."""
    missing = [name for name in ("DOCKER_HOST", "CREGRAPH_TEST_REGISTRY") if not os.environ.get(name)]
    for item in items:
        # One engine: images that come and go in one worker disturb a load in another.
        if item.get_closest_marker("docker") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("real"))
        if missing and item.get_closest_marker("docker") and not REQUIRE_DOCKER:
            item.add_marker(pytest.mark.skip(reason=f"no Docker engine for tests: {' and '.join(missing)} not set"))


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the user's machine is set to must not reach a test."""
    for name in ("CREGRAPH_CACHE", "CREGRAPH_SOURCES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))


@pytest.fixture(scope="session", autouse=True)
def _engines_are_left_as_they_were() -> Iterator[None]:
    yield
    if os.environ.get("DOCKER_HOST"):
        remove_ours()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare with a file under tests/golden; `--update-golden` rewrites it."""
    return Golden(update=bool(request.config.getoption("--update-golden")))


class Golden:
    def __init__(self, *, update: bool) -> None:
        self.folder = Path(__file__).parent / "golden"
        self.update = update

    def check(self, name: str, text: str) -> None:
        path = self.folder / name
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no golden file {name}; run pytest --update-golden and read the diff"
        assert text == path.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def world() -> World:
    """The real world; tests that need it skip, saying why, where it cannot be made."""
    return needed()


@pytest.fixture(scope="session")
def built(world: World, tmp_path_factory: pytest.TempPathFactory) -> RealProject:
    """A project whose lock and image were made over HTTP. Tests that change it copy it first."""
    project = RealProject.make(tmp_path_factory.mktemp("real") / "project", world)
    with world.serve() as served:
        project.route(served.address)
        project.ok("lock", "team.yaml")
        project.ok("build", "team.yaml", "--output", "oci:image")
    project.route(None)
    return project


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes and functions have no name that is the same in every worker; they go by their argument's."""
    return argname if isinstance(val, bytes) or callable(val) else None
