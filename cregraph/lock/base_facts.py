"""Base facts: properties of a base image, for use without the image. Written once to `bases/<digest>.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cregraph.digest import Json

__all__ = ["BaseFacts", "DirFact", "LayerFact", "PythonFact", "follow"]


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
        """Return `path`, normalised, with the base's symbolic links followed, in the last component only if `/.` is after it.

        Raises ValueError if links form a loop (40 hops, as in Linux) or lead above the root.
        """
        head, _, last = path.rstrip("/").rpartition("/")
        try:
            if last in ("", ".", ".."):
                return follow(path, self.links.get)
            return f"{follow(head, self.links.get).rstrip('/')}/{last}"
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None


def follow(path: str, link_at: Callable[[str], str | None], *, climbs: bool = False) -> str:
    """Return `path`, absolute and normal, with every link followed. `link_at` returns the text of the link at a path.

    Raises ValueError if links form a loop (40 hops, as in Linux), or if it leads above the root, unless it `climbs`: then the
    root's parent is the root, as in the kernel.
    """
    todo = [part for part in reversed(path.split("/")) if part]
    done: list[str] = []
    hops = 0
    while todo:
        part = todo.pop()
        if part == ".":
            continue
        if part == "..":
            if not done and not climbs:
                raise ValueError("leads above the root")
            done = done[:-1]
            continue
        link = link_at("/" + "/".join([*done, part]))
        if link is None:
            done.append(part)
            continue
        hops += 1
        if hops > 40:
            raise ValueError("runs through a loop of symbolic links")
        if link.startswith("/"):
            done = []
        todo.extend(part for part in reversed(link.split("/")) if part)
    return "/" + "/".join(done)
