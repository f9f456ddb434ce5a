"""Pinning R packages: what is asked of a library, what conda and the lock have, and what must come from CRAN."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.formats.dcf import Dependency, dependencies
from cregraph.formats.r_source import Description, read_tarball
from cregraph.kinds.base import Given, World
from cregraph.kinds.r_closure import Choice, Installed, Wish, close
from cregraph.pins import Artifact, Ask, Pin, Target
from cregraph.sources import cran
from cregraph.values import is_r_name, is_r_version

__all__ = ["check_pin", "conda_around", "pin"]


def pin(target: Target, world: World, given: Given) -> Target:
    """Everything asked of one library. CRAN is asked only for what neither conda, the lock nor a given tarball answers.

    The snapshot's date is the profile's, else `given.as_of`, else the lock's, else today; pins that stay keep theirs.
    """
    library = target.id.removeprefix("r:")
    has = _installed(conda_around(library, given.targets))
    r = has.get("r") or has.get("base")
    if not target.asks:
        return Target(kind=target.kind, id=target.id, options=target.options)
    if r is None:
        raise CregraphError(
            f"nothing provides R for the library {library}", hint="add the stage `r`, or a conda step with r-base in that prefix"
        )
    locked = {p.name.lower(): p for p in given.locked}
    date = _date(target, given)
    tarballs, taken = _tarballs(target, world, locked)
    index: list[cran.Index] = []

    def once() -> cran.Index:
        if not index:
            index.append(cran.read_index(world, date))
        return index[0]

    def archived(name: str, version: str) -> Choice:
        artifact, path = cran.take(world, name, version, date=date)
        found = read_tarball(path, what=f"{name} {version} from CRAN")
        taken[name] = (artifact, found)
        return _choice(found)

    chosen = close(
        _wishes(target),
        r_version=r.version,
        installed=has.get,
        index=once,
        archived=archived,
        tarballs=tarballs,
        locked={key: choice for key, p in locked.items() if (choice := _kept(p)) is not None},
    )
    fresh = [c for c in chosen if c.pin is None and c.name not in taken]
    with ThreadPoolExecutor(max_workers=8) as pool:
        for choice, got in zip(fresh, pool.map(lambda c: _listed(world, c, date), fresh), strict=True):
            taken[choice.name] = got
    pins = [_pin(choice, taken.get(choice.name), target, date) for choice in chosen]
    return Target(kind=target.kind, id=target.id, options=target.options, asks=target.asks, pins=tuple(pins))


def conda_around(library: str, targets: Iterable[Target]) -> Target | None:
    """The conda environment that the library lies in."""
    around = [t for t in targets if t.kind == "conda" and library.startswith(t.id.removeprefix("conda:").rstrip("/") + "/")]
    return max(around, key=lambda t: len(t.id), default=None)


def check_pin(pin: Pin) -> None:
    """Refuse a pin that a lock edited by hand could hold: its name becomes a path, and its data decide what its task sees."""
    hint = f"the lock was edited by hand, or is damaged: run `cregraph lock --upgrade-package {pin.name}`"
    if not is_r_name(pin.name):
        raise CregraphError(
            f"the lock pins `{pin.name[:80]}`, which is no name of an R package", hint="the lock was edited by hand: lock again"
        )
    if not is_r_version(pin.version):
        raise CregraphError(f"R package {pin.name}: version: `{pin.version[:80]}` in the lock is none that R accepts", hint=hint)
    if not isinstance(pin.data.get("compiles"), bool):
        raise CregraphError(f"R package {pin.name}: data.compiles: true or false is wanted in the lock", hint=hint)


def _wishes(target: Target) -> list[Wish]:
    wishes = []
    for asked in target.asks:
        if isinstance(asked.what, str):
            name, _, rest = asked.what.partition(" ")
            dependency = Dependency(name=name, op=rest[:2], version=rest[2:])
            wishes.append(Wish(dependency=dependency, who=asked.where, asked=True))
    return wishes


def _tarballs(
    target: Target, world: World, locked: Mapping[str, Pin]
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
                hint="one library holds one version of a package: keep one of the two lines",
            )
        is_url = "://" in source
        kept = locked.get(name.lower())
        if is_url and kept is not None and kept.artifact.source == source and (choice := _kept(kept)) is not None:
            choices[name.lower()] = Choice(
                name=choice.name, version=choice.version, depends=choice.depends, linking=choice.linking, pin=kept, given=True
            )
            continue
        try:
            artifact, path = world.take(kind="url" if is_url else "path", source=source, file="")
        except CregraphError as error:
            raise CregraphError(f"{asked.where}: {error.message}", hint=error.hint) from None
        what = f"{asked.where}: `{source}`"
        found = read_tarball(path, what=what)
        if found.name != name:
            raise CregraphError(
                f"{what} is R package {found.name}, not {name}", hint=f"write `{found.name}:` before it, or give {name}'s tarball"
            )
        taken[found.name] = (artifact, found)
        choices[name.lower()] = Choice(
            name=found.name, version=found.version, depends=found.depends, linking=found.linking, given=True
        )
    return choices, taken


def _listed(world: World, choice: Choice, date: str) -> tuple[Artifact, Description]:
    what = f"{choice.name} {choice.version} from CRAN"
    artifact, path = cran.take(world, choice.name, choice.version, date=date, record=choice.record)
    found = read_tarball(path, what=what)
    if (found.name, found.version) != (choice.name, choice.version):
        raise CregraphError(
            f"{what} turns out to be {found.name} {found.version}",
            hint="the mirror is out of step with its index; try again later or name another in sources.yaml",
        )
    return artifact, found


def _pin(choice: Choice, got: tuple[Artifact, Description] | None, target: Target, date: str) -> Pin:
    asked = tuple(sorted({_text(a) for a in target.asks if _asks(a, choice.name)}))
    needs = tuple(sorted({f"r:{d.name.lower()}" for d in choice.wanted() if d.name != "R"}))
    if got is None:
        assert choice.pin is not None
        old = choice.pin
        return Pin(
            name=old.name,
            version=old.version,
            artifact=old.artifact,
            needs=needs,
            provides=(f"r:{old.name.lower()} {old.version}",),
            asked=asked,
            data=old.data,
        )
    artifact, found = got
    data: dict[str, Json] = {
        "depends": [str(d) for d in found.depends],
        "linking_to": [str(d) for d in found.linking],
        "compiles": found.compiles,
    }
    if artifact.source == "cran":
        data["snapshot"] = date
    return Pin(
        name=choice.name,
        version=choice.version,
        artifact=artifact,
        needs=needs,
        provides=(f"r:{choice.name.lower()} {choice.version}",),
        asked=asked,
        data=data,
    )


def _asks(asked: Ask, name: str) -> bool:
    what = asked.what
    return (str(what["name"]) if isinstance(what, Mapping) else str(what).partition(" ")[0]) == name


def _text(asked: Ask) -> str:
    what = asked.what
    return f"{asked.stage}: {what['name']} @ {what['tarball']}" if isinstance(what, Mapping) else f"{asked.stage}: {what}"


def _choice(found: Description) -> Choice:
    return Choice(name=found.name, version=found.version, depends=found.depends, linking=found.linking)


def _kept(locked: Pin) -> Choice | None:
    """What a locked pin says of itself, or None when it does not say enough (an older lock, or an edited one)."""
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


def _date(target: Target, given: Given) -> str:
    stated = {a.options.get("snapshot") for a in target.asks} - {None}
    stated |= {target.options.get("snapshot")} - {None}
    if len(stated) > 1:
        raise CregraphError(
            f"two snapshots of CRAN are asked for in one library: {', '.join(sorted(map(str, stated)))}",
            hint="state one; an older version of one package is asked for with `==`",
        )
    locked = sorted(str(p.data["snapshot"]) for p in given.locked if p.data.get("snapshot"))
    for date in (*stated, given.as_of, *locked[-1:]):
        if date:
            return str(date)[:10]
    return given.today


def _installed(conda: Target | None) -> dict[str, Installed]:
    """What conda has, by lower-case name of the R package; `r` or `base` is R itself (conda: r-base)."""
    has: dict[str, Installed] = {}
    for p in conda.pins if conda else ():
        for provided in p.provides:
            token, _, version = provided.partition(" ")
            if token.startswith("r:") and cran.is_version(version):
                has[token.removeprefix("r:")] = Installed(conda_name=p.name, version=version)
    return has
