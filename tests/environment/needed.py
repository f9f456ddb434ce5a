"""The test environment as tests ask for it."""

from __future__ import annotations

import os
from functools import cache

import pytest

from .environment import Environment, make
from .parts import EnvironmentUnavailable


@cache
def _made() -> Environment | EnvironmentUnavailable:
    try:
        return make()
    except EnvironmentUnavailable as why:
        return why


def needed() -> Environment:
    """Return the environment. Skip the test with the reason if this machine cannot make it, or fail if CI requires it."""
    made = _made()
    if isinstance(made, Environment):
        return made
    if os.environ.get("CREGRAPH_REQUIRE_ENVIRONMENT") == "1":
        pytest.fail(f"the test environment cannot be made here: {made}", pytrace=False)
    pytest.skip(f"the test environment cannot be made here: {made}")
