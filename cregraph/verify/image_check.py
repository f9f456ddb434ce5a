"""Comparison of an image with its lock: packages by the image's own records, files by their bytes where these are known."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from cregraph.build.image_build import image_digest
from cregraph.image.bases.facts_from_layers import is_listed
from cregraph.image.bases.file_tree import Directory, Link
from cregraph.image.bases.image_files import Contents, Held, Layers
from cregraph.image.model.config import compose
from cregraph.image.model.segment import Row
from cregraph.kinds import parts
from cregraph.lock.base_facts import BaseFacts, DirFact
from cregraph.lock.diff import differing
from cregraph.lock.pins import Pin, Target
from cregraph.plan.parts import Segment
from cregraph.plan.planner import Plan
from cregraph.store import Store
from cregraph.verify.expected import Expected, expected_of
from cregraph.verify.installed import InImage, Installed, VerifyRules

__all__ = ["Finding", "Verdict", "is_exactly", "is_record", "known_layers", "verify"]

What = Literal["missing", "extra", "version", "changed"]
Subject = Literal["base", "config", "variable", "label", "package", "directory", "file"]
_RANK = {"base": 0, "config": 1, "variable": 2, "label": 3, "package": 4, "directory": 5, "file": 6}
_PARTS = ("Entrypoint", "Cmd", "User", "WorkingDir", "ExposedPorts", "Volumes", "StopSignal", "Shell")


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference between an image and its lock. `name` is a package, path, variable, label or part of the config."""

    what: What
    subject: Subject
    name: str
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The result of a comparison with the lock. `by` is "digest" for the whole image, "content" for its parts.

    `packages` have the locked version, and `files` equal bytes. For `unread` packages, whose files this store does not know, the
    image's own records were used. `other` files of compiled packages have other bytes.
    """

    by: Literal["digest", "content"]
    findings: tuple[Finding, ...] = ()
    packages: int = 0
    files: int = 0
    unread: int = 0
    other: int = 0


def known_layers(facts: BaseFacts) -> Layers:
    """Return the layers of the base, which need not be read."""
    return [(layer.digest, layer.diff_id) for layer in facts.layers]


def is_exactly(plan: Plan, store: Store, digest: str | None) -> bool:
    """Return whether `digest` (`sha256:…`) is that of the image which this store has built from `plan`."""
    return digest is not None and image_digest(plan, store) == digest


def verify(plan: Plan, facts: BaseFacts, contents: Contents, store: Store, *, recompiled: bool = False) -> Verdict:
    """Compare `contents` with the lock of `plan`. With `recompiled`, files that a task made may have other bytes."""
    expected = expected_of(plan, facts, store)
    packages = _Packages(plan=plan, contents=contents, expected=expected, recompiled=recompiled)
    packages.run()
    equal, findings = _compare_files(contents, expected, packages.settled)
    findings += [
        *packages.findings,
        *_unlike_base(contents, expected),
        *_unexpected(contents, expected, packages.owned),
        *_config(contents.config, plan, facts),
    ]
    return Verdict(
        by="content",
        findings=tuple(sorted(set(findings), key=lambda f: (_RANK[f.subject], f.name, f.what, f.why))),
        packages=packages.equal,
        files=equal,
        unread=len(plan.segments.keys() - expected.known),
        other=packages.other,
    )


def is_record(path: str) -> bool:
    """Return whether the file at the absolute `path` may say that a package is installed, so that its bytes are needed."""
    return any(rules.is_record(path) for rules in _rules().values())


def _rules() -> Mapping[str, VerifyRules]:
    return cast(Mapping[str, VerifyRules], parts("verify"))


@dataclass(kw_only=True, slots=True)
class _Packages:
    """Compares packages. `owned` are paths that need no finding of their own, `settled` keys of segments that need no check."""

    plan: Plan
    contents: Contents
    expected: Expected
    recompiled: bool
    findings: list[Finding] = field(default_factory=list)
    equal: int = 0
    other: int = 0
    owned: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Compare the packages of all targets. Kinds go in order, so that a package which two of them find counts once."""
        image = InImage(contents=self.contents, facts=self.expected.facts, targets=self.plan.lock.targets)
        claimed: set[str] = set()
        for name, rules in _rules().items():
            for target in self.plan.lock.targets:
                if target.kind == name and target.scope == "image":
                    segments = {s.name: s for s in self.plan.segments.values() if s.group == target.id}
                    pins = {p.name.lower(): p for p in target.pins if p.name in segments}
                    found = [one for one in rules.installed(target, pins, image) if one.record not in claimed]
                    self._target(target, pins, found, segments)
                    claimed.update(*(one.files for one in found))

    def _target(self, target: Target, pins: Mapping[str, Pin], found: list[Installed], segments: Mapping[str, Segment]) -> None:
        seen: set[str] = set()
        place = f"in {target.id}"
        for one in found:
            called = f"{one.name} {one.version}".strip()
            pin = pins.get(one.name.lower())
            if pin is None:
                self.findings.append(Finding("extra", "package", called, f"{place}: the lock does not pin it"))
                self.owned |= one.files.keys()
                continue
            if pin.name in seen:
                self.findings.append(Finding("extra", "package", called, f"{place}: installed twice"))
            seen.add(pin.name)
            self._package(pin, one, segments[pin.name], place)
        for pin in pins.values():
            if pin.name not in seen:
                called = f"{pin.name} {pin.version}".strip()
                self.findings.append(Finding("missing", "package", called, place))
                self.settled.add(segments[pin.name].key)

    def _package(self, pin: Pin, one: Installed, segment: Segment, place: str) -> None:
        difference = one.differs
        if one.version != pin.version:
            difference = f"has {one.version or 'no version'}, and the lock pins {pin.version}"
        if difference:
            self.findings.append(Finding("version", "package", pin.name, f"{place}: {difference}"))
            self.owned |= one.files.keys()
            self.settled.add(segment.key)
            return
        self.equal += 1
        if segment.key not in self.expected.known:
            self._recorded(one)
        elif self.recompiled and segment.task_key is not None:
            self.settled.add(segment.key)
            self.owned |= one.files.keys()
            rows = [self.expected.rows[path] for path, owner in self.expected.owners.items() if owner is segment]
            held = ((row, self.contents.file(f"/{row.path}")) for row in rows if row.type == "file")
            self.other += sum(one is not None and one.sha256 != row.what for row, one in held)

    def _recorded(self, one: Installed) -> None:
        """Compare the files of a package that this store does not know with the image's own record of them."""
        self.owned |= one.files.keys()
        for path, digest in one.files.items():
            held = self.contents.file(path)
            if self.contents.tree.at(path) is None:
                self.findings.append(Finding("missing", "file", path, f"of {one.name}"))
            elif digest is not None and held is not None and held.sha256 != digest:
                self.findings.append(Finding("changed", "file", path, f"of {one.name}: other bytes than its own record states"))


