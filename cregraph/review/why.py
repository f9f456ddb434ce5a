"""The reasons why a lock pins a package: every path from the profile over asks and requirements to its pin. Pure.

The graph has one node for the profile, one for each ask and one for each pin. An edge leads from the profile to its asks,
from an ask to the pins that answer it, and from a pin to the pins that provide what it needs, in any ecosystem.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from cregraph.digest import Json, canonical
from cregraph.kinds import KINDS
from cregraph.lock.lock_file import Lock
from cregraph.lock.pins import Ask, Pin, Target
from cregraph.lock.rules import in_sandbox

if TYPE_CHECKING:
    from networkx import DiGraph

__all__ = ["Answer", "AskNode", "Path", "PinNode", "as_json", "as_text", "names", "why"]

#: Paths that are listed for one pin.
SHOWN = 10
#: Paths are counted up to this number.
COUNTED = 1_000_000
_TRIED = 20_000  # partial paths; bounds the search where pins need each other in circles
_PROFILE = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AskNode:
    """An ask. `where` is `file:line: field` if the profile still has the ask, else `file: field` as the lock has it."""

    where: str
    stage: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PinNode:
    """A pin. `sandbox`: only tasks see it; it is not part of the image."""

    ecosystem: str
    name: str
    version: str
    target: str
    sandbox: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """One way from the profile to a pin. The first of `pins` answers the ask; each needs the next."""

    ask: AskNode
    pins: tuple[PinNode, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One pin of the given name and the shortest paths to it, shortest first.

    `more` is the number of paths that are not listed; if not `exact`, there are at least as many.
    """

    pin: PinNode
    paths: tuple[Path, ...]
    more: int = 0
    exact: bool = True


def why(lock: Lock, package: str, *, current: Sequence[Target] = ()) -> tuple[Answer, ...]:
    """Return one answer for each pin that `package` names, those of the image first; empty for an unknown name.

    Args:
        lock: A lock; it need not be fresh.
        package: A name in any spelling that its ecosystem takes for the same, alone or as `conda:NAME`, `r:NAME`, `py:NAME`.
        current: Targets with the asks of the profile as it is now. Their lines replace the places that the lock holds.
    """
    import networkx

    graph, nodes, pins = _graph(lock, current)
    reached = {_PROFILE, *networkx.descendants(graph, _PROFILE)}
    found = []
    for target, pin in _named(lock, package):
        goal = pins[target.id, pin.name]
        way: DiGraph[int] = graph.subgraph(reached & {goal, *networkx.ancestors(graph, goal)})
        listed, complete = _shortest(way, goal)
        more, exact = (0, True) if complete else _more(way, goal, len(listed))
        paths = []
        for path in listed[:SHOWN]:
            ask, *rest = (nodes[number] for number in path)
            assert isinstance(ask, AskNode)
            paths.append(Path(ask=ask, pins=tuple(node for node in rest if isinstance(node, PinNode))))
        found.append(Answer(pin=_pin_node(target, pin), paths=tuple(paths), more=more, exact=exact))
    return tuple(found)


def names(lock: Lock) -> set[str]:
    """Return every name that `why` finds without its ecosystem."""
    return {name for target in lock.targets for pin in target.pins for name in _names(target, pin) if ":" not in name}


def as_text(answers: Sequence[Answer]) -> list[str]:
    """Return the answers as lines for people. Names from the lock are not made safe for a terminal."""
    lines = []
    places = {answer.pin.name: {other.pin.target for other in answers if other.pin.name == answer.pin.name} for answer in answers}
    for answer in answers:
        place = f" in {answer.pin.target.partition(':')[2]}" if len(places[answer.pin.name]) > 1 else ""
        lines.append(_shown(answer.pin) + place)
        for path in answer.paths:
            lines.append(f"  {path.ask.where}: {path.ask.text}")
            before = [None, *path.pins]
            lines.append("    " + " -> ".join(_shown(pin, after) for after, pin in zip(before, path.pins, strict=False)))
        if not answer.paths:
            lines.append("  no ask of the profile needs it: run `cregraph lock`")
        if answer.more or not answer.exact:
            count = f"{answer.more:,}" if answer.exact else f"at least {answer.more:,}" if answer.more else "perhaps some"
            lines.append(f"  and {count} more, none of them shorter")
    return lines


def as_json(answers: Sequence[Answer]) -> list[Json]:
    """Return the answers for a program: the fields of `Answer` and what it holds."""
    return [asdict(answer) for answer in answers]


def _graph(
    lock: Lock, current: Sequence[Target]
) -> tuple[DiGraph[int], list[AskNode | PinNode | None], dict[tuple[str, str], int]]:
    """The graph over numbers, the node of each number, and the number of each pin. Numbers follow the order of the lock."""
    import networkx

    graph: DiGraph[int] = networkx.DiGraph()
    graph.add_node(_PROFILE)
    nodes: list[AskNode | PinNode | None] = [None]
    lines = {_ask_id(ask): ask.where for target in current for ask in target.asks}
    pins: dict[tuple[str, str], int] = {}
    for target in lock.targets:
        for pin in target.pins:
            pins[target.id, pin.name] = len(nodes)
            nodes.append(_pin_node(target, pin))
    providing = _providers(lock)
    for target in lock.targets:
        for pin in target.pins:
            here = pins[target.id, pin.name]
            graph.add_node(here)
            graph.add_edges_from((here, pins[place]) for need in pin.needs for place in providing(target, need))
        for ask in target.asks:
            graph.add_edge(_PROFILE, len(nodes))
            graph.add_edges_from((len(nodes), pins[place]) for place in _answers(ask, target, lock))
            nodes.append(
                AskNode(where=lines.get(_ask_id(ask), ask.where), stage=ask.stage, text=KINDS[ask.kind].ask_text(ask.what))
            )
    return graph, nodes, pins


