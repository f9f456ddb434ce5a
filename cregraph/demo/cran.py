"""A CRAN: src/contrib with its index, source packages in the layout of `R CMD build`, and an Archive.

The sources are valid, small R packages. The demo only locks them, because it has no R to compile them.
"""

from __future__ import annotations

from pathlib import Path

from cregraph.demo.archives import Item, folder, gz, tar, text
from cregraph.kinds.r.vendor_cran import write_index

__all__ = ["write_cran"]

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
    """Write the tree into `root`, whose name is `cran`. Return the number of packages in its index."""
    contrib = root / "src" / "contrib"
    contrib.mkdir(parents=True, exist_ok=True)
    versions = {"demostats_1.0-2": "", "demostats_1.0-3": "", "demoplots_0.4.2": "demoframes, demostats (>= 1.0-2)"}
    for stem, imports in versions.items():
        (contrib / f"{stem}.tar.gz").write_bytes(_package(*stem.split("_"), compiled=not imports, imports=imports))
    write_index(root.parent, [])  # which moves the older version to the Archive
    return len({stem.split("_")[0] for stem in versions})


def _package(name: str, version: str, *, compiled: bool, imports: str) -> bytes:
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
        text(f"{name}/DESCRIPTION", "".join(f"{key}: {value}\n" for key, value in fields.items())),
        text(f"{name}/NAMESPACE", space),
        folder(f"{name}/R"),
        text(f"{name}/R/{name}.R", body),
    ]
    if compiled:
        items += [folder(f"{name}/src"), text(f"{name}/src/sum.c", _C)]
    return gz(tar(items))
