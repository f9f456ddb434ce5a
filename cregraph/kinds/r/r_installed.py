"""Packages of an R library in an image: LIBRARY/NAME/DESCRIPTION (Package, Version)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cregraph.errors import CregraphError
from cregraph.formats.dcf import decode, paragraph
from cregraph.image.bases.file_tree import Directory
from cregraph.lock.pins import Pin, Target
from cregraph.verify.installed import InImage, Installed

__all__ = ["installed", "is_record"]


def is_record(path: str) -> bool:
    return path.endswith("/DESCRIPTION")


def installed(target: Target, pins: Mapping[str, Pin], image: InImage) -> Iterator[Installed]:
    """Return the packages of the library, without those that other targets provide (`r:NAME`)."""
    library = image.resolved(target.place)
    others = {text.partition(" ")[0] for t in image.targets if t.id != target.id for p in t.pins for text in p.provides}
    for folder in image.names(library):
        record = f"{library}/{folder}/DESCRIPTION"
        described = image.contents.file(record)
        if described is None or described.data is None:
            continue
        try:
            fields = paragraph(decode(described.data), what=folder)
        except CregraphError:
            fields = {}
        name = fields.get("Package", folder)
        if f"r:{name.lower()}" not in others:
            files = dict.fromkeys(_below(image.contents.tree.at(f"{library}/{folder}"), f"{library}/{folder}"))
            yield Installed(name=name, version=fields.get("Version", ""), record=record, files=files)


def _below(node: object, path: str) -> Iterator[str]:
    todo: list[tuple[str, object]] = [(path, node)]  # not recursive: the image decides how deep it is
    while todo:
        here, folder = todo.pop()
        if isinstance(folder, Directory):
            todo += [(f"{here}/{name}", child) for name, child in folder.children.items()]
        else:
            yield here
