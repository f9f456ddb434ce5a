"""The graph of stages: names and what each needs. Pure."""

from __future__ import annotations

import graphlib
import heapq
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["find_cycle", "ordered"]


def ordered(needs: Mapping[str, Iterable[str]], *, first: Sequence[str] = ()) -> tuple[str, ...]:
    """Return all names, each after what it needs; among those that could be next as in `first`, then by name.

    The order of `needs` and of what a name needs never shows.

    Raises:
        ValueError: The graph has a cycle. Call `find_cycle` before to describe it.
        KeyError: A need is not a name of `needs`.
    """
    for name in {need for wanted in needs.values() for need in wanted} - needs.keys():
        raise KeyError(name)
    rank = {name: index for index, name in enumerate(first)}
    sorter = graphlib.TopologicalSorter(needs)
    sorter.prepare()
    order: list[str] = []
    ready: list[tuple[int, str]] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, (rank.get(name, len(rank)), name))
        order.append(heapq.heappop(ready)[1])
        sorter.done(order[-1])
    return tuple(order)


def find_cycle(needs: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return a path that ends where it begins (`a b c a`: a needs b, b needs c, c needs a), or `()` if there is none.

    The same graph gives the same path, which begins at its least name. Needs that are not a name of `needs` are passed over.
    """
    try:
        graphlib.TopologicalSorter({name: sorted(set(needs[name]) & needs.keys()) for name in sorted(needs)}).prepare()
    except graphlib.CycleError as error:
        loop = error.args[1][:0:-1]  # graphlib lists it from needed to needing, and the first name twice
        least = loop.index(min(loop))
        return (*loop[least:], *loop[:least], loop[least])
    return ()
