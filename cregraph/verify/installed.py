"""Packages that an image itself lists as installed, and the rules by which a kind reads them. Every text is untrusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cregraph.image.bases.file_tree import Directory
from cregraph.image.bases.image_files import Contents
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Pin, Target

__all__ = ["InImage", "Installed", "VerifyRules"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """A package that the image lists in its file `record`.

    `differs` states the difference from its pin, other than the version. `files` maps absolute paths to the recorded
    sha256 (hex) or None.
    """

    name: str
    version: str
    record: str
    differs: str = ""
    files: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class InImage:
    """The files of an image, the facts of its base, and all targets of its lock."""

    contents: Contents
    facts: BaseFacts
    targets: tuple[Target, ...]

    def resolved(self, path: str) -> str:
        """Return the folder `path` with the symbolic links of the base followed."""
        return self.facts.resolve(f"{path}/.")

    def names(self, path: str) -> list[str]:
        """Return the names in the folder `path`, sorted."""
        folder = self.contents.tree.at(path)
        return sorted(folder.children) if isinstance(folder, Directory) else []


class VerifyRules(Protocol):
    """The rules by which a kind finds its packages in an image. A module has these names (`Kind.PARTS`)."""

    def is_record(self, path: str) -> bool:
        """Return whether the file at the absolute `path` may say that a package is installed."""

    def installed(self, target: Target, pins: Mapping[str, Pin], image: InImage) -> Iterable[Installed]:
        """Return the packages that `image` has in `target`. `pins` are those of the image, by name in lower case."""
