"""R packages standing for snowflakeR and RSnowflake: the same names and Imports, and functions that say what they are."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

from .parts import EPOCH

_IMPORTS = {
    "snowflakeR": "methods, reticulate (>= 1.34), cli, rlang, jsonlite",
    "RSnowflake": "DBI (>= 1.2.0), methods, httr2 (>= 1.0.0), jsonlite, rlang (>= 1.0.0), cli",
}
# Where each is under the folder; the second version of the first is there to be moved to.
FILES = {
    "snowflakeR/v0.1.0/snowflakeR_0.1.0.tar.gz": ("snowflakeR", "0.1.0"),
    "snowflakeR/v0.1.1/snowflakeR_0.1.1.tar.gz": ("snowflakeR", "0.1.1"),
    "RSnowflake/v0.2.0/RSnowflake_0.2.0.tar.gz": ("RSnowflake", "0.2.0"),
}
_CODE = {
    "snowflakeR": """sfr_connect <- function(...) {
  cli::cli_inform("this snowflakeR is a stand-in for tests: it connects to nothing")
  structure(list(stand_in = TRUE), class = "sfr_connection")
}
sfr_has_python <- function() reticulate::py_available(initialize = FALSE)
print.sfr_connection <- function(x, ...) {
  cat("<stand-in of a Snowflake connection>\\n")
  invisible(x)
}
""",
    "RSnowflake": """Snowflake <- function() {
  cli::cli_inform("this RSnowflake is a stand-in for tests: it connects to nothing")
  rlang::list2(stand_in = TRUE, driver = "stand-in")
}
snowflake_request <- function(host) httr2::request(paste0("https://", host))
snowflake_quote <- function(x) DBI::SQL(jsonlite::toJSON(x, auto_unbox = TRUE))
""",
}
_NAMESPACE = {
    "snowflakeR": "export(sfr_connect, sfr_has_python)\nS3method(print, sfr_connection)\n",
    "RSnowflake": "export(Snowflake, snowflake_request, snowflake_quote)\n",
}


def write(into: Path) -> None:
    """Write them all, with equal bytes each time."""
    for path, (name, version) in FILES.items():
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_source(name, version))


def _source(name: str, version: str) -> bytes:
    files = {"DESCRIPTION": _description(name, version), "NAMESPACE": _NAMESPACE[name], "R/stand_in.R": _CODE[name]}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in (name, f"{name}/R"):
            header = tarfile.TarInfo(folder)
            header.type, header.mode, header.mtime = tarfile.DIRTYPE, 0o755, EPOCH
            tar.addfile(header)
        for path, text in sorted(files.items()):
            header = tarfile.TarInfo(f"{name}/{path}")
            header.size, header.mtime = len(text.encode()), EPOCH
            tar.addfile(header, io.BytesIO(text.encode()))
    return gzip.compress(out.getvalue(), mtime=0)


def _description(name: str, version: str) -> str:
    return f"""Package: {name}
Title: Stands for '{name}' in the Tests of 'cregraph'
Version: {version}
Authors@R: person("The authors of cregraph", role = c("aut", "cre"), email = "nobody@example.invalid")
Author: The authors of cregraph [aut, cre]
Maintainer: The authors of cregraph <nobody@example.invalid>
Description: A stand-in with the name and the imports of '{name}'. It connects to nothing and says so.
License: Apache License (>= 2)
Encoding: UTF-8
Depends: R (>= 4.1.0)
Imports: {_IMPORTS[name]}
NeedsCompilation: no
Packaged: 2024-01-15 00:00:00 UTC; nobody
"""
