"""The packages of an image compared with those that its lock pins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from cregraph.image.bases.image_files import Contents
from cregraph.kinds import parts
from cregraph.lock.pins import Pin, Target
from cregraph.plan.parts import Segment
from cregraph.plan.planner import Plan
from cregraph.verify.expected import Expected
from cregraph.verify.installed import InImage, Installed, VerifyRules
from cregraph.verify.verdict import Finding

__all__ = ["PackageCheck", "is_record"]


def is_record(path: str) -> bool:
    """Return whether the file at the absolute `path` may say that a package is installed, so that its bytes are needed."""
    return any(rules.is_record(path) for rules in _rules().values())


def _rules() -> Mapping[str, VerifyRules]:
    return cast(Mapping[str, VerifyRules], parts("verify"))


@dataclass(kw_only=True, slots=True)
class PackageCheck:
    """Compares packages, and collects what this says about files.

    Attributes:
        recompiled: Whether files that a task made may have other bytes.
        equal: Number of packages that have the locked version.
        other: Number of files of compiled packages that have other bytes.
        owned: Paths of packages that a finding names, or of which only the image's records are known.
        settled: Keys of segments whose files need no further check.
    """

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
            self.other += sum(self._is_other(path) for path in self.expected.paths_of(segment.key))

    def _recorded(self, one: Installed) -> None:
        """Compare the files of a package that this store does not know with the image's own record of them."""
        self.owned |= one.files.keys()
        for path, digest in one.files.items():
            held = self.contents.file(path)
            if self.contents.tree.at(path) is None:
                self.findings.append(Finding("missing", "file", path, f"of {one.name}"))
            elif digest is not None and held is not None and held.sha256 != digest:
                why = f"of {one.name}: other bytes than its own record says"
                self.findings.append(Finding("changed", "file", path, why))

    def _is_other(self, path: str) -> bool:
        row, held = self.expected.rows[path], self.contents.file(path)
        return held is not None and row.type == "file" and held.sha256 != row.what
