"""CRAN and repositories of the same layout: index, tarballs, comparison of versions.

    <address>/src/contrib/PACKAGES.gz                       the index (or PACKAGES)
    <address>/src/contrib/[Path/]NAME_VERSION.tar.gz        listed versions
    <address>/src/contrib/Archive/NAME/NAME_VERSION.tar.gz  older versions

An address in sources.yaml may contain `{date}`. CRAN has one version of a package at a time, so a dated snapshot needs no
solver. An artifact's file is `<date>/[Path/]NAME_VERSION.tar.gz`; `locations` returns its possible addresses.

Built packages have the same layout and file names, in one tree for each distribution and date. The file of a built package
is `<distribution>/<R minor>/<date>/[Path/]NAME_VERSION.tar.gz`. Posit Package Manager sends one if the query names R's version
and the processor (`?r_version=4.4&arch=x86_64`, docs.posit.co/rspm/admin/serving-binaries). Otherwise it sends the source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path

from cregraph.errors import CregraphError, nearest
from cregraph.formats import dcf
from cregraph.formats.inflate import blocks_as_file, inflated
from cregraph.lock.pins import Artifact
from cregraph.sources.protocol import NotThere, Sources
from cregraph.sources.routes import join
from cregraph.text import redacted

__all__ = [
    *("Index", "Record", "is_built", "is_distribution", "is_version", "locations", "parse_index"),
    *("path_of", "read_index", "satisfies", "take", "version_key"),
]

_VERSION = re.compile(r"[0-9]+(?:[._-][0-9]+)*")
_DISTRIBUTION = re.compile(r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*")
_BUILT = re.compile(rf"({_DISTRIBUTION.pattern})/(\d+\.\d+)/(?=\d{{4}}-)")
_FILE = re.compile(r"(\d{4}-\d{2}-\d{2})/((?:[A-Za-z0-9._-]+/)*)(([A-Za-z][A-Za-z0-9.]*)_[0-9][0-9A-Za-z._-]*\.tar\.gz)")
_INDEX_LIMIT = 256 << 20
_COMPARED = {">=": ge, "<=": le, "==": eq, "!=": ne, ">": gt, "<": lt}


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A package as the index lists it. `depends` joins Depends and Imports; `path` is its folder below src/contrib."""

    name: str
    version: str
    depends: tuple[dcf.Dependency, ...]
    linking: tuple[dcf.Dependency, ...]
    path: str = ""
    md5: str | None = None


class Index:
    """The packages of one snapshot. `date` is YYYY-MM-DD."""

    def __init__(self, listed: dict[str, list[dict[str, str]]], *, date: str, what: str) -> None:
        self._listed = listed
        self._what = what
        self.date = date

    def find(self, name: str, *, r_version: str | None = None) -> Record | None:
        """Return the newest version of `name` that R `r_version` can use (else the newest of all), or None if not listed.

        An index may list a name twice: recommended packages have a folder for each version of R.
        """
        records = [self._record(fields) for fields in self._listed.get(name, ())]
        if not records:
            return None
        usable = [r for r in records if r_version is None or _fits(r, r_version)]
        return max(usable or records, key=lambda r: version_key(r.version))

    def nearest(self, name: str) -> str | None:
        """Return the listed name nearest to `name`, or None. R's names are case-sensitive."""
        return nearest(name, self._listed)

    def _record(self, fields: dict[str, str]) -> Record:
        where = f"{self._what}: {fields['Package']}"
        path = fields.get("Path", "")
        if path.startswith("/") or ".." in path.split("/"):
            raise CregraphError(f"{where}: Path: `{path[:80]}` leads out of the repository")
        depends, linking = dcf.needs(fields, what=where)
        md5 = fields.get("MD5sum", "").lower()
        return Record(
            name=fields["Package"],
            version=fields["Version"],
            depends=depends,
            linking=linking,
            path=path,
            md5=md5 if re.fullmatch(r"[0-9a-f]{32}", md5) else None,
        )


