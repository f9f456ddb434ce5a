"""Names of images: a registry's reference, `oci:DIR[:tag]` for a layout on disk, `docker:NAME` for a Docker engine.

The grammar is that of the OCI distribution specification and of Docker's reference package:

    [host[:port]/]path[:tag][@digest]      path: lower-case components between `/`, at most 255 characters
                                           tag: [A-Za-z0-9_][A-Za-z0-9._-]{0,127}; digest: sha256:<64 hex digits>

A first component with a dot or a colon, and `localhost`, is a host. A name without a host belongs to Docker Hub.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from cregraph.errors import CregraphError

__all__ = [
    "DOCKER_HUB",
    "DockerName",
    "ImageName",
    "LayoutName",
    "Reference",
    "address",
    "check_repository",
    "check_tag",
    "is_local",
    "parse",
    "parse_reference",
]

#: What people and locks call Docker Hub. `address` knows where it really answers.
DOCKER_HUB = ".".join(("docker", "io"))

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """An image in a registry. `tag` and `digest` are empty when not named; `digest` is `sha256:<hex>`."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}{'@' + self.digest if self.digest else ''}"

    @property
    def name(self) -> str:
        """Return `repository:tag`, without host and digest."""
        return f"{self.repository}:{self.tag}" if self.tag else self.repository

    def at(self, *, tag: str = "", digest: str = "") -> Reference:
        return replace(self, tag=tag, digest=digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutName:
    """An OCI layout on disk; `folder` as written, `tag` empty when the layout holds one image only."""

    folder: str
    tag: str = ""

    def __str__(self) -> str:
        return f"oci:{self.folder}{':' + self.tag if self.tag else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class DockerName:
    """An image that a Docker engine holds, by the name or id that the engine knows it by."""

    name: str

    def __str__(self) -> str:
        return f"docker:{self.name}"


ImageName = Reference | LayoutName | DockerName


def parse(text: str, *, where: str = "image reference") -> ImageName:
    """Return the image name in `text`. Raises CregraphError, beginning with `where` (file and field), if it is not valid."""
    if text.startswith("oci:"):
        folder, tag = text[4:], ""
        head, colon, tail = folder.rpartition(":")
        if colon and "/" not in tail and _TAG.fullmatch(tail):
            folder, tag = head, tail
        if not folder or "\0" in folder or "\n" in folder:
            raise CregraphError(f"{where}: `{text}` does not name a folder", "write `oci:DIR` or `oci:DIR:tag`")
        return LayoutName(folder=folder, tag=tag)
    if text.startswith("docker:"):
        name = text[7:]
        if not re.fullmatch(r"[A-Za-z0-9\[][A-Za-z0-9._/:@\[\]-]*", name):
            raise CregraphError(
                f"{where}: `{text}` does not name an image of a Docker engine", "write `docker:NAME` or `docker:NAME:tag`"
            )
        return DockerName(name=name)
    return parse_reference(text, where=where)


def parse_reference(text: str, *, where: str = "image reference", fold: bool = False) -> Reference:
    """Return the registry reference in `text`. `fold` first makes its path lower-case, as Snowflake folds names.

    Raises CregraphError, beginning with `where`, for anything outside the grammar.
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise CregraphError(f"{where}: `{text}` has a digest that is not sha256:<64 hex digits>")
    first, slash, path = rest.partition("/")
    if slash and (any(c in first for c in ".:") or first == "localhost"):
        host = first
    else:
        host, path = DOCKER_HUB, rest
    host = host.lower()
    if not _HOST.fullmatch(host):
        raise CregraphError(f"{where}: `{text}` has an invalid host: `{host}`", "write `host[:port]/path[:tag]`")
    if host.rpartition("]")[2].count(":") and int(host.rpartition(":")[2]) > 65535:
        raise CregraphError(f"{where}: `{text}` has a port above 65535")
    repository, colon, tag = path.partition(":")
    if colon:
        check_tag(tag, where=where)
    if host in _HUB_NAMES:
        host = DOCKER_HUB
        if repository and "/" not in repository:
            repository = f"library/{repository}"
    repository = repository.lower() if fold else repository
    check_repository(repository, where=where)
    return Reference(host=host, repository=repository, tag=tag, digest=digest)


def check_repository(repository: str, *, where: str) -> None:
    """Raise CregraphError unless `repository` is one that every registry accepts."""
    if len(repository) > 255:
        raise CregraphError(f"{where}: the repository `{repository[:40]}…` is longer than 255 characters")
    if _REPOSITORY.fullmatch(repository):
        return
    if _REPOSITORY.fullmatch(repository.lower()):
        raise CregraphError(f"{where}: the repository `{repository}` has upper-case letters", f"write `{repository.lower()}`")
    raise CregraphError(
        f"{where}: `{repository}` is not a repository's name",
        "use lower-case letters and digits, with single `.`, `_` or `-` between them, in components separated by `/`",
    )


def check_tag(tag: str, *, where: str) -> None:
    """Raise CregraphError unless `tag` is one that every registry accepts."""
    if not _TAG.fullmatch(tag):
        raise CregraphError(
            f"{where}: `{tag[:140]}` is not a tag",
            "use letters, digits, `_`, `.` and `-`, at most 128, not beginning with `.` or `-`",
        )


def is_local(host: str) -> bool:
    """Return whether `host` names this machine, where Docker expects plain HTTP."""
    bare = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return bare in ("localhost", "::1") or re.fullmatch(r"127(?:\.[0-9]{1,3}){3}", bare) is not None


def address(host: str) -> str:
    """Return the host that answers for `host`: another one for Docker Hub, else `host` itself."""
    return ".".join(("registry-1", "docker", "io")) if host in _HUB_NAMES else host


_HUB_NAMES = (DOCKER_HUB, "index." + DOCKER_HUB, "registry-1." + DOCKER_HUB)
