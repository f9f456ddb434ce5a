"""The installer as one file: a zip of modules that Python runs as a program. The same sources give the same bytes.

It holds `cregraph.export.installer`, the modules that it needs, unchanged, and `zstd` under the name `zstandard`.
"""

from __future__ import annotations

import ast
import io
import zipfile
from importlib.resources import files
from importlib.resources.abc import Traversable

from cregraph.kinds import parts

__all__ = ["OLDEST", "bundle", "modules"]

#: The oldest Python that runs the installer: keyword-only dataclasses with slots came with it.
OLDEST = (3, 10)

_MAIN = b"from cregraph.export.installer import main\n\nmain()\n"
_TIME = (1980, 1, 1, 0, 0, 0)


def bundle() -> bytes:
    """Return the bytes of the program. It is not compressed, because another zlib would give other bytes."""
    members = {"__main__.py": _MAIN, "zstandard.py": _source("cregraph.export.zstd")}
    members |= {_path(name): _source(name) for name in modules()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(members.items()):
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return out.getvalue()


def modules() -> tuple[str, ...]:
    """Return the modules that the installer needs, sorted: its own, the `entries` of all kinds, and all that these import."""
    seen: set[str] = set()
    todo = ["cregraph.export.installer", *(module.__name__ for module in parts("entries").values())]
    while todo:
        name = todo.pop()
        if name in seen or _file(name) is None:
            continue
        seen.add(name)
        todo.append(name.rpartition(".")[0])
        for node in ast.walk(ast.parse(_source(name))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cregraph"):
                todo += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(sorted(seen))


def _path(name: str) -> str:
    path = name.replace(".", "/")
    return f"{path}/__init__.py" if _folder(name) is not None else f"{path}.py"


def _source(name: str) -> bytes:
    found = _file(name)
    assert found is not None
    return found.read_bytes()


def _file(name: str) -> Traversable | None:
    """Return the source of a module of cregraph, or None if the name is not a module."""
    if not name:
        return None
    folder = _folder(name)
    if folder is not None:
        return folder / "__init__.py"
    found = files("cregraph").joinpath(*name.split(".")[1:-1], name.rpartition(".")[2] + ".py")
    return found if found.is_file() else None


def _folder(name: str) -> Traversable | None:
    found = files("cregraph").joinpath(*name.split(".")[1:])
    return found if (found / "__init__.py").is_file() else None
