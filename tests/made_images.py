"""Small images for tests, made on the spot: layers as true tars, as an OCI layout or as blobs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
PLAIN = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def entry(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mtime = 1_700_000_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def folder(name: str, mode: int = 0o755, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode, **fields)


def link(name: str, text: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=text)


def tar(*entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Made:
    """An image as blobs by digest, its manifest among them."""

    def __init__(
        self,
        *tars: bytes,
        media_type: str = GZIP,
        architecture: str = "amd64",
        diff_ids: list[str] | None = None,
        image: dict[str, object] | None = None,
    ) -> None:
        self.blobs: dict[str, bytes] = {}
        layers = [self._add(compressed(one, media_type), media_type) for one in tars]
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": image or {"Env": ["A=b"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [digest(one) for one in tars]},
        }
        named = self._add(json.dumps(config).encode(), CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": named, "layers": layers}
        self.manifest = json.dumps(manifest).encode()
        self.layers = layers
        self.config = named
        self.platform = {"os": "linux", "architecture": architecture}
        self.digest = digest(self.manifest)
        self.blobs[self.digest] = self.manifest

    def _add(self, data: bytes, media_type: str) -> dict[str, object]:
        self.blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


def compressed(data: bytes, media_type: str) -> bytes:
    if media_type == GZIP:
        half = len(data) // 2  # two members: a layer may have any number
        return gzip.compress(data[:half], mtime=0) + gzip.compress(data[half:], mtime=0)
    if media_type == ZSTD:
        import zstandard

        return zstandard.ZstdCompressor(level=3).compress(data)
    return data


def index(*images: Made, tags: tuple[str, ...] = ()) -> bytes:
    listed = []
    for i, image in enumerate(images):
        one: dict[str, object] = {
            "mediaType": MANIFEST,
            "digest": image.digest,
            "size": len(image.manifest),
            "platform": image.platform,
        }
        if i < len(tags):
            one["annotations"] = {"org.opencontainers.image.ref.name": tags[i]}
        listed.append(one)
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()


def layout(where: Path, *images: Made, tags: tuple[str, ...] = ("1",)) -> Path:
    (where / "blobs/sha256").mkdir(parents=True)
    for image in images:
        for name, data in image.blobs.items():
            (where / "blobs/sha256" / name.removeprefix("sha256:")).write_bytes(data)
    (where / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (where / "index.json").write_bytes(index(*images, tags=tags))
    return where


LIBC = b"\x7fELF...\0GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.\nCopyright\0"
PASSWD = b"root:x:0:0:root:/root:/bin/bash\nbroken line\njupyter:x:1000:1001:,,,:/home/jupyter:/bin/bash\nevil:x:-1:0::/:\n"
PYTHON = b"\x7fELF\0python3.11\0" + b"x" * 2000 + b"\x003.11.9\0more"


def base_tars() -> tuple[bytes, bytes]:
    """A base in two layers: usr-merged, a link on the way to its Python, odd modes, distributions, whiteouts."""
    site = "opt/python/cpython-3.11.9/lib/python3.11/site-packages"
    first = tar(
        folder("./", 0o755),
        folder("usr/lib/x86_64-linux-gnu"),
        link("lib", "usr/lib"),
        entry("usr/lib/x86_64-linux-gnu/libc.so.6", LIBC),
        entry("etc/passwd", PASSWD),
        folder("tmp", 0o1777),
        folder("root", 0o700),
        folder("home/jupyter", 0o750, uid=1000, gid=1001),
        entry("home/jupyter/.bashrc", b"#", uid=1000),
        entry("home/jupyter/old", b"gone in the next layer"),
        entry("var/cache/thing/a", b""),
        link("opt/python/cpython-3.11", "cpython-3.11.9"),
        entry("opt/python/cpython-3.11.9/bin/python3.11", PYTHON),
        link("opt/python/cpython-3.11.9/bin/python3", "python3.11"),
        entry(f"{site}/numpy/core/include/deep.h", b""),
        entry(f"{site}/numpy/version.py", b""),
        entry(
            f"{site}/Foo_Bar.baz-1.10.dist-info/METADATA",
            b"Metadata-Version: 2.1\nName: Foo_Bar.baz\nVersion: 1.10\n\nName: no\n",
        ),
        entry(f"{site}/old-1.egg-info/PKG-INFO", b"Name: old\nVersion: 1\n"),
        entry("usr/bin/python3", b"#!/bin/sh"),
        entry("usr/share/doc/x", b""),
        entry("usr/local/bin/entrypoint.sh", b"#!/bin/sh"),
    )
    second = tar(
        entry("home/jupyter/.wh.old"),
        entry("var/cache/thing/b", b""),
        entry("var/cache/thing/.wh..wh..opq"),
        entry(f"{site}/.wh.old-1.egg-info"),
        entry(f"{site}/added-2.dist-info/METADATA", b"Name: added\nVersion: 2\n"),
        link("usr/local/bin/python3", "/opt/python/cpython-3.11/bin/python3"),
    )
    return first, second
