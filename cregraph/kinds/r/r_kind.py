"""R packages: a dated snapshot of CRAN, its built packages, tarballs by URL or path, folders of the project.

    - r: {library: $(r.library), from: cran, packages: [survival==3.5-8, dplyr]}
    - r: {library: $(r.library), from: cran, packages: {snowflakeR: https://…/snowflakeR_0.1.0.tar.gz, mine: ./mine}}

`packages` is a list of `name`, `name==version`, `name>=version`, or a mapping of names to a URL, or to a `./path` to a tarball
or folder. `snapshot` is the date of CRAN for every lock (else the first lock decides it). `binaries` names a Linux distribution
whose built packages are taken if they fit.

The sha256 of each source tarball (of a folder: of its packed form) is pinned. An ask that the conda environment around the
library satisfies gets no pin. A source becomes a task, `R CMD INSTALL` straight to the final place, and a segment of its
result; a built package becomes a segment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.image.model.tar_entry import Entry
from cregraph.kinds.base import Input, PinContext, PlaceContext
from cregraph.kinds.image_paths import real_path
from cregraph.kinds.r import r_pinned
from cregraph.kinds.r.r_pinned import check_pin, conda_around, in_order, is_built
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.plan.parts import Placement, Segment, Task, segment, task
from cregraph.profile.package_texts import is_r_name, r_package, r_tarball
from cregraph.profile.step import Step
from cregraph.sources.protocol import Sources
from cregraph.sources.routes import Routes

__all__ = ["FIELDS", "NAME", "ask", "entries", "pin", "place"]

NAME = "r"
ECOSYSTEM = NAME
PARTS = {
    "entries": "r_files",
    "hints": "r_hints",
    "notes": "r_hints",
    "smoke": "r_hints",
    "vendor": "vendor_cran",
    "verify": "r_installed",
}
FIELDS: Mapping[str, tuple[str, bool]] = {
    "library": ("path", True),
    "from": ("text", True),
    "packages": ("json", True),
    "snapshot": ("text", False),
    "binaries": ("text", False),
}

STANDS_ON = frozenset({"image", "conda"})
SNAPSHOTS = True
BUCKETS = 16
ask_text, shown, own_tokens, problems = r_pinned.ask_text, r_pinned.shown, r_pinned.own_tokens, r_pinned.problems

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

#: Beyond R's own flags: the baseline processor, and no debug information (it would hold paths).
_FLAGS = "-march=x86-64 -mtune=generic -g0"
_MAKEVARS = "".join(
    f"{name} += {_FLAGS}\n"
    for language in ("C 17 23", "CXX 11 14 17 20 23", "F", "FC", "OBJC")
    for name in (f"{language.split(' ')[0]}{standard}FLAGS" for standard in ("", *language.split(" ")[1:]))
)

# Installs straight into the final place: an install that is staged elsewhere first would leave that path in what it makes.
# R's help and libraries are equal bytes only when the sources lie in a fixed folder, so they are unpacked here, not by R.
# `source` has no ending, so that tar tells the compressor by the first bytes; what the tarball was called is in no key.
_INSTALL = """\
umask 022
package=$1 library=$2 prefix=$3
printf '%s' "$4" > Makevars
tar -x -f /cregraph/in/source --no-same-owner --no-same-permissions
test -f "$package/DESCRIPTION" || { echo "the archive holds no $package/DESCRIPTION" >&2; exit 1; }
exec "$prefix/bin/R" CMD INSTALL --no-lock --no-staged-install --built-timestamp='1980-01-01 00:00:00 UTC' \
--library="$library" "$package"
"""


def ask(step: Step) -> Sequence[Ask]:
    """Return one ask for each package. Raise CregraphError with the line of a wrong package or source."""
    library, source = step.fields["library"], step.fields["from"]
    snapshot = step.fields.get("snapshot")
    if source != "cran":
        raise CregraphError(f"{step.place_of('from')}: `{source}` is not a source of R packages", hint="write `from: cran`")
    if snapshot is not None and not (isinstance(snapshot, str) and _DATE.fullmatch(snapshot)):
        raise CregraphError(f"{step.place_of('snapshot')}: `{snapshot}` is not a date", hint="write it as 2025-06-01")
    binaries = step.fields.get("binaries")
    if binaries is not None:
        from cregraph.sources.cran import is_distribution

        if not (isinstance(binaries, str) and is_distribution(binaries)):
            raise CregraphError(
                f"{step.place_of('binaries')}: `{binaries}` is not the name of a Linux distribution",
                hint="write it as the repository does: jammy, noble, bookworm, rhel9",
            )
    options = {"from": source, "snapshot": snapshot}
    if binaries is not None:
        options["binaries"] = binaries
    asked = _asked(step.fields["packages"], step)
    return [Ask(kind=NAME, place=library, stage=step.stage, what=what, where=where, options=options) for what, where in asked]


def pin(target: Target, sources: Sources, context: PinContext) -> Target:
    from cregraph.kinds.r import r_pin

    return r_pin.pin(target, sources, context)


def locations(artifact: Artifact, routes: Routes) -> tuple[str, ...]:
    """Return where a snapshot of CRAN with its archive, or a repository of built packages, has the file."""
    from cregraph.sources import cran

    return cran.locations(routes.binaries() if cran.is_built(artifact.file) else routes.snapshots(), artifact.file)


def place(target: Target, context: PlaceContext) -> Placement:
    """Return for each source a task that installs it and a segment of the result, in the order of their needs.

    A built package is a segment, which tasks that need it see in their environment.
    """
    if not target.pins:
        return Placement()
    around = _around(target, context)
    for p in target.pins:
        check_pin(p)
    resolved = real_path(f"{target.place}/.", context.facts, f"R library {target.place}")
    stages = context.stage_of(target)
    pins = {p.name.lower(): p for p in target.pins}
    tasks: dict[str, Task] = {}
    segments: dict[str, Segment] = {}
    for key, inner in _needed(pins).items():
        p = pins[key]
        at, stage = f"{resolved}/{p.name}", stages[p.name]
        if is_built(p):
            place_ = {"at": at, "form": "binary"}
            segments[key] = segment(context.assembly, target, stage=stage, name=p.name, place=place_, source=p.artifact)
            continue
        seen = [
            *context.segments_of(around.conda, around.needed([p, *(pins[k] for k in inner)])),
            *(segments[k].key for k in inner if k not in tasks),
        ]
        tasks[key] = made = task(
            assembly=context.assembly,
            kind=NAME,
            stage=stage,
            name=p.name,
            root=context.build_root,
            argv=("/bin/sh", "-euc", _INSTALL, "cregraph-r", p.name, resolved, around.conda.place, _MAKEVARS),
            env=_environment(around.conda.place),
            output=at,
            inputs={"source": p.artifact},
            results={tasks[k].key: tasks[k].output for k in inner if k in tasks},
            environment=tuple(seen),
        )
        size = p.artifact.size
        segments[key] = segment(context.assembly, target, stage=stage, name=p.name, place={"at": at}, source=made, size=size)
    of = {pins[key].name: each.key for key, each in segments.items()}
    return Placement(segments=tuple(segments.values()), tasks=tuple(tasks.values()), of=of)


def _needed(pins: Mapping[str, Pin]) -> dict[str, list[str]]:
    """Return for each package, in the order of needs, all others of the library that it needs, sorted."""
    needs = {key: [name for need in p.needs if (name := need.removeprefix("r:")) in pins] for key, p in pins.items()}
    found: dict[str, list[str]] = {}
    for key in in_order(needs):
        found[key] = sorted({each for name in needs[key] for each in (name, *found[name])})
    return found


@dataclass(frozen=True, slots=True)
class _Around:
    """The conda environment around a library: the pin of each token, the pin that is R, and what a team asks for by name."""

    conda: Target
    tokens: Mapping[str, str]
    r_itself: str
    named: frozenset[str]

    def needed(self, pins: Sequence[Pin]) -> set[str]:
        """Return the names of the environment's pins that the installation of these R packages needs."""
        roots = {self.r_itself} | {self.tokens[need] for p in pins for need in p.needs if need in self.tokens}
        if any(p.data["compiles"] and not is_built(p) for p in pins):
            roots |= self.named  # libraries to compile against and to load
        return roots


