"""Base facts: properties of a base image, for use without the image. Written once to `bases/<digest>.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cregraph.digest import Json

__all__ = ["BaseFacts", "DirFact", "LayerFact", "PythonFact"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerFact:
    """A layer of the base: `digest` of its blob (`sha256:…`), `diff_id`, blob size in bytes, OCI media type."""

    digest: str
    diff_id: str
    size: int
    media_type: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DirFact:
    """A directory of the base: permission bits, numeric owner, mtime in whole seconds."""

    mode: int
    uid: int
    gid: int
    mtime: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonFact:
    """The Python interpreter of notebooks, with all links resolved.

    `version` is `3.11.2`; `executable`, `prefix`, `site_packages` and `scripts` are absolute paths.
    `distributions` maps the normal name (PEP 503) to the version, for all distributions on its path.
    """

    version: str
    executable: str
    prefix: str
    site_packages: str
    scripts: str
    distributions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseFacts:
    """All that lock and plan know about a base.

    `digest` is the manifest's (`sha256:…`), `config` the parsed config. `users` maps a name to (uid, gid, home).
    `directories` holds every directory of the image, `links` every symbolic link (path to text). All paths are absolute.
    `files` are the other paths, only below the places that images write to (see image/bases/facts_from_layers.py).
    """

    digest: str
    config: Mapping[str, Json]
    layers: tuple[LayerFact, ...]
    glibc: str | None
    users: Mapping[str, tuple[int, int, str]]
    python: PythonFact | None
    directories: Mapping[str, DirFact] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    files: frozenset[str] = frozenset()

    def resolve(self, path: str) -> str:
        """Return `path`, normalised, with the base's symbolic links followed in all components but the last.

        Raises ValueError if links form a loop (40 hops, as in Linux) or lead above the root.
        """
        todo = [p for p in reversed(path.split("/")) if p]
        done: list[str] = []
        hops = 0
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                if not done:
                    raise ValueError(f"{path} leads above the root")
                done.pop()
                continue
            here = "/" + "/".join([*done, part])
            link = self.links.get(here) if todo else None
            if link is None:
                done.append(part)
                continue
            hops += 1
            if hops > 40:
                raise ValueError(f"{path} runs through a loop of symbolic links")
            if link.startswith("/"):
                done = []
            todo.extend(p for p in reversed(link.split("/")) if p)
        return "/" + "/".join(done)
