"""A placeholder for Snowflake's base image: an OCI layout with the relevant paths, users, links and modes.

Its programs do not run. As in a real base, /bin and /lib are links. The home belongs to `jupyter` and is closed to others.
The path of Python contains a link. Some distributions are installed and must not change.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cregraph.demo.archives import Item, folder, gz, link, tar, text
from cregraph.digest import Json, canonical

__all__ = ["TAG", "write_base"]

#: The tag of the only image in the layout.
TAG = "demo"

_SAID = "a stand-in made by `cregraph demo`: the files that cregraph reads of a base, and nothing that can be started"
_CREATED = "2024-01-01T00:00:00Z"
_JUPYTER = 1000
_PYTHON = "opt/python/cpython-3.11.9"
#: Distributions of the base. Asks of Python that they satisfy pin nothing.
_DISTRIBUTIONS = (("demo-kernel", "6.29.0"), ("demo-tables", "2.1.0"))

_PASSWD = f"""\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
jupyter:x:{_JUPYTER}:{_JUPYTER}::/home/jupyter:/bin/bash
"""
# glibc's own banner, from which the version of a C library is read.
_LIBC = f"libc.so.6: {_SAID}\nGNU C Library (stand-in) stable release version 2.35.\n"


def write_base(layout: Path) -> str:
    """Write the base as the layout `layout`, a new folder. Return its manifest digest."""
    layers = [("a root file system in the form of Debian's", _root()), ("a Python tree", _python())]
    rows: list[Json] = []
    diff_ids: list[Json] = []
    for _, items in layers:
        plain = tar(items)
        diff_ids.append("sha256:" + hashlib.sha256(plain).hexdigest())
        rows.append(_blob(layout, gz(plain), "application/vnd.oci.image.layer.v1.tar+gzip"))
    config: Json = {
        "created": _CREATED,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "DASHBOARD_PORT=12003"],
            "Entrypoint": ["/usr/local/bin/entrypoint.sh"],
            "WorkingDir": "/home/jupyter",
            "Labels": {"org.opencontainers.image.title": "cregraph demo base", "org.opencontainers.image.description": _SAID},
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": _CREATED, "created_by": f"cregraph demo: {what}"} for what, _ in layers],
    }
    manifest: Json = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(layout, canonical(config), "application/vnd.oci.image.config.v1+json"),
        "layers": rows,
    }
    entry = _blob(layout, canonical(manifest), "application/vnd.oci.image.manifest.v1+json")
    digest = str(entry["digest"])
    entry |= {
        "platform": {"architecture": "amd64", "os": "linux"},
        "annotations": {"org.opencontainers.image.ref.name": TAG},
    }
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    (layout / "index.json").write_bytes(canonical(index))
    (layout / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    return digest


def _blob(layout: Path, data: bytes, media_type: str) -> dict[str, Json]:
    digest = hashlib.sha256(data).hexdigest()
    path = layout / "blobs" / "sha256" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _root() -> list[Item]:
    plain = (
        "etc home opt run usr usr/bin usr/lib usr/lib/x86_64-linux-gnu usr/lib64 usr/local usr/local/bin usr/sbin usr/share var"
    )
    return [
        *(folder(path) for path in plain.split()),
        *(link(name, f"usr/{name}") for name in ("bin", "lib", "lib64", "sbin")),
        folder("root", mode=0o700),
        folder("home/jupyter", mode=0o750, uid=_JUPYTER, gid=_JUPYTER),
        folder("tmp", mode=0o1777),
        text("etc/passwd", _PASSWD),
        text("etc/group", f"root:x:0:\njupyter:x:{_JUPYTER}:\n"),
        text("etc/os-release", f'NAME="cregraph demo"\nPRETTY_NAME="{_SAID}"\n'),
        text("home/jupyter/.profile", f"# {_SAID}\n", uid=_JUPYTER, gid=_JUPYTER),
        text("usr/lib/x86_64-linux-gnu/libc.so.6", _LIBC, mode=0o755),
        text("usr/local/bin/entrypoint.sh", '#!/bin/sh\nexec "$@"\n', mode=0o755),
    ]


def _python() -> list[Item]:
    site = f"{_PYTHON}/lib/python3.11/site-packages"
    above = ["opt", "opt/python", _PYTHON, f"{_PYTHON}/bin", f"{_PYTHON}/lib", f"{_PYTHON}/lib/python3.11", site]
    items = [
        *(folder(path) for path in above),
        link("opt/python/cpython-3.11", "cpython-3.11.9"),
        text(f"{_PYTHON}/bin/python3.11", f"#!/bin/sh\necho '{_SAID.replace('`', '')}'\n", mode=0o755),
        link(f"{_PYTHON}/bin/python3", "python3.11"),
        link(f"{_PYTHON}/bin/python", "python3.11"),
    ]
    for name, version in _DISTRIBUTIONS:
        module = name.replace("-", "_")
        info = f"{site}/{module}-{version}.dist-info"
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {_SAID}\n"
        items += [
            folder(f"{site}/{module}"),
            text(f"{site}/{module}/__init__.py", f'"""{_SAID}"""\n\n__version__ = "{version}"\n'),
            folder(info),
            text(f"{info}/METADATA", about),
            text(f"{info}/INSTALLER", "cregraph demo\n"),
            text(f"{info}/RECORD", f"{module}/__init__.py,,\n"),
        ]
    return items
