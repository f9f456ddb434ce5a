"""How long a graph of jobs will take: run on paper, by the rule that `cregraph.scheduler` runs it by. Pure."""

from __future__ import annotations

import graphlib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Forecast", "Piece", "forecast"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A job on paper: its id, what it needs (ids; those that are not given are done already), seconds, whose slots it takes."""

    id: str
    seconds: float
    needs: tuple[str, ...] = ()
    pool: str = "work"


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """`seconds` until all is done. `chain` are the ids of the longest way, which more slots would not make shorter: `alone`."""

    seconds: float
    alone: float
    chain: tuple[str, ...]


def forecast(pieces: Sequence[Piece], pools: Mapping[str, int]) -> Forecast:
    """Of those that could begin, the one goes first behind which the longest way lies. Raises ValueError for a circle."""
    by_id = {piece.id: piece for piece in pieces}
    graph = {piece.id: [need for need in piece.needs if need in by_id] for piece in pieces}
    order = graphlib.TopologicalSorter(graph)
    try:
        listed = list(order.static_order())
    except graphlib.CycleError as error:
        raise ValueError("pieces need each other in a circle") from error
    way = {piece.id: piece.seconds for piece in pieces}
    after: dict[str, str] = {}
    for one in reversed(listed):
        for need in graph[one]:
            if by_id[need].seconds + way[one] > way[need]:
                way[need], after[need] = by_id[need].seconds + way[one], one
    first = max(listed, key=lambda one: (way[one], one), default=None)
    chain = []
    here = first
    while here is not None:
        chain.append(here)
        here = after.get(here)
    return Forecast(seconds=_run(by_id, graph, way, pools), alone=way[first] if first else 0.0, chain=tuple(chain))


def _run(
    by_id: Mapping[str, Piece], graph: Mapping[str, Sequence[str]], way: Mapping[str, float], pools: Mapping[str, int]
) -> float:
    order = graphlib.TopologicalSorter(graph)
    order.prepare()
    free = {name: max(count, 1) for name, count in pools.items()}
    waiting: dict[str, list[tuple[float, str]]] = {name: [] for name in pools}
    running: list[tuple[float, str]] = []
    now = 0.0
    while order.is_active():
        for one in order.get_ready():
            heapq.heappush(waiting[by_id[one].pool], (-way[one], one))
        for pool, queue in waiting.items():
            while queue and free[pool]:
                free[pool] -= 1
                one = heapq.heappop(queue)[1]
                heapq.heappush(running, (now + by_id[one].seconds, one))
        now, one = heapq.heappop(running)
        free[by_id[one].pool] += 1
        order.done(one)
    return now
