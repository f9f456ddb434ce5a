"""The nouns of a lock: an ask states one request, a pin fixes one artifact, a target is a place that steps fill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cregraph.digest import Json

__all__ = ["BASE", "BUILD_ROOT", "Artifact", "Ask", "Pin", "Scope", "Target"]

#: "image": the pins become part of the image. "sandbox": only tasks see them, such as compilers.
Scope = Literal["image", "sandbox"]

#: Places of the two images that every lock has: the one that the image extends, and the one that tasks run over.
BASE = "base"
BUILD_ROOT = "build-root"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One request to a target, and the line that states it.

    `kind` and `place` name the target, see `Target`.
    `what` is normalised JSON: a text for the package kinds (`r-base =4.5.2`), an object for files and images.
    `options` is what all asks of one target must agree on (channels, the CRAN source, a build's environment).
    `where` is `<file>:<line>: <field>`; it explains, and decides nothing.
    """

    kind: str
    place: str
    stage: str
    what: Json
    where: str
    options: Mapping[str, Json] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """Return the id of the target."""
        return f"{self.kind}:{self.place}"


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
    """A place that steps fill, what is asked of it, and (in a lock) what answers.

    Attributes:
        kind: Name of the module in `kinds/` that resolves and installs, such as "conda".
        place: What the kind fills: an absolute path in the image for most kinds; empty if each ask names its own. A late
            reference, such as "$(snowbooks.python)", stays as written.
        scope: "image" or "sandbox", see `Scope`. The kind decides it by the place.
    """

    kind: str
    place: str
    scope: Scope = "image"
    options: Mapping[str, Json] = field(default_factory=dict)
    asks: tuple[Ask, ...] = ()
    pins: tuple[Pin, ...] = ()

    @property
    def id(self) -> str:
        """Return the text that names the target in locks, such as `conda:/home/jupyter/micromamba`, `image:base` or `file:`."""
        return f"{self.kind}:{self.place}"

    @property
    def on_demand(self) -> bool:
        """Return whether the target is pinned only if a task needs it: in the sandbox, and not the build root."""
        return self.scope == "sandbox" and self.place != BUILD_ROOT
