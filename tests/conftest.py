"""Options and fixtures that all tests share."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.engine_names import remove_ours
from tests.environment import Environment
from tests.environment.needed import needed
from tests.faults import cold, made, own, running, server  # noqa: F401
from tests.real_project import RealProject

#: pytest-xdist adds the group of a test to its id.
_GROUP = re.compile(r"@(docker|environment)$")
REQUIRE_DOCKER = os.environ.get("CREGRAPH_REQUIRE_DOCKER") == "1"


# A shell ignores some signals for what it puts into the background, and children inherit that: tests of Ctrl-C would wait.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files from what the code gives now")
    parser.addoption("--environment", action="store_true", help="make the test environment and run the tests that need it")
    parser.addoption("--proofs", action="store_true", help="run the long series only: tests marked proofs")
    parser.addoption("--passed-to", metavar="FILE", help="write the ids of the tests that passed to FILE")
    parser.addoption("--without", metavar="FILE", help="leave out the tests whose ids are in FILE; write --without=FILE")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs Docker or the test environment, with the reason, unless it is here or CI requires it."""
    if not items:
        return
    config = items[0].config
    long = config.getoption("--proofs")
    config.hook.pytest_deselected(items=[item for item in items if bool(item.get_closest_marker("proofs")) != long])
    items[:] = [item for item in items if bool(item.get_closest_marker("proofs")) == long]
    if listed := config.getoption("--without"):
        passed = set(Path(listed).read_text(encoding="utf-8").splitlines())
        items[:] = [item for item in items if item.nodeid not in passed]
    missing = [name for name in ("DOCKER_HOST", "CREGRAPH_TEST_REGISTRY") if not os.environ.get(name)]
    for item in items:
        environment = item.get_closest_marker("environment") or "environment" in getattr(item, "fixturenames", ())
        if environment and not item.config.getoption("--environment"):
            item.add_marker(pytest.mark.skip(reason="the test environment was not asked for: make test-all"))
        # One engine: images that come and go in one worker disturb a load in another. One project of the test environment, too.
        group = "docker" if item.get_closest_marker("docker") else "environment" if environment else None
        if group and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))
        if missing and item.get_closest_marker("docker") and not REQUIRE_DOCKER:
            item.add_marker(pytest.mark.skip(reason=f"no Docker engine for tests: {' and '.join(missing)} not set"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the engines as they were. Write the tests that passed, and as the last line how many were skipped why."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    if os.environ.get("DOCKER_HOST"):
        remove_ours()
    if listed := config.getoption("--passed-to"):
        failed = {report.nodeid for report in reporter.stats.get("error", ())}
        passed = {report.nodeid for report in reporter.stats.get("passed", ())} - failed
        Path(listed).write_text("".join(_GROUP.sub("", test) + "\n" for test in sorted(passed)), encoding="utf-8")
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reporter.stats.get("skipped", ()))
    if reasons:
        reporter.write_line("skipped: " + "; ".join(f"{count} {reason}" for reason, count in reasons.most_common()))


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the user's machine is set to must not reach a test."""
    for name in ("CREGRAPH_CACHE", "CREGRAPH_SOURCES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))


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
def environment() -> Environment:
    """The test environment; tests that need it skip, saying why, where it cannot be made."""
    return needed()


@pytest.fixture(scope="session")
def built(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> RealProject:
    """A project whose lock and image were made over HTTP. Tests that change it copy it first. All workers share it."""
    common = tmp_path_factory.getbasetemp()
    common = common.parent if "PYTEST_XDIST_WORKER" in os.environ else common
    folder = common / "real" / "project"
    with (common / "real.lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (common / "real.made").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            project = RealProject.make(folder, environment)
            with environment.serve() as served:
                project.route(served.address)
                project.ok("lock", "team.yaml")
                project.ok("build", "team.yaml", "--output", "oci:image")
            project.route(None)
            (common / "real.made").touch()
    return RealProject(folder=folder, environment=environment, env={"CREGRAPH_CACHE": str(folder / "cache")})


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes and functions have no name that is the same in every worker; they go by their argument's."""
    return argname if isinstance(val, bytes) or callable(val) else None
