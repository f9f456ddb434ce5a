"""Stages stand after what they need, in one order only."""

from __future__ import annotations

import graphlib
import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cregraph.profile.compose import ordered

GRAPHS = st.dictionaries(st.sampled_from("abcdefgh"), st.sets(st.sampled_from("abcdefgh"), max_size=4), max_size=8).map(
    lambda graph: {name: {need for need in needs if need in graph} for name, needs in graph.items()}
)


def test_every_name_stands_after_its_needs_and_ties_follow_the_given_list_then_the_name() -> None:
    needs = {"z": ["base"], "hook": ["python"], "python": ["base"], "base": [], "a": ["base"], "r": ["base"]}
    assert ordered(needs, first=("base", "r", "python", "hook")) == ("base", "r", "python", "hook", "a", "z")


def test_the_order_in_which_a_graph_is_written_never_shows() -> None:
    needs = {name: [n for n in "abcdefgh" if n < name][::2] for name in "abcdefgh"}
    items = list(needs.items())
    for seed in range(20):
        shuffled = random.Random(seed).sample(items, k=len(items))
        assert ordered({name: wanted[::-1] for name, wanted in shuffled}) == ordered(needs)


@given(GRAPHS)
def test_a_graph_has_either_an_order_or_a_cycle(graph: dict[str, set[str]]) -> None:
    try:
        order = ordered(graph)
    except graphlib.CycleError as error:
        path = error.args[1][::-1]
        assert path[0] == path[-1]
        assert all(b in graph[a] for a, b in pairwise(path))
    else:
        assert sorted(order) == sorted(graph)
        assert all(order.index(need) < order.index(name) for name in graph for need in graph[name])


def test_a_long_chain_needs_no_recursion() -> None:
    chain = {f"n{i}": [f"n{i + 1}"] for i in range(2000)} | {"n2000": []}
    assert ordered(chain)[0] == "n2000"
