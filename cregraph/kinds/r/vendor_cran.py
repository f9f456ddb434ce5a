"""CRAN trees of the pinned R packages in a vendor folder: one for each date, with the index that R reads.

PACKAGES lists the newest version of each package, which lies in src/contrib; older ones lie in its Archive, as on CRAN. Packages
in a folder below src/contrib (recommended ones) are listed with that folder.

Source: "R Installation and Administration", section 6.6.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.formats import dcf
from cregraph.formats.tarball import scan
from cregraph.image.model.gzip_members import compress
from cregraph.lock.pins import Artifact, Pin
from cregraph.sources import cran
from cregraph.store.atomic_file import file_digest, write_file
from cregraph.vendor.vendor_files import Tree, VendorAccess, put_files

__all__ = ["FOLDERS", "put", "sources", "vendor_path", "write_index"]

FOLDERS = {"cran": ("PACKAGES", "PACKAGES.gz"), "cran-binary": ("PACKAGES", "PACKAGES.gz")}

#: Fields of DESCRIPTION that an index has, in the order that tools::write_PACKAGES gives them.
_FIELDS = (
    *("Package", "Version", "Priority", "Depends", "Imports", "LinkingTo", "Suggests", "Enhances", "License"),
    *("License_is_FOSS", "License_restricts_use", "OS_type", "Archs", "Built"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Package:
    name: str
    version: str
    fields: dict[str, str]
    path: Path
    below: str  # the folder below src/contrib, empty for its own and for the Archive


def vendor_path(artifact: Artifact) -> str:
    """Return the path that the file has until `write_index` moves older versions to the Archive."""
    cran.locations(("file:///",), artifact.file)  # raises for what is no file of a CRAN
    path, name = cran.path_of(artifact.file), artifact.file.rpartition("/")[2]
    head = artifact.file.removesuffix(f"{path}/{name}" if path else name).strip("/")
    root = "cran-binary" if cran.is_built(artifact.file) else "cran"
    return "/".join(part for part in (root, head, "src/contrib", path, name) if part)


def put(tree: Tree, files: Mapping[str, Artifact], access: VendorAccess) -> set[str]:
    """Write the packages. Those in an Archive go back to `vendor_path` first; `write_index` sorts them again."""
    for root in FOLDERS:
        for path in sorted((tree.folder / root).rglob("src/contrib/Archive/*/*.tar.gz")):
            path.replace(path.parents[2] / path.name)
    return put_files(tree, files, access)


def write_index(folder: Path, pins: Sequence[Pin]) -> None:
    """Write the index of every tree, and move each version to where it belongs in its tree."""
    for contrib in sorted(path for root in FOLDERS for path in (folder / root).rglob("src/contrib")):
        if contrib.is_dir():
            _write(contrib)


def sources(folder: Path) -> Mapping[str, Json]:
    return {"cran": "./cran/{date}", "cran_binary": "./cran-binary/{distribution}/{r}/{date}"}


def _write(contrib: Path) -> None:
    found = [_package(path, contrib) for path in sorted(contrib.rglob("*.tar.gz")) if not path.name.startswith(".")]
    listed = [*(one for one in found if one.below), *_archived(contrib, [one for one in found if not one.below])]
    for folder in (*(contrib / "Archive").glob("*"), contrib / "Archive"):
        with contextlib.suppress(OSError):
            folder.rmdir()  # `put` may have emptied it
    listed.sort(key=lambda one: (one.name, one.below, cran.version_key(one.version)))
    text = "\n".join(_stanza(one) for one in listed).encode()
    write_file(contrib / "PACKAGES", text)
    write_file(contrib / "PACKAGES.gz", b"".join(compress([text or b"\n"])))


def _archived(contrib: Path, found: Sequence[_Package]) -> Iterator[_Package]:
    """Move all versions but the newest of each package to the Archive; yield the newest, which PACKAGES lists."""
    newest: dict[str, _Package] = {}
    for one in found:
        other = newest.setdefault(one.name, one)
        if cran.version_key(one.version) > cran.version_key(other.version):
            newest[one.name] = one
    for one in found:
        is_newest = newest[one.name].path.name == one.path.name
        target = contrib / one.path.name if is_newest else contrib / "Archive" / one.name / one.path.name
        if one.path != target:
            target.parent.mkdir(parents=True, exist_ok=True)
            one.path.replace(target)
        if is_newest:
            yield replace(one, path=target)


def _package(path: Path, contrib: Path) -> _Package:
    what = f"`{path}`"
    held = scan(path, what=what, wanted={"DESCRIPTION"}, hint="use an R package")
    if "DESCRIPTION" not in held.read:
        raise CregraphError(f"{what} has no DESCRIPTION in its top folder, so it is not an R package", hint="remove it")
    fields = dcf.paragraph(dcf.decode(held.read["DESCRIPTION"]), what=f"{what}: DESCRIPTION")
    if not cran.is_version(fields.get("Version", "")) or f"{fields.get('Package')}_{fields['Version']}.tar.gz" != path.name:
        raise CregraphError(
            f"{what} holds {fields.get('Package')} {fields.get('Version')}, which does not match its name",
            hint="ask the operator of the source of R packages: its files do not match their names",
        )
    below = path.parent.relative_to(contrib).as_posix()
    below = "" if below == "." or below.startswith("Archive/") else below
    return _Package(name=fields["Package"], version=fields["Version"], fields=fields, path=path, below=below)


def _stanza(one: _Package) -> str:
    md5 = file_digest(one.path, "md5")
    shown = {name: one.fields[name] for name in _FIELDS if one.fields.get(name)}
    shown |= {"MD5sum": md5, "NeedsCompilation": one.fields.get("NeedsCompilation", "no")}
    if one.below:
        shown["Path"] = one.below
    return "".join(f"{name}: {value}\n" for name, value in shown.items())
