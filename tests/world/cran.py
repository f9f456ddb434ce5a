"""Dated CRAN snapshots of true source tarballs, which Debian's source packages are, byte for byte, unless repacked."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from pathlib import Path

from .apt import Suite
from .description import r_wanted, read_description

# Release days of Debian 12 and 13: what CRAN packages they have is about what CRAN had then.
DATES = {"bookworm": "2023-06-10", "trixie": "2025-08-09"}
# Chains (strucchange, sandwich, zoo), C++ with LinkingTo Rcpp (plyr, reshape2), C with LinkingTo of one another (xts on
# zoo), Fortran (lmtest, mvtnorm), plain R (foreach, doParallel), and some that the conda channel has as well.
PACKAGES = """
    abind bitops catools doparallel fastmatch foreach formula gtools iterators lmtest mvtnorm plyr reshape2 sandwich
    strucchange survival xts zoo glue rcpp rlang
""".split()
_FIELDS = ("Package", "Version", "Priority", "Depends", "Imports", "LinkingTo", "Suggests", "Enhances", "License", "OS_type")
_R = (4, 2, 2)


def snapshots(suites: dict[str, Suite], into: Path) -> None:
    """Write `<date>/src/contrib` for each suite, with what the earlier dates had in `Archive`."""
    earlier: dict[str, tuple[dict[str, str], Path]] = {}
    for suite, date in DATES.items():
        contrib = into / date / "src/contrib"
        contrib.mkdir(parents=True)
        current: dict[str, tuple[dict[str, str], Path]] = {}
        for tarball in suites[suite].sources([f"r-cran-{name}" for name in PACKAGES]).values():
            fields = true_cran(tarball)
            if fields is not None:
                target = contrib / f"{fields['Package']}_{fields['Version']}.tar.gz"
                target.write_bytes(tarball.read_bytes())
                current[fields["Package"]] = (fields, target)
        for name, (fields, path) in earlier.items():
            if name not in current or current[name][0]["Version"] != fields["Version"]:
                archive = contrib / "Archive" / name
                archive.mkdir(parents=True)
                (archive / path.name).hardlink_to(path)
        index(contrib, current)
        earlier = {**earlier, **current}


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
