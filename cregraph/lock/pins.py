"""The nouns of a lock: asks, pins and the targets that they share.

ask      one line of a profile or recipe asking one thing of a target
pin      one artifact fixed: the answer to one or several asks, or a dependency of one
target   a place that steps fill; everything asked of it is resolved together
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cregraph.digest import Json

__all__ = ["Artifact", "Ask", "Pin", "Target"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One thing asked of a target, and by which line.

    `target` is `<kind>:<identity>`, such as `conda:/home/jupyter/micromamba`, `r:/…/lib/R/library`,
    `python:$(snowbooks.python)` (a late reference stays as written), `image:snowbooks`, `file:`.
    `what` is normalised JSON: a text for the package kinds (`r-base =4.5.2`), an object for files and images.
    `options` is what all asks of one target must agree on (channels, the CRAN source, a build's environment).
    `where` is `<file>:<line>: <field>`; it explains, and decides nothing.
    """

    kind: str
    target: str
    stage: str
    what: Json
    where: str
    options: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """Bytes that the build fetches: known by sha256, found by kind, source and file.

    `source` is a name of design 6 (`conda-forge`, `cran`, `pypi`), a URL, or `./path` in the project;
    `file` is the place below that source (`linux-64/x-1-0.conda`, `dplyr_1.1.4.tar.gz`), empty for a URL or path.
    Only sha256 decides bytes.
    """

    kind: str
    source: str
    file: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """One artifact fixed by the lock.

    `needs` are tokens that other pins provide (`conda:libzlib`, `r:rlang`, `py:numpy`), by name, without versions.
    `provides` are `<ecosystem>:<name> <version>`; names in the ecosystem's normal form (R: lower case).
    `asked` are the texts of the asks that it answers, as `<stage>: <what>`, sorted; empty for a dependency.
    `data` is the kind's own (conda: build, subdir, depends…; python: tags); JSON without floats.
    """

    name: str
    version: str
    artifact: Artifact
    needs: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A place, what is asked of it, and (in a lock) what answers."""

    kind: str
    id: str
    options: Mapping[str, Json] = field(default_factory=dict)
    asks: tuple[Ask, ...] = ()
    pins: tuple[Pin, ...] = ()
