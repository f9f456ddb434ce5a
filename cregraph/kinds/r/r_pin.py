"""Pins of R packages: the asks of a library, the packages of conda and the lock, and the rest from CRAN.

A pin of a library that wants built packages records their repository (`binaries: jammy/4.2`) and, if it stayed a source, why
(`no_binary`). So a lock asks again only if the distribution or R changed, and a review sees the reason.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.formats.dcf import Dependency, dependencies
from cregraph.formats.r_package import Built, Description, read_built, read_tarball, unfit
from cregraph.kinds.base import PinContext
from cregraph.kinds.r.r_closure import Choice, Installed, Wish, close
from cregraph.kinds.r.r_pinned import ask_text, conda_around, own_tokens
from cregraph.lock.pins import Artifact, Pin, Target
from cregraph.sources import cran
from cregraph.sources.protocol import NotThere, Sources

__all__ = ["pin"]


def pin(target: Target, sources: Sources, context: PinContext) -> Target:
    """Return the pins of all asks of one library. CRAN is asked only if conda, the lock and given tarballs do not answer.

    The snapshot's date is the profile's, else `context.as_of`, else the lock's, else today; pins that stay keep theirs.
    """
    library = target.place
    has = _installed(conda_around(library, context.targets))
    r = has.get("r") or has.get("base")
    if not target.asks:
        return replace(target, pins=())
    if r is None:
        raise CregraphError(
            f"nothing provides R for the library {library}", hint="add the stage `r`, or a conda step with r-base in that prefix"
        )
    locked = {p.name.lower(): p for p in context.locked}
    date = _date(target, context)
    tarballs, taken = _tarballs(target, sources, locked)

    def archived(name: str, version: str) -> Choice:
        artifact, path = cran.take(sources, name, version, date=date)
        found = read_tarball(path, what=f"{name} {version} from CRAN")
        taken[name] = (artifact, found)
        return _choice(found)

    shelf = _Shelf(
        sources=sources,
        distribution=target.options.get("binaries"),
        r_minor=".".join(r.version.split(".")[:2]),
        glibc=context.facts.glibc if context.facts else None,
    )
    chosen = close(
        _wishes(target),
        r_version=r.version,
        installed=has.get,
        index=functools.cache(lambda: cran.read_index(sources, date)),
        archived=archived,
        tarballs=tarballs,
        locked={key: choice for key, p in locked.items() if (choice := _kept(p)) is not None},
    )
    fresh = [c for c in chosen if not c.given and not (c.pin is not None and shelf.holds(c.pin))]
    got: dict[str, _Got] = {name: _Got(artifact=a, description=d, date=date) for name, (a, d) in taken.items()}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=8) as pool:
        for choice, one in zip(fresh, pool.map(lambda c: shelf.take(c, date, got.get(c.name)), fresh), strict=True):
            got[choice.name] = one
    pins = [_pin(choice, got.get(choice.name), target) for choice in chosen]
    return replace(target, pins=tuple(pins))


def _wishes(target: Target) -> list[Wish]:
    texts = [(asked.where, *asked.what.partition(" ")) for asked in target.asks if isinstance(asked.what, str)]
    wanted = ((where, Dependency(name=name, op=rest[:2], version=rest[2:])) for where, name, _, rest in texts)
    return [Wish(dependency=dependency, who=where, asked=True) for where, dependency in wanted]


def _tarballs(
    target: Target, sources: Sources, locked: Mapping[str, Pin]
) -> tuple[dict[str, Choice], dict[str, tuple[Artifact, Description]]]:
    choices: dict[str, Choice] = {}
    taken: dict[str, tuple[Artifact, Description]] = {}
    stated: dict[str, tuple[str, str]] = {}
    for asked in target.asks:
        if not isinstance(asked.what, Mapping):
            continue
        name, source = str(asked.what["name"]), str(asked.what["tarball"])
        first = stated.setdefault(name.lower(), (source, asked.where))
        if first[0] != source:
            raise CregraphError(
                f"{asked.where}: R package {name} is given as `{source}`, and {first[1]} gives `{first[0]}`",
                hint="keep one of the two lines: a library has one version of a package",
            )
        is_url = "://" in source
        kept = locked.get(name.lower())
        if is_url and kept is not None and kept.artifact.source == source and (choice := _kept(kept)) is not None:
            choices[name.lower()] = replace(choice, given=True, where=asked.where)
            continue
        try:
            artifact, path = sources.take(kind="url" if is_url else "path", source=source, file="")
        except CregraphError as error:
            raise CregraphError(f"{asked.where}: {error.message}", hint=error.hint) from None
        what = f"{asked.where}: `{source}`"
        found = read_tarball(path, what=what)
        if found.name != name:
            raise CregraphError(
                f"{what} is R package {found.name}, not {name}",
                hint=f"write `{found.name}:` before it, or give the tarball of {name}",
            )
        taken[found.name] = (artifact, found)
        choices[name.lower()] = replace(_choice(found), given=True, where=asked.where)
    return choices, taken


@dataclass(frozen=True, kw_only=True, slots=True)
class _Got:
    """The files and description for a pin. `said` is what the repository of built packages adds to its data."""

    artifact: Artifact
    description: Description
    date: str
    said: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shelf:
    """The repositories of built packages for one distribution and R; `distribution` is None if none are wanted."""

    sources: Sources
    distribution: str | None
    r_minor: str
    glibc: str | None

    @property
    def name(self) -> str | None:
        """Return the repository as a pin records it: `jammy/4.2`."""
        return f"{self.distribution}/{self.r_minor}" if self.distribution else None

    def holds(self, pin: Pin) -> bool:
        """Return whether a locked pin may stay. A tarball of the team is always a source."""
        return pin.artifact.source != "cran" or pin.data.get("binaries") == self.name

    def take(self, choice: Choice, date: str, archived: _Got | None) -> _Got:
        """Return the built package if one is wanted and fits, else its source. A locked one keeps its version and date."""
        path = choice.record.path if choice.record else ""
        if choice.pin is not None:
            date, path = str(choice.pin.data.get("snapshot") or date), cran.path_of(choice.pin.artifact.file)
        said: dict[str, Json] = {}
        if self.distribution is not None:
            artifact, found = self._built(self.distribution, choice, date, path)
            if artifact is not None and isinstance(found, Built):
                said = {"binaries": self.name, "form": "binary", "built": found.r, "platform": found.platform}
                return _Got(artifact=artifact, description=found.description, date=date, said=said)
            said = {"binaries": self.name, "no_binary": found}
        if archived is not None:
            return replace(archived, said=said)
        path, md5 = (choice.record.path, choice.record.md5) if choice.record else (path, None)
        artifact, file = cran.take(self.sources, choice.name, choice.version, date=date, path=path, md5=md5)
        what = f"{choice.name} {choice.version} from CRAN"
        description = read_tarball(file, what=what)
        _check_is(choice, description, what, "mirror")
        return _Got(artifact=artifact, description=description, date=date, said=said)

    def _built(self, distribution: str, choice: Choice, date: str, path: str) -> tuple[Artifact | None, Built | str]:
        """Return the built package of that version, or None and why none fits.

        Raises CregraphError for one that is unreachable or hostile, and for one of another name or version.
        """
        if not self.sources.routes("cran_binary", "cran"):
            raise CregraphError(
                f"built R packages for {distribution} are asked for, and need an address of source `cran` with",
                hint="write their repository to sources.yaml: `cran_binary: https://…/{distribution}/{r}/{date}` in sources.yaml",
            )
        built = (distribution, self.r_minor)
        try:
            artifact, file = cran.take(self.sources, choice.name, choice.version, date=date, path=path, built=built)
        except NotThere:
            return None, "the repository does not have it"
        what = f"{choice.name} {choice.version} for {distribution}"
        found = read_built(file, what=what)
        if found is None:
            return None, "the repository does not have it"
        _check_is(choice, found.description, what, "repository")
        why = unfit(found, r_minor=self.r_minor, glibc=self.glibc)
        return (None, why) if why else (artifact, found)


def _check_is(choice: Choice, found: Description, what: str, source: str) -> None:
    if (found.name, found.version) != (choice.name, choice.version):
        raise CregraphError(
            f"{what} is {found.name} {found.version}",
            hint=f"try again later, or name another {source} in sources.yaml: this one does not match its index",
        )


def _pin(choice: Choice, got: _Got | None, target: Target) -> Pin:
    """Return a new pin of `got`; without it, the locked pin with its present asks and needs."""
    texts = {f"{a.stage}: {text}" for a in target.asks if (text := ask_text(a.what)).split(" ")[0] == choice.name}
    needs = tuple(sorted({f"r:{d.name.lower()}" for d in choice.wanted() if d.name != "R"}))
    if got is None:
        assert choice.pin is not None
        pin = choice.pin
    else:
        data: dict[str, Json] = {
            "depends": [str(d) for d in got.description.depends],
            "linking_to": [str(d) for d in got.description.linking],
            "compiles": got.description.compiles,
            **got.said,
        }
        if got.artifact.source == "cran":
            data["snapshot"] = got.date
        pin = Pin(name=choice.name, version=choice.version, artifact=got.artifact, data=data)
    return replace(pin, needs=needs, provides=own_tokens(pin), asked=tuple(sorted(texts)))


def _choice(found: Description) -> Choice:
    return Choice(name=found.name, version=found.version, depends=found.depends, linking=found.linking)


def _kept(locked: Pin) -> Choice | None:
    """Return the choice that a locked pin states, or None if fields are missing (an older lock, or an edited one)."""
    depends, linking = locked.data.get("depends"), locked.data.get("linking_to")
    if not (_texts(depends) and _texts(linking) and cran.is_version(locked.version)):
        return None
    try:
        return Choice(
            name=locked.name,
            version=locked.version,
            depends=_parsed(depends, locked.name),
            linking=_parsed(linking, locked.name),
            pin=locked,
        )
    except CregraphError:
        return None


def _texts(value: Json) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _parsed(texts: Json, name: str) -> tuple[Dependency, ...]:
    found: list[Dependency] = []
    for text in texts:
        package, _, rest = text.partition(" ")
        found.extend(dependencies(f"{package} ({rest})" if rest else package, what=name))
    return tuple(found)


def _date(target: Target, context: PinContext) -> str:
    locked = sorted(str(p.data["snapshot"]) for p in context.locked if p.data.get("snapshot"))
    dates = (target.options.get("snapshot"), context.as_of, *locked[-1:], context.today)
    return next(str(date)[:10] for date in dates if date)


def _installed(conda: Target | None) -> dict[str, Installed]:
    """Return the packages of conda by lower-case name of the R package; `r` or `base` is R itself (conda: r-base)."""
    has: dict[str, Installed] = {}
    for p in conda.pins if conda else ():
        for provided in p.provides:
            token, _, version = provided.partition(" ")
            if token.startswith("r:") and cran.is_version(version):
                has[token.removeprefix("r:")] = Installed(conda_name=p.name, version=version)
    return has