def version_key(version: str) -> tuple[int, ...]:
    """Return the numbers that R compares, without trailing zeros. `.`, `-` and conda's `_` separate them: 7.3-65 is 7.3.65.

    R's numeric_version() compares dependencies this way. compareVersion() counts trailing zeros, but R does not use it here.
    Raises ValueError for an invalid version.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"`{version}` is not the version of an R package")
    key = [int(part) for part in re.split(r"[._-]", version)]
    while key and key[-1] == 0:
        key.pop()
    return tuple(key)


def is_version(version: str) -> bool:
    return _VERSION.fullmatch(version) is not None


def satisfies(version: str, op: str, wanted: str) -> bool:
    """Return whether `version` `op` `wanted` holds in R; an empty `op` holds. Raises ValueError for an invalid version."""
    if not op:
        return True
    return bool(_COMPARED[op](version_key(version), version_key(wanted)))


def parse_index(data: bytes, *, date: str, what: str) -> Index:
    """Return the index in the bytes of PACKAGES or PACKAGES.gz. Skips entries without a usable name or version.

    Raises CregraphError naming `what` if the data cannot be inflated or inflates to more than 256 MiB.
    """
    data = blocks_as_file(inflated((data,), what=what)).read(_INDEX_LIMIT + 1)
    if len(data) > _INDEX_LIMIT:
        raise CregraphError(f"{what} inflates to more than {_INDEX_LIMIT >> 20} MiB, more than a package index has")
    listed: dict[str, list[dict[str, str]]] = {}
    for fields in dcf.paragraphs(dcf.decode(data), what=what):
        if fields.get("OS_type", "unix") != "unix" or not is_version(fields.get("Version", "")):
            continue
        listed.setdefault(fields.get("Package", ""), []).append(fields)
    listed.pop("", None)
    return Index(listed, date=date, what=what)


def read_index(sources: Sources, date: str) -> Index:
    """Return the index of the snapshot of `date`, from the first address that has one.

    Raises CregraphError naming source and date if no address has one.
    """
    failures: list[CregraphError] = []
    for address in sources.routes("cran", "cran"):
        for name in ("PACKAGES.gz", "PACKAGES"):
            url = join(address.replace("{date}", date), "src/contrib", name)
            try:
                return parse_index(
                    sources.read(kind="url", source=url, file="", limit=_INDEX_LIMIT), date=date, what=redacted(url)
                )
            except NotThere as error:
                failures.append(error)
            except CregraphError as error:
                failures.append(error)
                break  # unreachable or unreadable: the plain file is on the same server
    told = "".join(f"\n  {error.message}" for error in failures)
    raise CregraphError(
        f"no index of R packages for source `cran` as of {date}{told}",
        hint="name a mirror that has this date in sources.yaml (cran: https://…/{date}), or give another with --as-of DATE",
    )


def locations(addresses: Sequence[str], file: str) -> tuple[str, ...]:
    """Return the possible addresses of an artifact's `file` (`2025-06-01/dplyr_1.1.4.tar.gz`): each mirror, then its archive.

    For a built package (`jammy/4.4/2025-06-01/dplyr_1.1.4.tar.gz`) `addresses` are those of built packages.
    Raises CregraphError for a file of neither form (a lock edited by hand).
    """
    built = _BUILT.match(file)
    match = _FILE.fullmatch(file[built.end() :] if built else file)
    if match is None or ".." in file.split("/"):
        raise CregraphError(f"`{file[:200]}` is not a file of source `cran` (expected DATE/NAME_VERSION.tar.gz)")
    date, path, base, name = match.groups()
    found: list[str] = []
    for address in (text.replace("{date}", date) for text in addresses):
        ask = ""
        if built:
            # Posit Package Manager needs a query. Other addresses alone determine R's version and the processor.
            ask = f"?r_version={built[2]}&arch=x86_64" if "/__linux__/" in address and not address.startswith("file://") else ""
            address = address.replace("{distribution}", built[1]).replace("{r}", built[2])
        places = [join(address, "src/contrib", path, base), join(address, "src/contrib", base)]
        found.extend(url + ask for url in dict.fromkeys([*places, join(address, "src/contrib/Archive", name, base)]))
    return tuple(found)


def is_built(file: str) -> bool:
    return _BUILT.match(file) is not None


def is_distribution(text: str) -> bool:
    """Return whether `text` can name a Linux distribution in a repository of built packages (`jammy`, `rhel9`)."""
    return _DISTRIBUTION.fullmatch(text) is not None


def path_of(file: str) -> str:
    """Return the folder below src/contrib in an artifact's `file`; often empty."""
    match = _FILE.fullmatch(_BUILT.sub("", file, count=1))
    return match[2].strip("/") if match else ""


def take(
    sources: Sources,
    name: str,
    version: str,
    *,
    date: str,
    path: str = "",
    md5: str | None = None,
    built: tuple[str, str] | None = None,
) -> tuple[Artifact, Path]:
    """Download the tarball of a version, listed or archived; return its artifact and path. `path` is its folder in src/contrib.

    `built` are the distribution and R's version (`jammy`, `4.4`) of a built package. Posit Package Manager sends a source package
    if it has not built one. The checksums of its index are those of the source packages.
    The artifact's source is `cran`, never a mirror's address. Raises NotThere naming package, version and date.
    """
    file = "/".join(part for part in (*(built or ()), date, path.strip("/"), f"{name}_{version}.tar.gz") if part)
    try:
        return sources.take(kind="r", source="cran", file=file, md5=md5)
    except NotThere:
        what = f"{name} {version}" + (f" for {built[0]}" if built else "")
        raise NotThere(
            f"{what} is neither in src/contrib nor in its Archive, source `cran` as of {date}",
            hint="write the version exactly as CRAN does (3.5-8, not 3.5.8); `==` also finds archived versions up to that date",
        ) from None


def _fits(record: Record, r_version: str) -> bool:
    return all(satisfies(r_version, d.op, d.version) for d in record.depends if d.name == "R" and is_version(d.version or "0.0"))
