"""The Python of a base that notebooks run on, and its distributions.

The order of search is that of Snowflake's tools: /opt/python/cpython-*/bin/python3 (the highest version), then python3 in the
folders of the image's PATH, then /usr/local/bin/python3 and /usr/bin/python3, last `python` in the PATH.
The full version comes from the executable or libpython (the first word of `sys.version`), else from patchlevel.h, else from the
folder's name.

Packages go to `<prefix>/lib/pythonX.Y/site-packages` if the base has it, scripts to `<prefix>/bin`. Debian's Python in /usr
has no such folder. There pip uses /usr/local/lib/pythonX.Y/dist-packages and /usr/local/bin. Distributions are read from
*.dist-info and *.egg-info on the whole path: that folder, lib64's, Debian's three, and folders that .pth files add.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from email.parser import BytesHeaderParser

from packaging.utils import canonicalize_name

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.image.bases.file_tree import Tree
from cregraph.lock.base_facts import PythonFact

__all__ = ["find_python"]

_OPT = "/opt/python"


def find_python(tree: Tree, *, config: Mapping[str, Json], where: str) -> PythonFact | None:
    """Return the interpreter of the file system `tree` of the image with this `config`, or None without one.

    Raises CregraphError, beginning with `where`, if its version cannot be read.
    """
    executable = next((found for path in _candidates(tree, config) if (found := tree.resolve(path))), None)
    if executable is None:
        return None
    prefix = posixpath.dirname(posixpath.dirname(executable)) or "/"
    minor = _minor(tree, executable, prefix)
    version = _version(tree, executable, prefix, minor) if minor else None
    if minor is None or version is None:
        raise CregraphError(
            f"{where}: the version of its Python ({executable}) cannot be read from its files",
            "use a base with a CPython 3 that has its executable or include/pythonX.Y/patchlevel.h",
        )
    library = posixpath.join(prefix, "lib", f"python{minor}", "site-packages")
    local = f"/usr/local/lib/python{minor}/dist-packages"
    found = tree.resolve(library)
    debian = prefix == "/usr" and (found is None or tree.resolve("/usr/lib/python3/dist-packages") is not None)
    if debian:
        site_packages, scripts = tree.resolve(local) or local, "/usr/local/bin"
    else:
        site_packages, scripts = found or library, posixpath.join(prefix, "bin")
    path = [site_packages, posixpath.join(prefix, "lib64", f"python{minor}", "site-packages")]
    if debian:
        path += ["/usr/lib/python3/dist-packages", f"/usr/lib/python{minor}/dist-packages", library]
    return PythonFact(
        version=version,
        executable=executable,
        prefix=prefix,
        site_packages=site_packages,
        scripts=scripts,
        distributions=_distributions(tree, path),
    )


def _candidates(tree: Tree, config: Mapping[str, Json]) -> list[str]:
    folders = [name for name in tree.names(_OPT) if name.startswith("cpython-")]

    def rank(name: str) -> tuple[list[int], str]:
        found = re.match(r"cpython-([0-9.]*)", name)
        return [int(part) for part in found[1].split(".") if part] if found else [], name

    highest = [f"{_OPT}/{name}/bin/python3" for name in sorted(folders, key=rank, reverse=True)]
    inner = config.get("config")
    env = inner.get("Env") if isinstance(inner, dict) else None
    paths = [str(one)[5:] for one in env if str(one).startswith("PATH=")] if isinstance(env, list) else []
    plain = [f"{folder}/python" for path in paths for folder in path.split(":") if folder.startswith("/")]
    third = [one for one in plain if not re.search(r"/python2[0-9.]*$", tree.resolve(one) or "")]
    return [*highest, *(f"{one}3" for one in plain), "/usr/local/bin/python3", "/usr/bin/python3", *third]


def _minor(tree: Tree, executable: str, prefix: str) -> str | None:
    """Return `3.11`, from the executable's name, else from the only library of that prefix."""
    if named := re.search(r"python(3\.[0-9]+)$", executable):
        return named[1]
    there = [found[1] for name in tree.names(f"{prefix}/lib") if (found := re.fullmatch(r"python(3\.[0-9]+)", name))]
    return there[0] if len(there) == 1 else None


def _version(tree: Tree, executable: str, prefix: str, minor: str) -> str | None:
    libraries = [
        f"{folder}/libpython{minor}.so{end}"
        for folder in (f"{prefix}/lib", f"{prefix}/lib64", f"{prefix}/lib/x86_64-linux-gnu")
        for end in (".1.0", "")
    ]
    for path in (executable, f"{prefix}/bin/python{minor}", *libraries):
        kept = tree.kept(path)
        if kept and kept.startswith(minor.encode() + b"."):
            return kept.decode()
    header = tree.kept(f"{prefix}/include/python{minor}/patchlevel.h") or b""
    if stated := re.search(rb'#define\s+PY_VERSION\s+"(3\.[0-9]+\.[0-9]+[a-z0-9]*)\+?"', header):
        return stated[1].decode()
    named = re.search(rf"cpython-({re.escape(minor)}\.[0-9]+)", prefix)
    return named[1] if named else None


def _distributions(tree: Tree, path: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    seen: set[str] = set()
    todo = [folder for folder in path if tree.resolve(folder)]
    for folder in todo:  # .pth files add more folders
        real = tree.resolve(folder)
        if real is None or real in seen or len(seen) > 100:
            continue
        seen.add(real)
        for name in tree.names(real):
            text = None
            if name.endswith(".dist-info"):
                text = tree.kept(f"{real}/{name}/METADATA")
            elif name.endswith(".egg-info"):
                text = tree.kept(f"{real}/{name}/PKG-INFO") or tree.kept(f"{real}/{name}")
            elif name.endswith(".egg"):
                text = tree.kept(f"{real}/{name}/EGG-INFO/PKG-INFO")
            elif name.endswith(".pth"):
                todo.extend(_added(real, tree.kept(f"{real}/{name}") or b""))
            if text and (pair := _name_and_version(text)):
                found.setdefault(*pair)
    return dict(sorted(found.items()))


def _added(folder: str, pth: bytes) -> list[str]:
    """Return the folders that a .pth file adds (site.py: one path per line, except `#` and `import` lines)."""
    lines = [line.strip() for line in pth.decode("utf-8", "replace").splitlines()[:1000]]
    return [posixpath.normpath(posixpath.join(folder, x)) for x in lines if x and not x.startswith(("#", "import ", "import\t"))]


def _name_and_version(metadata: bytes) -> tuple[str, str] | None:
    """Return the normal name (PEP 503) and version in the header of core metadata."""
    fields = BytesHeaderParser().parsebytes(metadata)
    name, version = str(fields["Name"] or "").strip(), str(fields["Version"] or "").strip()
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", name) or not re.fullmatch(r"[\x21-\x7e]{1,100}", version):
        return None
    return canonicalize_name(name), version
