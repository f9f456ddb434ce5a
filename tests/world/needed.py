"""The world as tests ask for it."""

from __future__ import annotations

import os
from functools import cache

import pytest

from .parts import WorldUnavailable
from .world import World, make


@cache
def _made() -> World | WorldUnavailable:
    try:
        return make()
    except WorldUnavailable as why:
        return why


def needed() -> World:
    """The world; where it cannot be made the test is skipped with the reason, or fails if $CREGRAPH_REQUIRE_WORLD is 1."""
    made = _made()
    if isinstance(made, World):
        return made
    if os.environ.get("CREGRAPH_REQUIRE_WORLD") == "1":
        pytest.fail(f"the real world cannot be made here: {made}", pytrace=False)
    pytest.skip(f"the real world cannot be made here: {made}")
