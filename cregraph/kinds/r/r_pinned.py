"""R packages as a lock pins them: checked, ordered, and the environment around their library."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping, Sequence

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.kinds.defaults import asked_name, check_edited, edited, unanswered
from cregraph.lock.pins import Pin, Target
from cregraph.lock.rules import Offers
from cregraph.profile.package_texts import is_r_name, is_r_version

__all__ = ["ask_text", "check_pin", "conda_around", "in_order", "is_built", "own_tokens", "problems", "shown"]


def conda_around(library: str, targets: Iterable[Target]) -> Target | None:
    """Return the conda environment that the library lies in."""
    around = [t for t in targets if t.kind == "conda" and library.startswith(t.place.rstrip("/") + "/")]
    return max(around, key=lambda t: len(t.place), default=None)


def ask_text(what: Json) -> str:
    """Return `name ==1.0`, or `name @ tarball`."""
    return f"{what.get('name')} @ {what.get('tarball')}" if isinstance(what, Mapping) else str(what)


def shown(what: Json) -> str:
    """Return `name ==1.0`, or `name tarball`."""
    return f"{what.get('name')} {what.get('tarball')}" if isinstance(what, Mapping) else str(what)


def own_tokens(pin: Pin) -> tuple[str, ...]:
    """Return `r:<name in lower case> <version>`."""
    return (f"r:{pin.name.lower()} {pin.version}",)


def problems(target: Target, offers: Offers) -> list[str]:
    """Return a sentence for each ask that neither a pin nor conda answers, and for packages that are built for another R.

    R is the one that the lock has around the library; its first two numbers count.
    """

    def name_of(what: Json) -> str | None:
        return str(what.get("name")) if isinstance(what, Mapping) else asked_name(what)

    around = conda_around(target.place, offers.targets)
    provided = [token.partition(" ") for p in (around.pins if around else ()) for token in p.provides]
    versions = sorted({version for token, _, version in provided if token in ("r:base", "r:r")})
    return [
        *unanswered(target, name_of, lambda name: f"r:{name.lower()}" in offers.tokens),
        *(
            f"`{p.name}` {p.version} is built for R {p.data.get('built')}, but the lock has R {version}"
            for p in target.pins
            if is_built(p)
            for version in versions
            if str(p.data.get("built")).split(".")[:2] != version.split(".")[:2]
        ),
    ]


def check_pin(pin: Pin) -> None:
    """Raise CregraphError for an invalid pin, as in a lock edited by hand: its name becomes a path, its data decide its task."""
    if not is_r_name(pin.name):
        raise edited(f"the lock pins `{pin.name[:80]}`, which is not the name of an R package")
    built = False
    if pin.artifact.source == "cran":
        from cregraph.sources import cran  # loads slowly, and not every lock needs it

        built = cran.is_built(pin.artifact.file)
    right = {
        "version": is_r_version(pin.version),
        "data.compiles": isinstance(pin.data.get("compiles"), bool),
        "data.form": pin.data.get("form") == ("binary" if built else None),
    }
    check_edited("R package", pin.name, right)


def is_built(pin: Pin) -> bool:
    return pin.data.get("form") == "binary"


def in_order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Return names, each after its needs, else by name. Ignore needs that are not a key. Raise CregraphError for a circle."""
    sorter = graphlib.TopologicalSorter({name: sorted(n for n in needs[name] if n in needs) for name in sorted(needs)})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        circle = " needs ".join(reversed(error.args[1]))  # graphlib lists it from needed to needing
        raise CregraphError(f"R packages need each other in a circle: {circle}") from None
    ordered = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered += ready
        sorter.done(*ready)
    return ordered
