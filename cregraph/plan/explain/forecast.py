"""The time that a graph of jobs takes: the order of `cregraph.scheduler`, simulated. Pure."""

from __future__ import annotations

import graphlib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cregraph.scheduler import longest_paths

__all__ = ["Forecast", "Piece", "forecast"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A job with a known duration in seconds. Ids in `needs` that no piece has are done already."""

    id: str
    seconds: float
    needs: tuple[str, ...] = ()
    pool: str = "work"


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """`seconds` until all is done. `chain` are the ids of the longest path; it takes `alone` seconds with any number of slots."""

    seconds: float
    alone: float
    chain: tuple[str, ...]


def forecast(pieces: Sequence[Piece], pools: Mapping[str, int]) -> Forecast:
    """Return how long `pieces` take with so many slots in each pool.

    Raises:
        ValueError: The pieces need each other in a circle.
    """
    by_id = {piece.id: piece for piece in pieces}
    graph = {piece.id: [need for need in piece.needs if need in by_id] for piece in pieces}
    longest = longest_paths({piece.id: piece.seconds for piece in pieces}, graph)
    dependents: dict[str, list[str]] = {}
    for id, needs in graph.items():
        for need in needs:
            dependents.setdefault(need, []).append(id)
    chain: list[str] = []
    here = max(longest, key=lambda id: (longest[id], id), default=None)
    while here is not None:
        chain.append(here)
        rest = [id for id in dependents.get(here, ()) if longest[id] and by_id[here].seconds + longest[id] == longest[here]]
        here = rest[0] if rest else None
    return Forecast(
        seconds=_simulated(by_id, graph, longest, pools), alone=max(longest.values(), default=0.0), chain=tuple(chain)
    )


def _simulated(
    by_id: Mapping[str, Piece], graph: Mapping[str, Sequence[str]], longest: Mapping[str, float], pools: Mapping[str, int]
) -> float:
    order = graphlib.TopologicalSorter(graph)
    order.prepare()
    free = {name: max(count, 1) for name, count in pools.items()}
    waiting: dict[str, list[tuple[float, str]]] = {name: [] for name in pools}
    running: list[tuple[float, str]] = []
    now = 0.0
    while order.is_active():
        for id in order.get_ready():
            heapq.heappush(waiting[by_id[id].pool], (-longest[id], id))
        for pool, queue in waiting.items():
            while queue and free[pool]:
                free[pool] -= 1
                id = heapq.heappop(queue)[1]
                heapq.heappush(running, (now + by_id[id].seconds, id))
        now, id = heapq.heappop(running)
        free[by_id[id].pool] += 1
        order.done(id)
    return now
