"""The graph of stages: names and what each needs. Knows nothing of images or files; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

__all__ = ["closure", "find_cycle", "ordered"]


def ordered(needs: Mapping[str, Iterable[str]], *, first: Sequence[str] = ()) -> tuple[str, ...]:
    """All names, each after what it needs; where that leaves a choice, as in `first`, then by name.

    The order of `needs` and of what a name needs never shows. Raises ValueError for a cycle and KeyError for a need that is
    no name of `needs`: ask `find_cycle` and compare the names before, to say so in words.
    """
    rank = {name: index for index, name in enumerate(first)}
    left = {name: set(wanted) for name, wanted in needs.items()}
    for wanted in left.values():
        for name in wanted - left.keys():
            raise KeyError(name)
    order: list[str] = []
    while left:
        ready = [name for name, wanted in left.items() if not wanted]
        if not ready:
            raise ValueError("a cycle")
        chosen = min(ready, key=lambda name: (rank.get(name, len(rank)), name))
        del left[chosen]
        for wanted in left.values():
            wanted.discard(chosen)
        order.append(chosen)
    return tuple(order)


def find_cycle(needs: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """A path that ends where it begins (`a b c a`: a needs b, b needs c, c needs a), or `()` when there is none.

    The same graph gives the same path, beginning at the least name on it. Needs that are no name are passed over.
    """
    done: set[str] = set()
    for start in sorted(needs):
        path: list[str] = []
        todo: list[tuple[str, bool]] = [(start, True)]
        while todo:
            name, entering = todo.pop()
            if not entering:
                done.add(path.pop())
                continue
            if name in path:
                loop = path[path.index(name) :]
                least = loop.index(min(loop))
                return (*loop[least:], *loop[:least], loop[least])
            if name in done:
                continue
            path.append(name)
            todo.append((name, False))
            todo.extend((need, True) for need in sorted(set(needs[name]), reverse=True) if need in needs)
    return ()


def closure(needs: Mapping[str, Iterable[str]], name: str) -> frozenset[str]:
    """`name` and everything it needs, directly or through others."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        here = todo.pop()
        if here not in seen:
            seen.add(here)
            todo.extend(needs[here])
    return frozenset(seen)
