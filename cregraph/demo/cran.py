"""A CRAN: src/contrib with its index, source packages in the layout of `R CMD build`, and an Archive.

The sources are valid, small R packages. The demo only locks them, because it has no R to compile them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cregraph.demo.archives import Item, folder, gz, tar, text

__all__ = ["SNAPSHOT", "write_cran"]

#: The day in the profile; the tree is the same for every day.
SNAPSHOT = "2025-06-01"

_C = """\
#include <R.h>
#include <Rinternals.h>

SEXP demo_sum(SEXP x) {
    double total = 0;
    for (R_xlen_t i = 0; i < XLENGTH(x); i++) total += REAL(x)[i];
    return ScalarReal(total);
}
"""


def write_cran(root: Path) -> int:
    """Write the tree into `root`. Return the number of packages in its index."""
    contrib = root / "src" / "contrib"
    listed = [
        _package("demostats", "1.0-3", compiled=True),
        _package("demoplots", "0.4.2", imports="demoframes, demostats (>= 1.0-2)"),
    ]
    contrib.mkdir(parents=True, exist_ok=True)
    index = []
    for fields, data in listed:
        (contrib / _file(fields)).write_bytes(data)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        shown = {key: value for key, value in fields.items() if key not in ("Title", "Description")}
        index.append(_dcf(shown | {"MD5sum": md5}))
    (contrib / "PACKAGES").write_text("\n".join(index), encoding="ascii", newline="\n")
    (contrib / "PACKAGES.gz").write_bytes(gz("\n".join(index).encode()))
    older, data = _package("demostats", "1.0-2", compiled=True)
    (contrib / "Archive" / "demostats").mkdir(parents=True, exist_ok=True)
    (contrib / "Archive" / "demostats" / _file(older)).write_bytes(data)
    return len(listed)


def _package(name: str, version: str, *, compiled: bool = False, imports: str = "") -> tuple[dict[str, str], bytes]:
    fields = {"Package": name, "Version": version, "Depends": "R (>= 4.1)"}
    if imports:
        fields["Imports"] = imports
    fields |= {
        "License": "Apache License (>= 2)",
        "NeedsCompilation": "yes" if compiled else "no",
        "Title": "A Package of the Demo of Cregraph",
        "Description": "Written by `cregraph demo` to be locked. It is on no server.",
    }
    body = (
        "total <- function(x) .Call(demo_sum, as.double(x))\n" if compiled else "draw <- function(x) cat(strrep('*', x), '\\n')\n"
    )
    space = f"useDynLib({name}, demo_sum)\nexport(total)\n" if compiled else "export(draw)\n"
    items: list[Item] = [
        folder(name),
        text(f"{name}/DESCRIPTION", _dcf(fields)),
        text(f"{name}/NAMESPACE", space),
        folder(f"{name}/R"),
        text(f"{name}/R/{name}.R", body),
    ]
    if compiled:
        items += [folder(f"{name}/src"), text(f"{name}/src/sum.c", _C)]
    return fields, gz(tar(items))


def _file(fields: dict[str, str]) -> str:
    return f"{fields['Package']}_{fields['Version']}.tar.gz"


def _dcf(fields: dict[str, str]) -> str:
    return "".join(f"{key}: {value}\n" for key, value in fields.items())
