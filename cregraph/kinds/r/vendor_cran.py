"""A CRAN of what locks pin: a tree for each date, with the index that R reads ("Writing R Extensions", R-admin 6.6).

PACKAGES lists the newest version of each package, which lies in src/contrib; older ones lie in its Archive, as on CRAN. Packages
of a folder of their own below src/contrib (recommended ones) are listed with it.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cregraph.errors import CregraphError
from cregraph.formats import dcf
from cregraph.formats.tarball import scan
from cregraph.image.model.gzip_members import compress
from cregraph.lock.pins import Artifact
from cregraph.sources import cran
from cregraph.store import write_file

__all__ = ["flatten", "place", "write_indexes"]

#: Fields of DESCRIPTION that an index has, in the order that tools::write_PACKAGES gives them.
_FIELDS = (
    *("Package", "Version", "Priority", "Depends", "Imports", "LinkingTo", "Suggests", "Enhances", "License"),
    *("License_is_FOSS", "License_restricts_use", "OS_type", "Archs", "Built"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Package:
    fields: dict[str, str]
    path: Path
    below: str  # the folder below src/contrib, empty for its own and for the Archive

    @property
    def name(self) -> str:
        return self.fields["Package"]

    @property
    def version(self) -> str:
        return self.fields["Version"]


def place(artifact: Artifact) -> str:
    """Where an R package goes, before older versions are told from the newest."""
    cran.locations(("file:///",), artifact.file)  # raises for what is no file of a CRAN
    path, name = cran.path_of(artifact.file), artifact.file.rpartition("/")[2]
    head = artifact.file.removesuffix(f"{path}/{name}" if path else name).strip("/")
    root = "cran-binary" if cran.is_built(artifact.file) else "cran"
    return "/".join(part for part in (root, head, "src/contrib", path, name) if part)


def flatten(folder: Path) -> None:
    """Put what lies in an Archive back beside the rest, as `place` has it; `write_indexes` tells the newest from the others."""
    for root in ("cran", "cran-binary"):
        for path in sorted((folder / root).rglob("src/contrib/Archive/*/*.tar.gz")):
            path.replace(path.parents[2] / path.name)


def write_indexes(root: Path) -> None:
    """Write the index of every tree below `root`, and put each version where it belongs in its tree."""
    for contrib in sorted(root.rglob("src/contrib")):
        if contrib.is_dir():
            _write(contrib)


def _write(contrib: Path) -> None:
    found = [_package(path, contrib) for path in sorted(contrib.rglob("*.tar.gz")) if not path.name.startswith(".")]
    newest: dict[str, _Package] = {}
    for one in found:
        if not one.below and (one.name not in newest or _newer(one, newest[one.name])):
            newest[one.name] = one
    listed = [one for one in found if one.below]
    for one in found:
        if one.below:
            continue
        is_newest = newest[one.name].path.name == one.path.name
        target = contrib / one.path.name if is_newest else contrib / "Archive" / one.name / one.path.name
        if one.path != target:
            target.parent.mkdir(parents=True, exist_ok=True)
            one.path.replace(target)
        if is_newest:
            listed.append(_Package(fields=one.fields, path=target, below=""))
    for folder in (*(contrib / "Archive").glob("*"), contrib / "Archive"):
        with contextlib.suppress(OSError):
            folder.rmdir()  # what `flatten` emptied
    listed.sort(key=lambda one: (one.name, one.below, cran.version_key(one.version)))
    text = "\n".join(_stanza(one) for one in listed).encode()
    write_file(contrib / "PACKAGES", text)
    write_file(contrib / "PACKAGES.gz", b"".join(compress([text])) if text else b"".join(compress([b"\n"])))


def _newer(one: _Package, other: _Package) -> bool:
    return cran.version_key(one.version) > cran.version_key(other.version)


def _package(path: Path, contrib: Path) -> _Package:
    what = f"`{path}`"
    held = scan(path, what=what, wanted={"DESCRIPTION"}, hint="an R package is wanted there")
    if "DESCRIPTION" not in held.read:
        raise CregraphError(f"{what} holds no DESCRIPTION in its top folder, so it is no R package", hint="remove it")
    fields = dcf.paragraph(dcf.decode(held.read["DESCRIPTION"]), what=f"{what}: DESCRIPTION")
    if not cran.is_version(fields.get("Version", "")) or f"{fields.get('Package')}_{fields['Version']}.tar.gz" != path.name:
        raise CregraphError(
            f"{what} holds {fields.get('Package')} {fields.get('Version')}, not what its name says",
            hint="the source of R packages is out of step with itself: ask who runs it",
        )
    below = path.parent.relative_to(contrib).as_posix()
    return _Package(fields=fields, path=path, below="" if below == "." or below.startswith("Archive/") else below)


def _stanza(one: _Package) -> str:
    """A paragraph of PACKAGES."""
    with one.path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    shown = {name: one.fields[name] for name in _FIELDS if one.fields.get(name)}
    shown |= {"MD5sum": md5, "NeedsCompilation": one.fields.get("NeedsCompilation", "no")}
    if one.below:
        shown["Path"] = one.below
    return "".join(f"{name}: {value}\n" for name, value in shown.items())
