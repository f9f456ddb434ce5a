"""Dated CRAN snapshots of true source tarballs, which Debian's source packages are, byte for byte, unless repacked."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from pathlib import Path

from .apt import Suite
from .description import needs, r_wanted, read_description
from .parts import words

# Two days of CRAN: of each package a snapshot has the newest version that CRAN published by then.
DATES = ("2024-09-20", "2025-08-09")
# What is taken from which release of Debian (of the rest the archive keeps no source, or a repacked one). There are
# chains (caTools on bitops; doParallel, foreach, iterators), C++ with LinkingTo Rcpp (plyr and reshape2 on it), C with
# LinkingTo of one another (xts on zoo), Fortran (lmtest on zoo, mvtnorm), and some that the conda channel has as well
# (glue, Rcpp, rlang). Newer on the second day: bitops, glue, Rcpp, zip.
PACKAGES = {
    "bookworm": words("bitops doparallel foreach glue iterators reshape2 zip rcpp"),
    "trixie": words("""
        abind bitops catools doparallel fastmatch foreach formula glue gtools iterators lmtest mvtnorm plyr rcpp reshape2
        rlang xts zip zoo
    """),
}
_FIELDS = ("Package", "Version", "Priority", "Depends", "Imports", "LinkingTo", "Suggests", "Enhances", "License", "OS_type")
_R = (4, 2, 2)


def snapshots(suites: dict[str, Suite], into: Path) -> None:
    """Write `<date>/src/contrib` for each date, with what was newest before in `Archive`."""
    found: dict[tuple[str, str], tuple[dict[str, str], Path]] = {}
    for suite, names in PACKAGES.items():
        for tarball in suites[suite].sources([f"r-cran-{name}" for name in names]).values():
            fields = true_cran(tarball)
            if fields is None:
                raise AssertionError(f"{tarball.name} is not CRAN's own")
            found[fields["Package"], fields["Version"]] = (fields, tarball)
    for date in DATES:
        contrib = into / date / "src/contrib"
        contrib.mkdir(parents=True)
        newest: dict[str, tuple[dict[str, str], Path]] = {}
        published = sorted(found.values(), key=lambda one: one[0]["Date/Publication"])
        for fields, tarball in published:
            if fields["Date/Publication"] <= date:
                name, file = fields["Package"], f"{fields['Package']}_{fields['Version']}.tar.gz"
                if name in newest:
                    (contrib / "Archive" / name).mkdir(parents=True, exist_ok=True)
                    newest[name][1].rename(contrib / "Archive" / name / newest[name][1].name)
                (contrib / file).hardlink_to(tarball)
                newest[name] = (fields, contrib / file)
        for name in _unsatisfied(newest, {name for name, _ in found}):
            newest.pop(name)[1].unlink()
        index(contrib, newest)


def _unsatisfied(newest: dict[str, tuple[dict[str, str], Path]], known: set[str]) -> set[str]:
    """What needs a package of ours that was published later than the snapshot's day: CRAN had an older one then."""
    late = known - set(newest)
    while more := {name for name, (fields, _) in newest.items() if name not in late and set(needs(fields)) & late}:
        late |= more
    return late & set(newest)


def true_cran(tarball: Path) -> dict[str, str] | None:
    """DESCRIPTION of a tarball that is CRAN's own and that R 4.2.2 can install; None for any other."""
    if not tarball.name.endswith(".orig.tar.gz") or "+dfsg" in tarball.name:
        return None
    with tarfile.open(tarball) as tar:
        for entry in tar:
            if entry.name.count("/") == 1 and entry.name.endswith("/DESCRIPTION"):
                data = tar.extractfile(entry)
                assert data is not None
                fields = read_description(data.read().decode(errors="replace"))
                own = entry.name.split("/")[0] == fields["Package"] and fields.get("Repository") == "CRAN"
                wanted = tuple(int(number) for number in r_wanted(fields).replace("-", ".").split("."))
                return fields if own and wanted <= _R else None
    return None


def index(contrib: Path, packages: dict[str, tuple[dict[str, str], Path]]) -> None:
    """Write `PACKAGES` and `PACKAGES.gz`, with the fields and in the order of CRAN's."""
    stanzas = []
    for _, (fields, path) in sorted(packages.items()):
        lines = [f"{field}: {fields[field]}" for field in _FIELDS if field in fields]
        lines.append(f"MD5sum: {hashlib.md5(path.read_bytes()).hexdigest()}")
        lines.append(f"NeedsCompilation: {fields.get('NeedsCompilation', 'no')}")
        stanzas.append("\n".join(lines) + "\n")
    text = "\n".join(stanzas).encode()
    (contrib / "PACKAGES").write_bytes(text)
    (contrib / "PACKAGES.gz").write_bytes(gzip.compress(text, mtime=0))
