"""What any assembler must do with an image's bytes, in one process and one thread: read, hash, inflate, hash, compress, hash.

`python floor_bytes.py LIST` with a file of JSON, a list of [form, path]. Each file is read and hashed (what a download is
verified by), inflated as its form says, its content hashed (a layer's diff id), compressed in members of 1 MiB by the
compressor of assembly 1, and the result hashed (a layer's digest). Of the form `gzip`, an image's layer or its documents,
nothing is compressed. Nothing is written. Prints three numbers: bytes read, inflated, compressed.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import deflate
import zstandard

_MEMBER = 1 << 20


def content(form: str, data: bytes) -> Iterator[bytes]:
    """The bytes in an artifact, in blocks."""
    if form == "conda":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                if name.endswith(".tar.zst"):
                    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(archive.read(name))) as stream:
                        while block := stream.read(_MEMBER):
                            yield block
    elif form == "whl":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield archive.read(name)
    elif form == "gzip" and data[:2] == b"\x1f\x8b":
        inflater = zlib.decompressobj(wbits=31)
        view = memoryview(data)
        for at in range(0, len(view), 1 << 16):
            yield inflater.decompress(view[at : at + (1 << 16)])
    elif form == "tar.bz2":
        yield bz2.decompress(data)
    else:
        yield data


def main(items: list[tuple[str, str]]) -> None:
    digest, diff = hashlib.sha256(), hashlib.sha256()
    read = inflated = compressed = 0
    for form, path in items:
        data = Path(path).read_bytes()
        hashlib.sha256(data)
        read += len(data)
        held = bytearray()
        for block in content(form, data):
            diff.update(block)
            inflated += len(block)
            if form == "gzip":
                continue
            held += block
            while len(held) >= _MEMBER:
                member = deflate.gzip_compress(bytes(held[:_MEMBER]), 1)
                del held[:_MEMBER]
                digest.update(member)
                compressed += len(member)
        if held:
            member = deflate.gzip_compress(bytes(held), 1)
            digest.update(member)
            compressed += len(member)
    print(read, inflated, compressed)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
