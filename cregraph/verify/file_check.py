"""The files of an image compared byte for byte with those of its plan."""

from __future__ import annotations

from collections.abc import Container, Iterator, Set

from cregraph.image.bases.facts_from_layers import is_listed
from cregraph.image.bases.file_tree import Directory, Link
from cregraph.image.bases.image_files import Contents, Held
from cregraph.image.model.segment import Row
from cregraph.lock.base_facts import BaseFacts, DirFact
from cregraph.verify.expected import Expected, places
from cregraph.verify.verdict import Finding

__all__ = ["compare_files", "unexpected_files", "unlike_base"]


def unlike_base(contents: Contents, expected: Expected) -> Iterator[Finding]:
    """Return findings about the base: other layers, or paths that layers above it delete."""
    facts = expected.facts
    if not contents.base:
        why = "the image stands on other layers than those of the lock's base"
        yield Finding("changed", "base", facts.digest, why)
        return
    for path, own in contents.hidden:
        folder = path.endswith("/")
        at = path.rstrip("/") or "/"
        if _in_base(facts, at) or not (own or folder or is_listed(at)):
            why = "of the base, deleted by a layer above it"
            yield Finding("missing", "directory" if folder else "file", at, why)


def compare_files(contents: Contents, expected: Expected, settled: Container[str]) -> tuple[int, list[Finding]]:
    """Return the number of equal files, and the differences. Segments whose key is in `settled` are left out."""
    equal, findings = 0, []
    for path, row in expected.rows.items():
        segment = expected.owners[path]
        if segment.key in settled:
            continue
        why = _difference(contents, path, row)
        if why is None:
            equal += 1
        elif why == "":
            findings.append(Finding("missing", "file", path, f"of {segment.name}"))
        else:
            why = f"of {segment.name}: {why}" if segment.name != path else why
            findings.append(Finding("changed", "file", path, why))
    return equal, findings


def _difference(contents: Contents, path: str, row: Row) -> str | None:
    """Return how the image differs from `row`: None if it does not, empty if nothing is at `path`."""
    node = contents.tree.at(path)
    if node is None:
        return ""
    if isinstance(node, Directory):
        return f"a directory instead of a {row.type}"
    if isinstance(node, Link):
        if row.type != "symlink":
            return f"a link to `{node.text}` instead of a file"
        return None if node.text == row.what else f"links to `{node.text}`, not to `{row.what}`"
    if row.type == "symlink":
        return f"a file instead of a link to `{row.what}`"
    return _unlike(contents.of(node), row)


def _unlike(held: Held, row: Row) -> str | None:
    if held.type != "file":
        return "no file that can be read"
    if held.sha256 != row.what:
        return f"has sha256:{held.sha256}, and must have sha256:{row.what}"
    if held.mode != row.mode:
        return f"has mode {held.mode:04o}, and must have {row.mode:04o}"
    if (held.uid, held.gid) != (row.uid, row.gid):
        return f"belongs to {held.uid}:{held.gid}, and must belong to {row.uid}:{row.gid}"
    return None


def unexpected_files(contents: Contents, expected: Expected, owned: Set[str]) -> Iterator[Finding]:
    """Return findings about paths above the base that no segment has. Paths in `owned` are left out.

    Nothing is known if the image does not stand on the base: the base's own files are among its files then.
    """
    if not contents.base:
        return
    facts = expected.facts
    alone = [place for s in expected.plan.segments.values() if s.key not in expected.known and (place := places(s)) is not None]
    paths = [*expected.rows, *owned, *(f"{place}/-" for place in alone)]
    directories = {**expected.directories(paths), **facts.directories}
    for path, node in contents.walk():
        if any(path == place or path.startswith(place + "/") for place in alone):
            continue
        if isinstance(node, Directory):
            yield from _directory(path, node, directories.get(path))
        elif _in_base(facts, path):
            yield Finding("changed", "file", path, "of the base, replaced by a layer above it")
        elif path not in expected.rows and path not in owned:
            yield Finding("extra", "file", path, "no part of the lock puts it there")


def _in_base(facts: BaseFacts, path: str) -> bool:
    return path in facts.directories or path in facts.links or path in facts.files


def _directory(path: str, node: Directory, should: DirFact | None) -> Iterator[Finding]:
    if should is None:
        if not node.children:
            yield Finding("extra", "directory", path)
    elif node.is_listed and (node.fact.mode, node.fact.uid, node.fact.gid) != (should.mode, should.uid, should.gid):
        is_now = f"{node.fact.mode:04o} {node.fact.uid}:{node.fact.gid}"
        why = f"{is_now}, not {should.mode:04o} {should.uid}:{should.gid}"
        yield Finding("changed", "directory", path, why)
