"""Debian's Python moved to another prefix, made to behave like an upstream CPython there.

Debian patches where site-packages are and which install scheme is the default; both patches are undone, and the build
facts of sysconfig are rewritten to the new prefix.
"""

from __future__ import annotations

import ast
import pprint
import re
from pathlib import Path

from .parts import words

MINOR = "3.11"
RUNTIME = words("python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libpython3.11")
HEADERS = ["libpython3.11-dev", "python3.11-dev"]

_CUSTOMIZE = """\
# Debian's `site` is frozen into the program and knows no site-packages: the one on disk, which does, is used for it.
import os
import site
import sys


def getsitepackages(prefixes=None):
    name = "python%d.%d" % sys.version_info[:2]
    prefixes = dict.fromkeys(site.PREFIXES if prefixes is None else prefixes)
    return [os.path.join(prefix, "lib", name, "site-packages") for prefix in prefixes if prefix]


site.getsitepackages = getsitepackages
for _folder in getsitepackages():
    if os.path.isdir(_folder) and _folder not in sys.path:
        site.addsitedir(_folder)
"""


def make_upstream(tree: Path, prefix: str) -> None:
    """Rewrite the Python unpacked in `tree` (`bin`, `lib`, `include`) so that it lives at `prefix`.

    Its mark of an externally managed environment (PEP 668) stays.
    """
    lib = tree / f"lib/python{MINOR}"
    (lib / "site-packages").mkdir(exist_ok=True)
    _site(lib / "site.py")
    (lib / "sitecustomize.py").write_text(_CUSTOMIZE)
    _schemes(lib / "sysconfig.py")
    for facts in lib.glob("_sysconfigdata*.py"):
        if not facts.is_symlink():
            _facts(facts, prefix)
    for config in lib.glob("config-*"):
        for drop in [*config.glob("*.a"), *config.glob("*.so"), config / "python.o"]:
            drop.unlink(missing_ok=True)
        for text in config.iterdir():
            text.write_text(_at(text.read_text(), prefix))
    for script in tree.glob("bin/python*-config"):
        if not script.is_symlink():
            script.write_text(_at(script.read_text(), prefix))
    for name in ("python", "python3"):
        (tree / "bin" / name).symlink_to(f"python{MINOR}")


def _site(path: Path) -> None:
    text = path.read_text()
    start = text.index("        if os.sep == '/':", text.index("def getsitepackages("))
    end = text.index("        else:\n            sitepackages.append(prefix)", start)
    ours = (
        "        if os.sep == '/':\n"
        '            libdirs = [sys.platlibdir] if sys.platlibdir == "lib" else [sys.platlibdir, "lib"]\n'
        "            for libdir in libdirs:\n"
        '                path = os.path.join(prefix, libdir, "python%d.%d" % sys.version_info[:2], "site-packages")\n'
        "                sitepackages.append(path)\n"
    )
    path.write_text(text[:start] + ours + text[end:])


def _schemes(path: Path) -> None:
    text = path.read_text()
    upstream, found = re.subn(r"prefix_scheme = '(?:deb_system|posix_local)'", "prefix_scheme = 'posix_prefix'", text)
    if found != 2:
        raise AssertionError("Debian's sysconfig.py has changed: its default schemes were not found")
    path.write_text(upstream)


def _facts(path: Path, prefix: str) -> None:
    tree = ast.parse(path.read_text())
    assignment = tree.body[-1]
    assert isinstance(assignment, ast.Assign)
    facts = ast.literal_eval(assignment.value)
    moved = {
        name: _at(value, prefix) if isinstance(value, str) and name not in ("TZPATH", "WASM_STDLIB") else value
        for name, value in facts.items()
    }
    path.write_text("build_time_vars = " + pprint.pformat(moved, width=120) + "\n")


def _at(text: str, prefix: str) -> str:
    """`text` with Debian's own build folder forgotten and /usr, where it means the prefix, replaced."""
    text = re.sub(r" ?-f(?:file|debug|macro)-prefix-map=[^\s'\"]*=\.", "", text)
    text = re.sub(r"(?<![\w.])/usr(?=/(?:lib|include|share|bin/python)|['\"\s]|$)", prefix, text, flags=re.MULTILINE)
    for folder in ("lib", "include"):
        text = text.replace(f"{prefix}/{folder}/x86_64-linux-gnu", f"{prefix}/{folder}")
    return text
