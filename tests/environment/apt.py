"""Debian's archive, asked through apt with a configuration of our own: nothing of the machine's apt changes.

Only the main archive of a release is used, not its updates: it changes at point releases alone, so the environment's bytes are
stable. Where the archive is, is taken from the machine's own apt sources.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .command import run
from .parts import EnvironmentUnavailable

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_CONFIG = """
Dir::State "{folder}";
Dir::State::lists "lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
"""


def archive_address() -> str:
    """Address of the Debian archive that this machine's apt uses."""

    def asked() -> list[str]:
        form = "$(ORIGIN)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)"
        lines = run("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines()
        rows = [line.split("|") for line in lines]
        return [row[3] for row in rows if row[0] == "Debian" and row[1] == "main" and "-" not in row[2]]

    found = asked()
    if not found:
        run("apt-get", "update")
        found = asked()
    if not found:
        raise EnvironmentUnavailable("apt knows no Debian archive on this machine")
    return found[0].rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One binary package as the archive's index tells of it."""

    name: str
    version: str
    depends: tuple[tuple[tuple[str, str], ...], ...]  # all of: any of: (name, relation such as ">= 1.2" or "")
    provides: tuple[str, ...]
    homepage: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One release of Debian: its packages, and fetching of them, checked by apt against the signed index."""

    folder: Path
    name: str
    packages: dict[str, Package] = field(repr=False)

    @classmethod
    def open(cls, folder: Path, name: str, address: str, *, architecture: str = "amd64") -> Suite:
        for sub in ("lists/partial", "cache/archives/partial", "debs", "sources"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "apt.conf").write_text(_CONFIG.format(folder=folder, architecture=architecture))
        signed = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
        kinds = ("deb", "deb-src")
        (folder / "sources.list").write_text("".join(f"{kind} {signed}{address} {name} main\n" for kind in kinds))
        if not list((folder / "lists").glob("*_Packages*")):
            run("apt-get", "update", "-qq", env={"APT_CONFIG": str(folder / "apt.conf")})
        index = run("apt-cache", "dumpavail", env={"APT_CONFIG": str(folder / "apt.conf")})
        return cls(folder=folder, name=name, packages=dict(_parse(index)))

    def _apt(self, *words: str, cwd: Path) -> str:
        return run("apt-get", *words, cwd=cwd, env={"APT_CONFIG": str(self.folder / "apt.conf")})

    def debs(self, names: list[str]) -> dict[str, Path]:
        """Binary packages on disk, fetched where they are not."""
        into = self.folder / "debs"
        files = {}  # asked for in another folder: of files that are there apt would say nothing
        for line in self._apt("download", "--print-uris", *names, cwd=self.folder / "cache").splitlines():
            file = line.split(" ")[1]
            files[file.split("_")[0]] = into / file
        missing = sorted(name for name, path in files.items() if not path.exists())
        if missing:
            self._apt("download", "-q", *missing, cwd=into)
        return files

    def sources(self, names: list[str]) -> dict[str, Path]:
        """The upstream tarballs of source packages, by source package name, as Debian keeps them."""
        into = self.folder / "sources"
        files = {}
        for line in self._apt("source", "--print-uris", "--tar-only", *names, cwd=self.folder / "cache").splitlines():
            if found := re.match(r"'\S+' ((\S+?)_\S+\.orig\.tar\.\S+) ", line):
                files[found[2]] = into / found[1]
        missing = sorted(name for name, path in files.items() if not path.exists())
        if missing:
            self._apt("source", "-q", "--download-only", "--tar-only", *missing, cwd=into)
        return files


def deb_stream(deb: Path) -> subprocess.Popen[bytes]:
    """A process whose standard output is the tar stream of the files of a binary package."""
    return subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)


def upstream(version: str) -> str:
    """The upstream part of a Debian version: no epoch, no revision, no mark of a repack."""
    version = version.split(":", 1)[-1]
    version = version.rsplit("-", 1)[0] if "-" in version else version
    return re.split(r"[+~.](?:dfsg|ds|repack|deb|git|really)", version)[0].split("~")[0]


def _parse(index: str) -> list[tuple[str, Package]]:
    out = []
    for stanza in index.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", stanza, re.MULTILINE))
        if "Package" not in fields:
            continue
        package = Package(
            name=fields["Package"],
            version=fields["Version"],
            depends=tuple(_needs(fields.get("Pre-Depends", "")) + _needs(fields.get("Depends", ""))),
            provides=tuple(need[0][0] for need in _needs(fields.get("Provides", ""))),
            homepage=fields.get("Homepage", ""),
            description=fields.get("Description", ""),
        )
        out.append((package.name, package))
    return out


def _needs(text: str) -> list[tuple[tuple[str, str], ...]]:
    needs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        choices = []
        for choice in part.split("|"):
            if found := re.match(r"\s*([a-z0-9.+-]+)(?::\w+)?\s*(?:\(([^)]*)\))?", choice):
                choices.append((found[1], found[2] or ""))
        needs.append(tuple(choices))
    return needs
