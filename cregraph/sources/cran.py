"""CRAN and what is laid out like it: its index, its tarballs, its way to compare versions.

    <address>/src/contrib/PACKAGES.gz                       the index, else PACKAGES
    <address>/src/contrib/[Path/]NAME_VERSION.tar.gz        what the index lists
    <address>/src/contrib/Archive/NAME/NAME_VERSION.tar.gz  every older version

An address of sources.yaml may hold `{date}`. CRAN has one version of a package at a time, so a dated snapshot needs no
solver. An artifact's file is `<date>/[Path/]NAME_VERSION.tar.gz`; `locations` says where that may lie.

Built packages lie in trees of the same form, one for each distribution and date, under the very names that sources have; the
file of one is `<distribution>/<R minor>/<date>/[Path/]NAME_VERSION.tar.gz`. Posit Package Manager gives one to who names R's
version and the processor (`?r_version=4.4&arch=x86_64`, docs.posit.co/rspm/admin/serving-binaries), else the source.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cregraph.errors import CregraphError, nearest
from cregraph.formats import dcf
from cregraph.lock.pins import Artifact
from cregraph.sources.protocol import NotThere, Sources
from cregraph.sources.routes import join
from cregraph.text import redacted

__all__ = [
    *("Index", "Record", "is_built", "is_distribution", "is_version", "locations", "parse_index"),
    *("path_of", "read_index", "satisfies", "take", "take_built", "version_key"),
]

_VERSION = re.compile(r"[0-9]+(?:[._-][0-9]+)*")
_DISTRIBUTION = re.compile(r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*")
_BUILT = re.compile(rf"({_DISTRIBUTION.pattern})/(\d+\.\d+)/(?=\d{{4}}-)")
_FILE = re.compile(r"(\d{4}-\d{2}-\d{2})/((?:[A-Za-z0-9._-]+/)*)(([A-Za-z][A-Za-z0-9.]*)_[0-9][0-9A-Za-z._-]*\.tar\.gz)")
_INDEX_LIMIT = 256 << 20


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
    """What one snapshot lists. `date` is the snapshot's."""

    def __init__(self, listed: dict[str, list[dict[str, str]]], *, date: str, what: str) -> None:
        self._listed = listed
        self._what = what
        self.date = date

    def find(self, name: str, *, r_version: str | None = None) -> Record | None:
        """The newest version of `name` that R `r_version` can use (the newest of all if none can), or None.

        A name may be listed twice: recommended packages stand in a folder for each version of R.
        """
        records = [self._record(fields) for fields in self._listed.get(name, ())]
        if not records:
            return None
        usable = [r for r in records if r_version is None or _fits(r, r_version)]
        return max(usable or records, key=lambda r: version_key(r.version))

    def nearest(self, name: str) -> str | None:
        """The listed name that `name` was probably meant to be; R's names are case-sensitive."""
        return nearest(name, self._listed)

    def _record(self, fields: dict[str, str]) -> Record:
        where = f"{self._what}: {fields['Package']}"

        def listed(field: str) -> tuple[dcf.Dependency, ...]:
            return dcf.dependencies(fields.get(field), what=f"{where}: {field}")

        path = fields.get("Path", "")
        if path.startswith("/") or ".." in path.split("/"):
            raise CregraphError(f"{where}: Path: `{path[:80]}` leads out of the repository")
        md5 = fields.get("MD5sum", "").lower()
        return Record(
            name=fields["Package"],
            version=fields["Version"],
            depends=listed("Depends") + listed("Imports"),
            linking=listed("LinkingTo"),
            path=path,
            md5=md5 if re.fullmatch(r"[0-9a-f]{32}", md5) else None,
        )


def version_key(version: str) -> tuple[int, ...]:
    """What R compares: whole numbers between `.` and `-` (conda writes `_`), so 7.3-65 is 7.3.65; trailing zeros are equal.

    As R's numeric_version() does it for dependencies (compareVersion() counts trailing zeros; R itself does not use it here).
    Raises ValueError for what is no version.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"`{version}` is no version of an R package")
    key = [int(part) for part in re.split(r"[._-]", version)]
    while key and key[-1] == 0:
        key.pop()
    return tuple(key)


def is_version(version: str) -> bool:
    """Whether `version` is one that R can compare."""
    return _VERSION.fullmatch(version) is not None


def satisfies(version: str, op: str, wanted: str) -> bool:
    """Whether `version` is `op` `wanted` by R's rules; no `op` is always satisfied. Raises ValueError for no version."""
    if not op:
        return True
    ours, theirs = version_key(version), version_key(wanted)
    answers = {
        ">=": ours >= theirs,
        "<=": ours <= theirs,
        "==": ours == theirs,
        "!=": ours != theirs,
        ">": ours > theirs,
        "<": ours < theirs,
    }
    return answers[op]


