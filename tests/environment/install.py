"""Putting conda packages into a prefix, as plainly as can be: what the environment itself needs to compile with its R."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path


def install(package: Path, root: Path, prefix: str) -> None:
    """Unpack one .conda package so that it works at `prefix` inside the root file system `root`. No noarch, no scripts."""
    import zstandard

    into = root / prefix[1:]
    with zipfile.ZipFile(package) as archive:
        tars = {
            name.split("-")[0]: zstandard.ZstdDecompressor().decompressobj().decompress(archive.read(name))
            for name in archive.namelist()
            if name.endswith(".tar.zst")
        }
    with tarfile.open(fileobj=io.BytesIO(tars["info"])) as info:
        paths = info.extractfile("info/paths.json")
        assert paths is not None
        placed = {path["_path"]: path for path in json.load(paths)["paths"] if "prefix_placeholder" in path}
    with tarfile.open(fileobj=io.BytesIO(tars["pkg"])) as tar:
        for name in tar.getnames():  # others install beside us: tarfile's own way of making folders would race
            (into / name).parent.mkdir(parents=True, exist_ok=True)
        tar.extraction_filter = lambda member, path: member
        tar.extractall(into)
    for name, path in placed.items():
        data = (into / name).read_bytes()
        old, new = path["prefix_placeholder"].encode(), prefix.encode()
        if path["file_mode"] == "text":
            data = data.replace(old, new)
        else:
            data = binary_replaced(data, old, new)
        (into / name).write_bytes(data)


def binary_replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """`data` with each C string that starts at or holds `old` shortened and padded with NULs at its end."""
    out = bytearray(data)
    start = data.find(old)
    while start >= 0:
        end = data.index(b"\0", start)
        string = data[start:end].replace(old, new)
        out[start:end] = string.ljust(end - start, b"\0")
        start = data.find(old, end)
    return bytes(out)