def _around(target: Target, context: PlaceContext) -> _Around:
    conda = conda_around(target.place, context.targets)
    tokens = {provided.partition(" ")[0]: p.name for p in (conda.pins if conda else ()) for provided in p.provides}
    r_itself = tokens.get("r:r") or tokens.get("r:base")
    if conda is None or r_itself is None:
        raise CregraphError(f"no pin of the lock provides R for the library {target.place}", hint="run `cregraph lock`")
    # A package of Python modules has nothing to compile against.
    named = {p.name for p in conda.pins if p.asked and not p.name.startswith("r-") and p.data.get("noarch") != "python"}
    return _Around(conda, tokens, r_itself, frozenset(named))


def entries(segment: Segment, source: Input) -> Iterator[Entry]:
    from cregraph.kinds.r import r_files

    return r_files.entries(segment, source)


def _environment(prefix: str) -> dict[str, str]:
    return {
        "PATH": f"{prefix}/bin:/usr/bin:/bin",
        "MAKEFLAGS": "-j1",
        "SOURCE_DATE_EPOCH": "315532800",
        "R_LIBS": "",
        "R_LIBS_USER": "/nonexistent",
        "R_PROFILE_USER": "/dev/null",
        "R_ENVIRON_USER": "/dev/null",
        "R_MAKEVARS_USER": "/cregraph/build/Makevars",
    }


def _asked(packages: Json, step: Step) -> Iterator[tuple[Json, str]]:
    """Yield each package in normal form, and its place."""
    listed = isinstance(packages, list | tuple)
    if not listed and not isinstance(packages, Mapping):
        raise CregraphError(
            f"{step.place_of('packages')}: expected a list of R packages, or a mapping of their names to URLs and paths"
        )
    for key, text in enumerate(packages) if listed else packages.items():
        where = step.place_of(f"packages[{key}]" if listed else f"packages.{key}")
        try:
            if listed:
                name, op, version = r_package(str(text))
                yield (f"{name} {op}{version}" if op else name), where
            elif is_r_name(str(key)):
                yield {"name": key, "tarball": r_tarball(str(text))}, where
            else:
                raise CregraphError(f"`{key}` is not the name of an R package")
        except CregraphError as error:
            raise CregraphError(f"{where}: {error.message}", hint=error.hint) from None
