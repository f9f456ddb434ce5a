"""The parts of a lock: an ask states one request, a pin fixes one artifact, a target is a place that steps fill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cregraph.digest import Json

__all__ = ["BASE", "BUILD_ROOT", "Artifact", "Ask", "Pin", "Scope", "Target"]

#: "image": the pins become part of the image. "sandbox": only tasks see them, such as compilers.
Scope = Literal["image", "sandbox"]

#: Places of two images: the base, which the image extends, and the build root, which tasks run over.
BASE = "base"
BUILD_ROOT = "build-root"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One request to a target, and the line that states it.

    `kind` and `place` name the target, see `Target`.
    `what` is normalised JSON: a text for the package kinds (`r-base =4.5.2`), an object for files and images.
    `options` must be equal in all asks of one target (channels, the CRAN source, a build's environment).
    `where` is `<file>:<line>: <field>`, only for explanations.
    """

    kind: str
    place: str
    stage: str
    what: Json
    where: str
    options: Mapping[str, Json] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.place}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """Bytes that the build fetches, identified by sha256, located by kind, source and file.

    `source` is the name of a source (`conda-forge`, `cran`, `pypi`), a URL, or `./path` in the project.
    `file` is the path below that source (`linux-64/x-1-0.conda`, `dplyr_1.1.4.tar.gz`), empty for a URL or path.
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
    `data` holds fields of the kind (conda: build, subdir, depends…; python: tags), as JSON without floats.
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
    """A place that steps fill, with its asks and (in a lock) the pins that answer them.

    Attributes:
        kind: Name of the module in `kinds/` that resolves and installs, such as "conda".
        place: Absolute path in the image for most kinds; empty if each ask names its own. A late reference, such as
            "$(snowbooks.python)", stays as written.
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