def _providers(lock: Lock) -> Callable[[Target, str], Sequence[tuple[str, str]]]:
    """The pins that provide a token to a target: its own, else those of the nearest target around it, else any."""
    by_token: dict[str, list[tuple[Target, str]]] = {}
    for target in lock.targets:
        for pin in target.pins:
            for token in pin.provides:
                by_token.setdefault(token.partition(" ")[0], []).append((target, pin.name))

    def providing(target: Target, token: str) -> Sequence[tuple[str, str]]:
        found = by_token.get(token, [])
        nearest = max((_nearness(other, target) for other, _ in found), default=0)
        return [(other.id, name) for other, name in found if _nearness(other, target) == nearest]

    return providing


def _nearness(other: Target, target: Target) -> int:
    """How near `other` is: 0 for a target elsewhere, more for one around `target`, most for `target` itself."""
    place, around = (each.place + "/" for each in (target, other))
    return len(place) + 1 if other.id == target.id else len(around) if place.startswith(around) else 0


def _answers(ask: Ask, target: Target, lock: Lock) -> Iterable[tuple[str, str]]:
    """The pins that answer an ask: those that say so, else those that provide it in a target of another kind around this one.

    An R package that is asked for may come from the conda environment that the library lies in.
    """
    text = KINDS[target.kind].ask_text(ask.what)
    own = [(target.id, pin.name) for pin in target.pins if f"{ask.stage}: {text}" in pin.asked]
    if own:
        return own
    token = f"{target.kind}:{text.partition(' ')[0].lower()} "
    around = [other for other in lock.targets if other.kind != target.kind and _nearness(other, target)]
    return [(t.id, p.name) for t in around for p in t.pins if any(f"{each} ".startswith(token) for each in p.provides)]


def _shortest(graph: DiGraph[int], goal: int) -> tuple[list[Sequence[int]], bool]:
    """The shortest paths from an ask to `goal`, at most one more than are shown, and whether these are all.

    Searches backwards from the goal by exact distances from the profile, so only circles make it try what leads nowhere.
    """
    import networkx

    distance = networkx.single_source_shortest_path_length(graph, _PROFILE) if goal in graph else {}
    queue: list[tuple[int, int, int, tuple[int, ...]]] = [(distance[goal], 0, 0, (goal,))] if goal in distance else []
    found: list[Sequence[int]] = []
    tried = 0
    while queue and len(found) <= SHOWN and tried < _TRIED:
        _, depth, _, path = heapq.heappop(queue)
        if path[0] == _PROFILE:
            found.append(path[1:])
            continue
        for node in sorted(graph.predecessors(path[0])):
            if node not in path:
                tried += 1
                heapq.heappush(queue, (distance[node] - depth + 1, depth - 1, tried, (node, *path)))
    return found, not queue and len(found) <= SHOWN


def _more(graph: DiGraph[int], goal: int, listed: int) -> tuple[int, bool]:
    """How many paths there are besides those that are shown, and whether that is exact.

    Pins that need each other in a circle count as one, so there may be more paths than are counted.
    """
    import networkx

    whole: DiGraph[int] = networkx.condensation(graph)
    of = whole.graph["mapping"]
    count = dict.fromkeys(whole, 0) | {of[_PROFILE]: 1}
    leaving: dict[int, list[int]] = {}
    for one, other in graph.edges:
        leaving.setdefault(of[one], []).append(of[other])
    for one in networkx.topological_sort(whole):
        for other in leaving.get(one, ()):
            if other != one:
                count[other] = min(count[other] + count[one], COUNTED + SHOWN)
    total = count[of[goal]]
    return max(total, listed) - min(listed, SHOWN), len(whole) == len(graph) and total < COUNTED + SHOWN


def _named(lock: Lock, package: str) -> list[tuple[Target, Pin]]:
    """The pins of that name: as written if there are any, else in other letters or with other separators."""
    pins = [(target, pin) for target in lock.targets for pin in target.pins]
    pins.sort(key=lambda both: (in_sandbox(both[1], both[0], KINDS[both[0].kind]), both[0].id, both[1].name))
    for form in (str, str.lower, canonicalize_name):
        found = [(t, p) for t, p in pins if form(package) in map(form, _names(t, p))]
        if found:
            return found
    return []


def _names(target: Target, pin: Pin) -> set[str]:
    """What a pin can be called: its name and the names that it provides, alone and after their ecosystem."""
    tokens = {token.partition(" ")[0] for token in pin.provides}
    rules = KINDS[target.kind]
    shown = rules.shown_name(pin)
    qualified = {f"{target.kind}:{pin.name}", f"{rules.ECOSYSTEM}:{shown}"}
    return {pin.name, shown, *qualified, *tokens, *(token.rpartition(":")[2] for token in tokens)}


def _ask_id(ask: Ask) -> tuple[str, str, bytes]:
    return ask.target, ask.stage, canonical(ask.what)


def _pin_node(target: Target, pin: Pin) -> PinNode:
    return PinNode(
        ecosystem=KINDS[target.kind].ECOSYSTEM,
        name=KINDS[target.kind].shown_name(pin),
        version=pin.version,
        target=target.id,
        sandbox=in_sandbox(pin, target, KINDS[target.kind]),
    )


def _shown(pin: PinNode, before: PinNode | None = None) -> str:
    """`r rlang 1.1.6`; the ecosystem and the sandbox are named where they are not those of the pin before."""
    kind = "" if before is not None and before.ecosystem == pin.ecosystem else f"{pin.ecosystem} "
    mark = " (sandbox)" if pin.sandbox and not (before is not None and before.sandbox) else ""
    return f"{kind}{pin.name} {pin.version}".rstrip() + mark
