"""The test suite itself: what it says about tests that it skips."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def suite(*words: str) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CREGRAPH_", "DOCKER_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=True).stdout


def test_the_last_line_counts_the_skipped_tests_by_reason(tmp_path: Path) -> None:
    """Without an engine and without `--environment`, each test of these two files is skipped for its own reason."""
    last = suite("tests/test_real_vendor.py", "tests/test_export_docker.py").splitlines()[-1]
    assert last.startswith("skipped: ")
    counts = {
        reason: int(count) for count, _, reason in (part.partition(" ") for part in last.removeprefix("skipped: ").split("; "))
    }
    assert counts["the test environment was not asked for: make test-all"] > 3


def test_tests_that_passed_elsewhere_are_left_out(tmp_path: Path) -> None:
    passed = tmp_path / "passed"
    suite("tests/test_text.py", "--passed-to", str(passed))
    names = passed.read_text(encoding="utf-8").splitlines()
    assert names and all(name.startswith("tests/test_text.py::") for name in names)
    passed.write_text("".join(f"{name}\n" for name in names[1:]), encoding="utf-8")
    again = tmp_path / "again"
    suite("tests/test_text.py", "--without", str(passed), "--passed-to", str(again))
    assert again.read_text(encoding="utf-8").splitlines() == names[:1]
