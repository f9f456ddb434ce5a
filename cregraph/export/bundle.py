"""The installer as one file: a zip of modules that Python runs as a program. The same sources give the same bytes.

It holds `cregraph.export.installer`, the modules that it needs, unchanged, and `zstd` under the name `zstandard`.
"""

from __future__ import annotations

import ast
import io
import zipfile
from pathlib import Path

from cregraph.kinds import parts

__all__ = ["OLDEST", "bundle", "modules"]

#: The oldest Python that runs the installer: keyword-only dataclasses with slots came with it.
OLDEST = (3, 10)

_MAIN = b"from cregraph.export.installer import main\n\nmain()\n"
_TIME = (1980, 1, 1, 0, 0, 0)
_ROOT = Path(__file__).parents[2]  # of the package


def bundle() -> bytes:
    """Return the bytes of the program. It is not compressed, because another zlib would give other bytes."""
    members = {"__main__.py": _MAIN, "zstandard.py": (_ROOT / "cregraph/export/zstd.py").read_bytes()}
    members |= {path: (_ROOT / path).read_bytes() for path in map(_path, modules()) if path}
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
        path = _path(name)
        if name in seen or path is None:
            continue
        seen.add(name)
        todo.append(name.rpartition(".")[0])
        for node in ast.walk(ast.parse((_ROOT / path).read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cregraph"):
                todo += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(sorted(seen))


def _path(name: str) -> str | None:
    """Return the file of a module of cregraph, or None if the name is not a module."""
    stem = name.replace(".", "/")
    return next((path for path in (f"{stem}/__init__.py", f"{stem}.py") if (_ROOT / path).is_file()), None)