def parse_index(data: bytes, *, date: str, what: str) -> Index:
    """The index in the bytes of PACKAGES or PACKAGES.gz. Entries without a usable name or version are passed over.

    Raises CregraphError naming `what` for what cannot be inflated, or inflates beyond the size of any index.
    """
    if data.startswith(b"\x1f\x8b"):
        import gzip

        try:
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(_INDEX_LIMIT + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise CregraphError(f"{what} cannot be inflated: {error}") from None
        if len(data) > _INDEX_LIMIT:
            raise CregraphError(f"{what} inflates to more than {_INDEX_LIMIT >> 20} MiB, which no package index does")
    listed: dict[str, list[dict[str, str]]] = {}
    for fields in dcf.paragraphs(dcf.decode(data), what=what):
        if fields.get("OS_type", "unix") != "unix" or not is_version(fields.get("Version", "")):
            continue
        listed.setdefault(fields.get("Package", ""), []).append(fields)
    listed.pop("", None)
    return Index(listed, date=date, what=what)


def read_index(sources: Sources, date: str) -> Index:
    """The index of the snapshot of `date`, from the first address that has one.

    Raises CregraphError naming source and date when none does.
    """
    failures: list[CregraphError] = []
    for address in _addresses(sources.routes("cran", "cran"), date):
        for name in ("PACKAGES.gz", "PACKAGES"):
            url = join(address, "src/contrib", name)
            try:
                return parse_index(
                    sources.read(kind="url", source=url, file="", limit=_INDEX_LIMIT), date=date, what=redacted(url)
                )
            except NotThere as error:
                failures.append(error)
            except CregraphError as error:
                failures.append(error)
                break  # unreachable or unreadable: the plain file lies on the same server
    told = "".join(f"\n  {error.message}" for error in failures)
    raise CregraphError(
        f"no index of R packages for source `cran` as of {date}{told}",
        hint="name a mirror that has this date in sources.yaml (cran: https://…/{date}), or give another with --as-of DATE",
    )


def locations(addresses: Sequence[str], file: str) -> tuple[str, ...]:
    """Where an artifact's `file` (`2025-06-01/dplyr_1.1.4.tar.gz`) may lie, best first: in each address, then its archive.

    `addresses` are those of built packages when the file is one (`jammy/4.4/2025-06-01/dplyr_1.1.4.tar.gz`).
    Raises CregraphError for a file that is of neither form (a lock edited by hand).
    """
    built = _BUILT.match(file)
    match = _FILE.fullmatch(file[built.end() :] if built else file)
    if match is None or ".." in file.split("/"):
        raise CregraphError(f"`{file[:200]}` is no file of source `cran` (DATE/NAME_VERSION.tar.gz is)")
    date, path, base, name = match.groups()
    found: list[str] = []
    for address in _addresses(addresses, date):
        ask = ""
        if built:
            # Posit Package Manager's own form. Elsewhere the address alone says which R and processor it is for.
            ask = f"?r_version={built[2]}&arch=x86_64" if "/__linux__/" in address and not address.startswith("file://") else ""
            address = address.replace("{distribution}", built[1]).replace("{r}", built[2])
        places = [join(address, "src/contrib", path, base), join(address, "src/contrib", base)]
        found.extend(url + ask for url in dict.fromkeys([*places, join(address, "src/contrib/Archive", name, base)]))
    return tuple(found)


def is_built(file: str) -> bool:
    """Whether an artifact's `file` is one of a built package."""
    return _BUILT.match(file) is not None


def is_distribution(text: str) -> bool:
    """Whether `text` can be the name of a Linux distribution, as a repository of built packages has it (`jammy`, `rhel9`)."""
    return _DISTRIBUTION.fullmatch(text) is not None


def path_of(file: str) -> str:
    """The folder below src/contrib that an artifact's `file` names, mostly empty."""
    built = _BUILT.match(file)
    match = _FILE.fullmatch(file[built.end() :] if built else file)
    return match[2].strip("/") if match else ""


def take(
    sources: Sources, name: str, version: str, *, date: str, record: Record | None = None, path: str = ""
) -> tuple[Artifact, Path]:
    """The tarball of a version, listed (`record`, or below src/contrib in `path`) or archived, with its artifact: source
    `cran`, never a mirror's address.

    Raises NotThere naming package, version and date when no address has it.
    """
    md5 = record.md5 if record else None
    return _take(sources, "cran", _named(name, version, date, record.path if record else path), md5, f"{name} {version}", date)


def take_built(
    sources: Sources, name: str, version: str, *, date: str, distribution: str, r: str, path: str
) -> tuple[Artifact, Path]:
    """What the repositories of built packages have of a version for `distribution` and R `r` (`4.4`), with its artifact.

    It may be a source package: that is what Posit Package Manager gives when it has not built one. Its index's checksums are
    those of the sources, so none is checked. Raises NotThere as `take` does.
    """
    file = f"{distribution}/{r}/{_named(name, version, date, path)}"
    return _take(sources, "cran_binary", file, None, f"{name} {version} for {distribution}", date)


def _named(name: str, version: str, date: str, path: str) -> str:
    path = path.strip("/")
    return f"{date}/{path}{'/' if path else ''}{name}_{version}.tar.gz"


def _take(sources: Sources, section: str, file: str, md5: str | None, what: str, date: str) -> tuple[Artifact, Path]:
    failure: CregraphError | None = None
    for url in locations(sources.routes(section, "cran"), file):
        try:
            taken, where = sources.take(kind="url", source=url, file="", md5=md5)
        except NotThere:
            continue
        except CregraphError as error:
            failure = failure or error
            continue
        return Artifact(kind="r", source="cran", file=file, sha256=taken.sha256, size=taken.size), where
    if failure:
        raise failure
    raise NotThere(
        f"{what} is neither in src/contrib nor in its Archive, source `cran` as of {date}",
        hint="write the version exactly as CRAN does (3.5-8, not 3.5.8); `==` finds all that CRAN had until that date",
    )


def _addresses(addresses: Iterable[str], date: str) -> tuple[str, ...]:
    return tuple(address.replace("{date}", date) for address in addresses)


def _fits(record: Record, r_version: str) -> bool:
    return all(satisfies(r_version, d.op, d.version) for d in record.depends if d.name == "R" and is_version(d.version or "0.0"))
