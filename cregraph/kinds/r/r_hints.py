"""R packages in messages: ways out of a failed installation, why a package is compiled, and checks of an image."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence

from cregraph.digest import Json
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Ask, Target
from cregraph.store import Store
from cregraph.text import few

__all__ = ["FAILED", "FIELD", "PATTERNS", "USUAL", "checks", "notes", "program", "ways_out"]

_R = "r:base"
FIELD = "extras.conda_r"
FAILED = "R package {}: compilation failed"
USUAL = f"add the library that it compiles against to {FIELD}"
_MISSING = "add the R package {0} to extras.conda_r: it is missing, but no dependency names it"
_OLD = "choose an older version, or a newer R (cre.r_version): it needs R {1}, but the environment has {0}"
PATTERNS = (
    (r"there is no package called [\u2018'\"]([A-Za-z0-9.]+)[\u2019'\"]", _MISSING),
    (r"ERROR: this R is version ([0-9.]+), package '[^']+' requires R >=? ?([0-9.]+)", _OLD),
)


def ways_out(name: str, in_channel: Callable[[str], bool | None]) -> str:
    """Return other ways to get the package: from conda, built, or in another version."""
    conda = f"r-{name.lower()}"
    there = in_channel(conda)
    known = ", which the channel has," if there else ""
    ways = [] if there is False else [f"take the conda package {conda}{known} in {FIELD}"]
    ways += ["take a built one of the snapshot (extras.cran_binaries)", f"ask for another version (extras.cran: {name}==VERSION)"]
    return ", or ".join(ways)


def notes(
    targets: Sequence[Target], store: Store, *, before: Sequence[Target] = (), only: Container[str] | None = None
) -> Iterator[str]:
    """Return a note for each reason, after locking only. Packages that the old lock had for the same reason are left out."""
    known = {(p.name, p.version, p.data.get("no_binary")) for t in before if t.kind == "r" for p in t.pins}
    reasons: dict[str, list[str]] = {}
    for p in (p for t in targets if t.kind == "r" and only is None for p in t.pins):
        why = p.data.get("no_binary")
        if why and (p.name, p.version, why) not in known:
            reasons.setdefault(f"{p.data.get('binaries')}: {why}", []).append(p.name)
    for why, names in sorted(reasons.items()):
        yield f"compiled, because the built package is not usable ({why}): {few(names)}"


def checks(targets: Sequence[Target], facts: BaseFacts | None, *, magic: bool) -> Iterator[tuple[str, str, Json]]:
    """Return checks that `%%R` is the locked R (if the kernel promises it), and that each package loads."""
    versions = {token: version for target in targets for token, version in _provided(target)}
    if magic and _R in versions:
        data = {"version": versions[_R]}
        yield f"kernel: %%R is R {versions[_R]}", "r_version", data
        yield "kernel: %%R after a restart", "r_version", {**data, "first": "restart"}
        yield "kernel: %%R in the folder of a renv project", "r_version", {**data, "first": "renv"}
    for name, version in sorted(_packages(targets).items()):
        yield f"r: {name} {version}", "r_package", {"package": name, "version": version}


def program(targets: Sequence[Target]) -> str | None:
    return next((f"{t.place}/bin/R" for t in targets for token, _ in _provided(t) if token == _R), None)


def _packages(targets: Sequence[Target]) -> dict[str, str]:
    """Return R packages that were asked for, with the locked version. Names of other targets' packages are in lower case."""
    found: dict[str, tuple[str, str]] = {}
    wanted: set[str] = set()
    for target in sorted(targets, key=lambda t: t.kind == "r"):  # a library comes before what is around it
        found |= {token: (token.removeprefix("r:"), version) for token, version in _provided(target)}
        if target.kind == "r":
            found |= {f"r:{p.name.lower()}": (p.name, p.version) for p in target.pins}
            wanted |= {f"r:{_name(ask).lower()}" for ask in target.asks}
        else:
            wanted |= {text.partition(" ")[0] for p in target.pins if p.asked for text in p.provides if text.startswith("r:")}
    return dict(found[token] for token in wanted - {_R} if token in found)


def _provided(target: Target) -> Iterator[tuple[str, str]]:
    """Return the R packages that the pins of a target provide: token and version."""
    for pin in target.pins:
        for token, _, version in (text.partition(" ") for text in pin.provides):
            if token.startswith("r:"):
                yield token, version


def _name(ask: Ask) -> str:
    return str(ask.what.get("name", "")) if isinstance(ask.what, Mapping) else str(ask.what).partition(" ")[0]
