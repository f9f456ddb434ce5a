"""A Python package index in the simple form (PEP 503), with pure wheels."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cregraph.demo.archives import zipped
from cregraph.kinds.python import vendor_index

__all__ = ["write_index"]

_SAID = "Made by `cregraph demo`; it is on no server."


def write_index(root: Path) -> int:
    """Write the index into `root`, whose name is `simple`. Return its number of wheels."""
    wheels = [
        _wheel("demo-greeting", "1.0", body='def main() -> None:\n    print("hello")\n'),
        _wheel("demo-greeting", "1.1", body=_GREETING, needs="demo-words >=2", script="demo-greeting = demo_greeting:main"),
        _wheel("demo-words", "2.0", body='WORDS = ("hello", "world")\n'),
    ]
    for name, file, data in wheels:
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / file).write_bytes(data)
    vendor_index.write_index(root.parent, [])
    return len(wheels)


_GREETING = """\
from demo_words import WORDS


def main() -> None:
    print(" ".join(WORDS))
"""


def _wheel(name: str, version: str, *, body: str, needs: str = "", script: str = "") -> tuple[str, str, bytes]:
    """Return name, file name and bytes of a wheel (the binary distribution format, version 1.0)."""
    module = name.replace("-", "_")
    stem = f"{module}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {_SAID}\nRequires-Python: >=3.9\n"
    members = {
        f"{module}/__init__.py": f'"""{_SAID}"""\n\n{body}',
        f"{stem}.dist-info/METADATA": metadata + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: cregraph demo\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        members[f"{stem}.dist-info/entry_points.txt"] = f"[console_scripts]\n{script}\n"
    hashes = {path: base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()) for path, content in members.items()}
    rows = [f"{path},sha256={hashes[path].rstrip(b'=').decode()},{len(content.encode())}" for path, content in members.items()]
    record = f"{stem}.dist-info/RECORD"
    members[record] = "\n".join([*rows, f"{record},,", ""])
    data = zipped((path, content.encode()) for path, content in members.items())
    return name, f"{stem}-py3-none-any.whl", data