def _unlike_base(contents: Contents, expected: Expected) -> Iterator[Finding]:
    facts = expected.facts
    if not contents.base:
        yield Finding("changed", "base", facts.digest, "the image has other base layers than the lock")
        return
    for path, own in contents.hidden:
        folder = path.endswith("/")
        at = path.rstrip("/") or "/"
        if _in_base(facts, at) or not (own or folder or is_listed(at)):
            yield Finding("missing", "directory" if folder else "file", at, "of the base, deleted by a layer above it")


def _compare_files(contents: Contents, expected: Expected, settled: Container[str]) -> tuple[int, list[Finding]]:
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
    return _unlike(node.kept, row)


def _unlike(held: Held, row: Row) -> str | None:
    if held.type != "file":
        return "not a readable file"
    if held.sha256 != row.what:
        return f"has sha256:{held.sha256}, but must have sha256:{row.what}"
    if held.mode != row.mode:
        return f"has mode {held.mode:04o}, but must have {row.mode:04o}"
    if (held.uid, held.gid) != (row.uid, row.gid):
        return f"belongs to {held.uid}:{held.gid}, and must belong to {row.uid}:{row.gid}"
    return None


def _unexpected(contents: Contents, expected: Expected, owned: Set[str]) -> Iterator[Finding]:
    """Return findings about paths above the base that no segment has, and that are not in `owned`."""
    if not contents.base:
        return  # the base's own files are among them
    facts = expected.facts
    unknown = [s for s in expected.plan.segments.values() if s.key not in expected.known]
    alone = [str(s.place["at"]) for s in unknown if "at" in s.place]  # folders and files that one segment alone fills
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
        yield Finding("changed", "directory", path, f"{is_now}, not {should.mode:04o} {should.uid}:{should.gid}")


def _config(config: Mapping[str, Any], plan: Plan, facts: BaseFacts) -> Iterator[Finding]:
    wanted = json.loads(compose(facts, (), env=plan.env, labels=plan.labels).config).get("config") or {}
    found = config.get("config")
    found = found if isinstance(found, dict) else {}
    yield from _pairs("variable", _mapping(wanted.get("Env")), _mapping(found.get("Env")))
    yield from _pairs("label", _mapping(wanted.get("Labels")), _mapping(found.get("Labels")))
    for part in _PARTS:
        if (found.get(part) or None) != (wanted.get(part) or None):
            yield Finding("changed", "config", part, f"it is {_shown(found.get(part))}, and must be {_shown(wanted.get(part))}")


def _pairs(subject: Subject, wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Finding]:
    for key, should, value in differing(wanted, found):
        if value is None:
            yield Finding("missing", subject, key, f"it must be `{should}`")
        elif should is not None:
            yield Finding("changed", subject, key, f"it is `{value}`, and must be `{should}`")
        elif subject == "variable":  # builders add labels of their own, and nothing acts on them
            yield Finding("extra", subject, key, f"it is `{value}`")


def _mapping(value: object) -> dict[str, str]:
    if isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items()}
    if isinstance(value, list):
        return {item.partition("=")[0]: item.partition("=")[2] for item in value if isinstance(item, str)}
    return {}


def _shown(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)[:200]
