"""Distributions of the base's Python in an image: NAME-VERSION.dist-info/METADATA and RECORD.

Source: "Recording installed projects", packaging.python.org.
"""

from __future__ import annotations

import base64
import binascii
import csv
import posixpath
import re
from collections.abc import Iterator, Mapping

from packaging.utils import canonicalize_name

from cregraph.formats.dcf import decode
from cregraph.lock.pins import Pin, Target
from cregraph.verify.installed import InImage, Installed

__all__ = ["installed", "is_record"]


def is_record(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return name in ("METADATA", "RECORD") and folder.endswith(".dist-info")


def installed(target: Target, pins: Mapping[str, Pin], image: InImage) -> Iterator[Installed]:
    """Return the distributions; if the files of the base are among those of the image, only the pinned ones."""
    python = image.facts.python
    root = image.resolved(python.site_packages) if python else ""
    for folder in image.names(root) if python else ():
        record = f"{root}/{folder}/METADATA"
        metadata = image.contents.file(record) if is_record(record) else None
        if metadata is None or metadata.data is None:
            continue
        head = "\n".join(decode(metadata.data).splitlines()).partition("\n\n")[0]
        fields = dict(re.findall(r"^(Name|Version): *(.*?) *$", head, re.MULTILINE))
        name = canonicalize_name(fields.get("Name", folder))
        if name in pins or image.contents.base:
            listed = image.contents.file(f"{root}/{folder}/RECORD")
            files = dict(_record(listed.data, root)) if listed is not None and listed.data is not None else {}
            yield Installed(name=name, version=fields.get("Version", ""), record=record, files=files)


def _record(data: bytes, root: str) -> Iterator[tuple[str, str | None]]:
    try:
        for row in csv.reader(decode(data).splitlines()):
            if row and row[0]:
                digest = None
                if len(row) > 1 and row[1].startswith("sha256="):
                    try:
                        digest = base64.urlsafe_b64decode(row[1][7:] + "=" * (-len(row[1][7:]) % 4)).hex()
                    except (binascii.Error, ValueError):
                        digest = "unreadable"
                yield posixpath.normpath(posixpath.join(root, row[0])), digest
    except csv.Error:
        return
