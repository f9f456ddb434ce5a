"""What a prefix needs so that Debian's files work there: paths in text files, and R's own scripts and build flags."""

from __future__ import annotations

import re
from pathlib import Path

from .conda import PLACEHOLDER as HERE

_WRAPPER = f"""#!/bin/sh
# The program has the place of Debian's R compiled in; RHOME tells it where this one is.
RHOME="{HERE}/lib/R"
export RHOME
exec "{HERE}/lib/R/bin/Rscript.program" "$@"
"""


def pkgconfig(tree: Path) -> None:
    for path in tree.glob("lib/pkgconfig/*.pc"):
        if not path.is_symlink():
            text = re.sub(r"/usr(?=/|\s|$)", HERE, path.read_text(errors="surrogateescape"), flags=re.MULTILINE)
            path.write_text(re.sub(r"/(lib|include)/x86_64-linux-gnu", r"/\1", text), errors="surrogateescape")


def fonts(tree: Path) -> None:
    for path in tree.glob("etc/fonts/fonts.conf"):
        path.write_text(path.read_text().replace("/usr/share/fonts", f"{HERE}/share/fonts"))


def r_base(tree: Path) -> None:
    """Debian's r-base-core, unpacked, made to run at the placeholder's place with nothing set but a call of `bin/R`."""
    home = tree / "lib/R"
    etc = home / "etc"
    (etc / "Renviron.ucf").replace(etc / "Renviron")
    (etc / "Renviron.site").write_text("")
    with (etc / "Renviron").open("a") as out:
        out.write(f"FONTCONFIG_FILE=${{FONTCONFIG_FILE-'{HERE}/etc/fonts/fonts.conf'}}\n")
        for name in ("TCL", "TK"):
            folder = f"{HERE}/share/tcltk/{name.lower()}8.6"
            out.write(f"{name}_LIBRARY=${{{name}_LIBRARY-'{folder}'}}\n")
    for path in [home / "bin/R", *etc.iterdir(), tree / "lib/pkgconfig/libR.pc"]:
        text = path.read_text()
        text = re.sub(r"/usr/(?:lib|share)/R(?![\w-])", f"{HERE}/lib/R", text)
        text = text.replace("/etc/R/", f"{HERE}/lib/R/etc/").replace("/usr/${libnn", f"{HERE}/${{libnn")
        text = text.replace("/usr/lib/x86_64-linux-gnu", f"{HERE}/lib").replace("/usr/include", f"{HERE}/include")
        text = text.replace("'/usr/local/lib/R/site-library:%S'", "'%S'")
        path.write_text(_flags(text) if path.name == "Makeconf" else text)
    (home / "bin/Rscript").replace(home / "bin/Rscript.program")
    (home / "bin/Rscript").write_text(_WRAPPER)
    (home / "bin/Rscript").chmod(0o755)
    for name in ("R", "Rscript"):
        (tree / "bin" / name).unlink()
        (tree / "bin" / name).symlink_to(f"../lib/R/bin/{name}")


def _flags(makeconf: str) -> str:
    """Build flags as Debian's without its build folder and debug information; found are the prefix's headers and libraries."""
    makeconf = re.sub(r"-ffile-prefix-map=\S+ ", "", makeconf)
    makeconf = re.sub(r"(FLAGS = )-g ", r"\1", makeconf)
    makeconf = re.sub(r"(?m)^CPPFLAGS = .*$", f"CPPFLAGS = -I{HERE}/include", makeconf)
    found = f"-Wl,-z,relro -Wl,-rpath,{HERE}/lib -Wl,-rpath-link,{HERE}/lib -L{HERE}/lib"
    return re.sub(r"(?m)^LDFLAGS = .*$", f"LDFLAGS = {found}", makeconf)
