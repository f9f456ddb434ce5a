"""The R packages that a library needs, with their versions: the closure over Depends, Imports and LinkingTo.

A snapshot of CRAN has one version of a package, so there is nothing to search. The first of these decides: the project's
tarball, conda, the version that an `==` names, the lock while it satisfies, the snapshot. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cregraph.errors import CregraphError, Several
from cregraph.formats.dcf import BASE_PACKAGES, Dependency
from cregraph.kinds.r.r_pinned import in_order
from cregraph.lock.pins import Pin
from cregraph.sources.cran import Index, Record, satisfies, version_key
from cregraph.sources.protocol import NotThere

__all__ = ["Choice", "Installed", "Wish", "close"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """A need of `dependency`. `who` is its origin: the line of a profile, or a package with its version.

    `place` is the line of the profile that leads to such a package, if one does.
    """

    dependency: Dependency
    who: str
    asked: bool = False
    place: str = ""

    def wants(self, what: object) -> str:
        """Return the start of a message: the place first, then who wants `what`."""
        if self.asked:
            return f"{self.who} asks for {what}"
        return f"{self.place}: {self.who} needs {what}" if self.place else f"{self.who} needs {what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """An R package that conda has: the conda package's name and the version of the R package in it."""

    conda_name: str
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A package to be installed from source: from the lock (`pin`), from the index (`record`) or from the tarball at `where`."""

    name: str
    version: str
    depends: tuple[Dependency, ...] = ()
    linking: tuple[Dependency, ...] = ()
    pin: Pin | None = None
    record: Record | None = None
    given: bool = False
    where: str = ""

    def wanted(self) -> tuple[Dependency, ...]:
        """Return what its installation needs, with `R` but without the packages that come with R."""
        seen = dict.fromkeys(d for d in (*self.depends, *self.linking) if d.name == "R" or d.name not in BASE_PACKAGES)
        return tuple(seen)


@dataclass(kw_only=True, slots=True)
class _State:
    installed: Callable[[str], Installed | None]
    index: Callable[[], Index]
    archived: Callable[[str, str], Choice]
    tarballs: Mapping[str, Choice]
    kept: Mapping[str, Choice]
    r_version: str
    wishes: dict[str, list[Wish]] = field(default_factory=dict)
    chosen: dict[str, Choice] = field(default_factory=dict)


class _Unmet(CregraphError):
    """Nothing satisfies one wish. The others are still looked at, so that one run reports all."""


class _NotKept(Exception):
    """Error: a locked package does not satisfy a wish."""

    def __init__(self, key: str) -> None:
        self.key = key


def close(
    asked: Sequence[Wish],
    *,
    r_version: str,
    installed: Callable[[str], Installed | None],
    index: Callable[[], Index],
    archived: Callable[[str, str], Choice],
    tarballs: Mapping[str, Choice],
    locked: Mapping[str, Choice],
) -> tuple[Choice, ...]:
    """Return the packages to install, sorted by name. Mappings have lower-case names, as tokens do.

    `installed` answers for lower-case names, `index` is called only when something must come from CRAN, `archived` fetches a
    version that the index does not list. A locked choice is kept while every wish is satisfied by it.
    Raises CregraphError for wishes that nothing satisfies.
    """
    kept = dict(locked)
    while True:
        state = _State(installed=installed, index=index, archived=archived, tarballs=tarballs, kept=kept, r_version=r_version)
        try:
            found = _closed(asked, state)
        except _NotKept as moved:
            del kept[moved.key]
            continue
        in_order({c.name: [d.name for d in c.wanted()] for c in found})
        return found


def _closed(asked: Sequence[Wish], state: _State) -> tuple[Choice, ...]:
    todo: deque[Wish] = deque()
    for wish in asked:  # all asks first, so that an `==` is known before something else wants the package
        state.wishes.setdefault(wish.dependency.name.lower(), []).append(wish)
        todo.append(wish)
    for tarball in state.tarballs.values():
        todo.append(Wish(dependency=Dependency(name=tarball.name), who=tarball.where, asked=True))
    problems: list[CregraphError] = []
    while todo:
        wish = todo.popleft()
        try:
            todo += _met(wish, state)
        except _Unmet as error:
            problems.append(error)
        except NotThere as error:  # a version that is not in the archive
            problems.append(_Unmet(f"{wish.wants(wish.dependency)}: {error.message}", error.hint))
    if problems:
        raise Several(problems)
    return tuple(state.chosen[key] for key in sorted(state.chosen))


def _met(wish: Wish, state: _State) -> list[Wish]:
    """Choose the package that `wish` names, if none is chosen yet. Return what a new one wants."""
    key = wish.dependency.name.lower()
    wishes = state.wishes.setdefault(key, [])
    if wish not in wishes and wish.who:
        wishes.append(wish)
    if _answered_by_conda(key, wish, state):
        return []
    more: list[Wish] = []
    choice = state.chosen.get(key)
    if choice is None:
        choice = state.chosen[key] = _choose(key, wish, state)
        _check_name(choice, wish)
        who, place = f"{choice.name} {choice.version}", wish.who if wish.asked else wish.place
        for dependency in choice.wanted():
            if dependency.name == "R":
                _check_r(choice, dependency, place, state)
            else:
                more.append(Wish(dependency=dependency, who=who, place=place))
    _check_name(choice, wish)
    _check(key, choice, wish, state)
    return more


def _answered_by_conda(key: str, wish: Wish, state: _State) -> bool:
    have = state.installed(key)
    if have is None:
        return False
    wanted, tarball = wish.dependency, state.tarballs.get(key)
    if tarball is not None:
        raise _Unmet(
            f"{tarball.where}: R package {tarball.name} is given as a tarball, but the conda environment also has it "
            f"({have.conda_name} {have.version})",
            hint=f"remove `{tarball.name}` from tarballs, or the ask for `{have.conda_name}`",
        )
    if satisfies(have.version, wanted.op, wanted.version):
        return True
    named = wanted.version.replace("-", "_")
    if wish.asked:
        raise _Unmet(
            f"{wish.wants(wanted)}, but the conda environment has {have.conda_name} {have.version}",
            hint=f"ask conda for that version instead: `{have.conda_name} {_conda_op(wanted.op)}{named}` in extras.conda_r, and "
            f"remove the line here",
        )
    raise _Unmet(
        f"{wish.wants(wanted)}, but the conda environment has {have.conda_name} {have.version}",
        hint=f"ask for `{have.conda_name} {_conda_op(wanted.op)}{named}` in extras.conda_r, or for an older "
        f"{wish.who.split(' ')[0]} that accepts {have.version}",
    )


def _choose(key: str, wish: Wish, state: _State) -> Choice:
    if key in state.tarballs:
        return state.tarballs[key]
    name = wish.dependency.name
    exact = _exact(key, state)
    kept = state.kept.get(key)
    if kept is not None:
        if exact is not None and not satisfies(kept.version, "==", exact.dependency.version):
            raise _NotKept(key)
        return kept
    record = state.index().find(name, r_version=state.r_version)
    if exact is not None and (record is None or version_key(record.version) != version_key(exact.dependency.version)):
        return state.archived(name, exact.dependency.version)
    if record is None:
        meant = state.index().nearest(name)
        hint = f"give it as a tarball, or ask conda for it: `r-{key}` (or `bioconductor-{key}`) in extras.conda_r"
        if meant and (wish.asked or meant.lower() == key):
            hint = f"write `{meant}` instead"
        raise _Unmet(f"{wish.wants(f'R package {name}')}, which CRAN as of {state.index().date} does not have", hint=hint)
    return Choice(name=record.name, version=record.version, depends=record.depends, linking=record.linking, record=record)


def _exact(key: str, state: _State) -> Wish | None:
    exact = [w for w in state.wishes.get(key, ()) if w.asked and w.dependency.op == "=="]
    for other in exact[1:]:
        if version_key(other.dependency.version) != version_key(exact[0].dependency.version):
            raise _Unmet(
                f"{exact[0].who} asks for {exact[0].dependency}, and {other.who} for {other.dependency}",
                hint="keep one of the two lines: a library has one version of a package",
            )
    return exact[0] if exact else None


def _check(key: str, choice: Choice, wish: Wish, state: _State) -> None:
    wanted = wish.dependency
    if satisfies(choice.version, wanted.op, wanted.version):
        return
    exact = _exact(key, state)
    if choice.pin is not None and not choice.given and exact is None:
        raise _NotKept(key)
    if exact is not None:
        raise _Unmet(
            f"{wish.wants(wanted)}, and {exact.who} asks for {exact.dependency}",
            hint="keep one of the two: loosen the `==`, or choose another version of the package that needs it",
        )
    if choice.given:
        raise _Unmet(
            f"{wish.wants(wanted)}, but its tarball is {choice.name} {choice.version}",
            hint=f"give a tarball of {wanted}",
        )
    raise _Unmet(
        f"{wish.wants(wanted)}, but CRAN as of {state.index().date} has {choice.name} {choice.version}",
        hint="lock with a later date (--as-of DATE), or write an exact version with `==` to search CRAN's archive"
        if wanted.op in (">=", ">")
        else f"write an exact version (`{wanted.name}==…`) to search CRAN's archive",
    )


def _check_name(choice: Choice, wish: Wish) -> None:
    if choice.name != wish.dependency.name:
        raise _Unmet(
            f"{wish.wants(f'R package {wish.dependency.name}')}, and {choice.name} is another spelling of that name",
            hint=f"write `{choice.name}` instead",
        )


def _check_r(choice: Choice, wanted: Dependency, place: str, state: _State) -> None:
    if satisfies(state.r_version, wanted.op, wanted.version):
        return
    if choice.pin is not None and not choice.given and _exact(choice.name.lower(), state) is None:
        raise _NotKept(choice.name.lower())
    raise _Unmet(
        f"{place + ': ' if place else ''}{choice.name} {choice.version} needs {wanted}, but the conda environment has R "
        f"{state.r_version}",
        hint=f"raise cre.r_version, or ask for a {choice.name} that accepts R {state.r_version}: `{choice.name}==…` in "
        f"extras.cran, or an earlier --as-of DATE",
    )


def _conda_op(op: str) -> str:
    return {"==": "=", "": ">="}.get(op, op)
